"""The cluster's books, counted anew from its pods: what is kept must be what is so."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from inferx.core.counts import COUNTED, UNDER_WAY, is_copy
from inferx.core.types import FunctionId, NodeId
from inferx.core.units import MILLI_PER_GPU

if TYPE_CHECKING:
    from inferx.core.cluster import Cluster

__all__ = ["recount"]


def recount(c: "Cluster", nvme_pending: Sequence[tuple[NodeId, FunctionId]]) -> None:
    """Assert INV-1, and that every count is of the pods that it says; see `Cluster.check`."""
    _charges(c, nvme_pending)
    _counts(c)


def _charges(c: "Cluster", nvme_pending: Sequence[tuple[NodeId, FunctionId]]) -> None:
    milli = np.zeros(c.gpu_count, np.int64)
    hbm = np.zeros(c.gpu_count, np.int64)
    milli_claimed = np.zeros(c.gpu_count, np.int64)
    hbm_claimed = np.zeros(c.gpu_count, np.int64)
    host = np.zeros(len(c.nodes), np.int64)
    host_claimed = np.zeros(len(c.nodes), np.int64)
    for pod in c.pods.values():
        spec = c.functions[pod.function]
        host[pod.node] += pod.host_charged
        if pod.claims:
            host_claimed[pod.node] += c.claimed_host(pod)
        for gpu in pod.gpus:
            if pod.holds_gpu:
                milli[gpu] += spec.milli_gpu
                hbm[gpu] += spec.hbm_bytes
            if pod.claims:
                milli_claimed[gpu] += spec.milli_gpu
                hbm_claimed[gpu] += spec.hbm_bytes
    assert np.array_equal(milli, c.gpu_milli_charged), "INV-1: charged milli"
    assert np.array_equal(hbm, c.gpu_hbm_charged), "INV-1: charged HBM"
    milli_open = MILLI_PER_GPU - milli - milli_claimed
    hbm_open = c.gpu_hbm_total - hbm - hbm_claimed
    host_open = c.node_host_total - host - host_claimed
    assert np.array_equal(milli_open, c.gpu_milli_open), "INV-1: open milli"
    assert np.array_equal(hbm_open, c.gpu_hbm_open), "INV-1: open HBM"
    assert (milli <= MILLI_PER_GPU).all(), "INV-1: more milli than a GPU has"
    assert (hbm <= c.gpu_hbm_total).all(), "INV-1: more memory than a GPU has"
    assert np.array_equal(host, c.node_host_charged), "INV-1: charged host memory"
    assert np.array_equal(host_open, c.node_host_open), "INV-1: open host memory"
    assert (host <= c.node_host_total).all(), "INV-1: more host memory than a node has"
    used = c.nvme @ c.snapshot_bytes
    for node, function in nvme_pending:
        used[node] += c.snapshot_bytes[function]
    assert np.array_equal(c.node_nvme_total - used, c.node_nvme_free), "INV-1: disk"


def _counts(c: "Cluster") -> None:
    for name, members in COUNTED:
        counts = np.zeros(len(c.functions), np.int64)
        for pod in c.pods.values():
            counts[pod.function] += pod.state in members
        assert np.array_equal(counts, getattr(c, name)), name
    copies = np.zeros(len(c.functions), np.int64)
    gpu_starts = np.zeros(c.gpu_count, np.int64)
    node_starts = np.zeros(len(c.nodes), np.int64)
    for pod in c.pods.values():
        copies[pod.function] += is_copy(pod)
        if pod.gpus and UNDER_WAY[pod.state]:
            gpu_starts[list(pod.gpus)] += 1
            node_starts[pod.node] += 1
    assert np.array_equal(copies, c.fn_copies), "copies in host memory"
    assert np.array_equal(gpu_starts, c.gpu_starting), "starts on GPUs"
    assert np.array_equal(node_starts, c.node_starting), "starts on nodes"
