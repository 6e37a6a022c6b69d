"""The preemption ladder, rung by rung, and the best plan of all subsets."""

import msgspec
import numpy as np
import pytest
from crowd import crowds, naive_plan
from hypothesis import given
from hypothesis import strategies as st
from small_cluster import GIB, add, cluster, function, suspend, want

from inferx.core.machine.proposals import check_evict
from inferx.core.pod import Lease
from inferx.core.rng import stream
from inferx.core.types import LeaseId, RouterId
from inferx.core.view import ClusterView
from inferx.load import LoadError, load_bundle
from inferx.policy import Defer, Evict, FunctionId, GpuId, NodeId, PodId, Tier
from inferx.policy.parts.coming_back import back_s, below

S = 10**9
NO_VICTIMS = Defer("no victims suffice")


def evict(c, f, *, waited_s=0.0, **settings):
    asked = msgspec.structs.replace(want(c, f), since_ns=c.now_ns - int(waited_s * S))
    made = load_bundle("ladder", settings)
    plan = made.eviction.evict(asked, ClusterView(c, snapshots=True), stream(1, "t"))
    if isinstance(plan, Evict):
        check_evict(asked, plan, c)
    return plan


def lease(c, pod):
    pod.leases[LeaseId(pod.id)] = Lease(LeaseId(pod.id), RouterId(0), pod.id, 1)
    c.touch(pod)
    return pod


def crowd(*gib, nodes=1, gpus=1, new=60):
    """Functions of given sizes and a newcomer, a minute after the start."""
    functions = [function(f"f{i}", size) for i, size in enumerate(gib)] + [function("new", new)]
    c = cluster(functions, nodes=nodes, gpus=gpus)
    c.nvme[:, :] = True
    c.now_ns = 60 * S
    return c


def test_idle_pods_are_suspended_and_whoever_is_expected_back_soonest_stays():
    c = crowd(70, 70, gpus=2)
    add(c, 0, 0, [0])
    add(c, 1, 1, [1])
    for second in range(1, 60):
        c.arrivals.learn(0, 1, second * S, within_ns=S)
    c.arrivals.learn(1, 1, 1 * S, within_ns=S)
    c.arrivals.learn(1, 1, 59 * S, within_ns=S)
    assert evict(c, 2) == Evict((GpuId(1),), ((PodId(1), Tier.DRAM),))


def test_they_go_to_the_disk_where_host_memory_has_no_room():
    c = crowd(70)
    add(c, 0, 0, [0])
    c.node_host_open[0] = 36 * GIB  # The victim's GPU state takes 35, the newcomer 2.
    assert evict(c, 1) == Evict((GpuId(0),), ((PodId(0), Tier.NVME),))


def test_suspended_pods_leave_host_memory_that_the_newcomer_needs():
    c = crowd(20, 30, 70)
    for pod in (0, 1):
        suspend(c, add(c, pod, pod, [0]))
    for f in (0, 1):  # Both may come back; the larger one would read more.
        c.arrivals.learn(f, 1, 1 * S, within_ns=S)
        c.arrivals.learn(f, 1, 59 * S, within_ns=S)
    add(c, 2, 2, [0])
    c.node_host_open[0] = -1 * GIB  # The idle one gives back 2: one more is needed.
    plan = evict(c, 3)
    assert plan == Evict((GpuId(0),), ((PodId(0), Tier.NVME), (PodId(2), Tier.NVME)))


def test_a_busy_pod_moves_once_the_want_has_waited_and_it_has_served():
    c = crowd(70, 10, gpus=2, new=75)
    busy = lease(c, add(c, 0, 1, [0]))  # Small: it fits beside the other.
    lease(c, add(c, 1, 0, [1]))
    assert evict(c, 2, waited_s=9) == NO_VICTIMS
    assert evict(c, 2, waited_s=10) == Evict((GpuId(0),), ((busy.id, Tier.DRAM),))
    # One that has just begun to serve is spared; the other fits beside it.
    c.columns.ready_ns[busy.row] = 30 * S
    assert evict(c, 2, waited_s=10) == Evict((GpuId(1),), ((PodId(1), Tier.DRAM),))


def test_a_busy_pod_without_another_place_is_killed_last():
    c = crowd(70)
    lease(c, add(c, 0, 0, [0]))
    assert evict(c, 1, waited_s=9) == NO_VICTIMS
    assert evict(c, 1, waited_s=10) == Evict((GpuId(0),), ((PodId(0), Tier.ABSENT),))
    assert evict(c, 1, waited_s=10, grace_s=61) == NO_VICTIMS


def test_no_function_falls_below_its_floor():
    c = cluster(
        [msgspec.structs.replace(function("kept", 70), min_replica=1), function("new", 70)],
        nodes=1,
        gpus=1,
    )
    add(c, 0, 0, [0])
    assert evict(c, 1, waited_s=1) == NO_VICTIMS


@given(st.data())
def test_what_comes_back_is_estimated_as_the_view_does(data):
    sizes = data.draw(st.lists(st.integers(1, 70), min_size=3, max_size=3))
    c = cluster([function(f"f{i}", gib) for i, gib in enumerate(sizes)], nodes=2, gpus=4)
    tiers = (Tier.ABSENT, Tier.REMOTE, Tier.NVME, Tier.DRAM)
    for tier, f, took_s in data.draw(
        st.lists(st.tuples(st.sampled_from(tiers), st.integers(0, 2), st.integers(1, 90)))
    ):
        c.starts.learn(tier, 0, c.functions[f], took_s * S)
    for node, f in data.draw(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2)))):
        c.nvme[node, f] = c.remote[0, (f + 1) % 3] = True
    c.node_nvme_free[1] = 10 * GIB
    for pod in range(6):
        add(c, pod, pod % 3, [pod])
    view, rows = ClusterView(c, snapshots=True), np.arange(6)
    drawn = np.array([int(data.draw(st.sampled_from(tiers))) for _ in rows], np.int32)
    told = back_s(view, rows, drawn)
    for row in rows:
        f, node = FunctionId(row % 3), NodeId(row // 4)
        assert told[row] == pytest.approx(view.start_ns(f, Tier(drawn[row]), node) / S, abs=1e-6)
        fits = c.node_nvme_free[node] >= c.functions[f].snapshot_bytes
        store = Tier.REMOTE if c.remote[0, f] else Tier.ABSENT
        for writes in (True, False):
            disk = c.nvme[node, f] or (writes and fits)
            tier = int(below(view, rows, writes=writes)[row])
            assert tier == (Tier.NVME if disk else store)


@pytest.mark.parametrize("gpus", [1, 2])
@given(st.data())
def test_the_first_rung_is_the_best_of_all_subsets(gpus, data):
    c, asked_for = data.draw(crowds(gpus))
    c.now_ns = 100 * S
    for f in range(4):
        c.arrivals.learn(f, 1, 1 * S, within_ns=S)
        c.arrivals.learn(f, int(asked_for[f]), 99 * S, within_ns=S)
    view, rows = ClusterView(c, snapshots=True), np.flatnonzero(c.columns.idle).tolist()
    cost = np.zeros(16, np.int64)
    for row in rows:
        f = FunctionId(int(c.columns.function[row]))
        odds = 1.0 - np.exp(-view.arrivals_per_s(f) * 300.0)
        cost[row] = 1 + round(1e6 * odds * view.start_ns(f, Tier.DRAM, NodeId(0)) / S)
    best, plan = naive_plan(want(c, 4), c, rows, cost, 256 << 20), evict(c, 4)
    if best is None or not best[2]:
        assert plan == NO_VICTIMS
        return
    mine = sum(int(cost[c.pods[pod].row]) for pod, _ in plan.victims)
    # Costs are rounded to a microsecond each, once from one start and once from two.
    assert mine == pytest.approx(best[0][0], abs=2 * len(plan.victims))


@given(st.data())
def test_every_plan_is_possible(data):
    """Busy, idle and suspended pods, little host memory: the kernel takes what is proposed."""
    c, _ = data.draw(crowds(data.draw(st.sampled_from([1, 2]))))
    c.now_ns = 100 * S
    for pod in list(c.pods.values()):
        match data.draw(st.sampled_from(["idle", "busy", "suspended"])):
            case "busy":
                lease(c, pod)
            case "suspended" if len(pod.gpus) == 1:
                suspend(c, pod)
    for node in range(2):
        c.node_host_open[node] = data.draw(st.sampled_from([-4, 0, 3, 40])) * GIB
    if not ClusterView(c, snapshots=True).fits(want(c, 4)).any():
        evict(c, 4, waited_s=data.draw(st.sampled_from([0, 50])))


@pytest.mark.parametrize("setting", ["horizon_s", "drain_after_s", "grace_s", "unit_mib"])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(LoadError, match=f"{setting} is -1"):
        load_bundle("ladder", {setting: -1})
