"""The plain bundle, in which policies of one slot are compared."""

import numpy as np
from small_cluster import add, cluster, function, want

from inferx.core.rng import stream
from inferx.core.view import ClusterView
from inferx.load import load_bundle
from inferx.policy import Evict, FunctionId, GpuId, Place, PodId, Tier
from inferx.policy.plain import NearestState


def test_nearest_state_is_where_the_snapshot_lies():
    c = cluster([function("A", 20)], nodes=3, gpus=1)
    c.nvme[1, 0] = True
    view = ClusterView(c, snapshots=True)
    score = NearestState().score(want(c, 0), view)
    loop = [
        min(view.restore_ns(FunctionId(0)) + 1) / (view.restore_ns(FunctionId(0))[gpu] + 1)
        for gpu in range(3)
    ]
    assert np.allclose(score, loop)
    placed = load_bundle("plain").placement.place(want(c, 0), view, stream(1, "t"))
    assert placed == Place((GpuId(1),))


def test_the_pod_idle_longest_leaves_for_host_memory():
    c = cluster([function("A", 60), function("B", 60), function("C", 60)], nodes=1, gpus=2)
    add(c, 0, 0, [0], idle_since=7)
    add(c, 1, 1, [1], idle_since=3)
    plan = load_bundle("plain").eviction.evict(
        want(c, 2), ClusterView(c, snapshots=True), stream(1, "t")
    )
    assert plan == Evict((GpuId(1),), ((PodId(1), Tier.DRAM),))


def test_a_victim_goes_to_the_disk_where_the_newcomer_needs_the_host_memory():
    c = cluster([function("A", 60), function("B", 60)], nodes=1, gpus=1)
    add(c, 0, 0, [0])
    c.node_host_open[0] = 31 << 30  # A's GPU state is 30 GiB, B needs 2.
    plan = load_bundle("plain").eviction.evict(
        want(c, 1), ClusterView(c, snapshots=True), stream(1, "t")
    )
    assert plan == Evict((GpuId(0),), ((PodId(0), Tier.NVME),))
