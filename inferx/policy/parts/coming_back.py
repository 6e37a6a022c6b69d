"""What it takes a pod to come back from where it was sent: seconds, from the learned estimates.

Estimates are affine in the bytes that a start moves, for each tier and group of nodes: two of them
give those of all functions. Ours.
"""

import numpy as np

from inferx.policy import F64, I32, I64, NS_PER_S, ClusterView, FunctionId, NodeId, Tier

__all__ = ["back_s", "below"]


def below(view: ClusterView, rows: I64, *, writes: bool) -> I32:
    """Return the warmest tier below host memory that has a pod's state when it has left.

    Args:
        view: The cluster.
        rows: Pods, as rows of `view.pods`.
        writes: Whether its snapshot is written to its node's disk, where it is not there and fits.

    Returns:
        Shape (rows,): NVME, else REMOTE if the shared store has it, else ABSENT.
    """
    pods, nodes, functions = view.pods, view.nodes, view.functions
    node, function = pods.node[rows], pods.function[rows]
    size = functions.device_bytes + functions.host_bytes
    disk = nodes.snapshots[node, function]
    if writes:
        disk = disk | (nodes.nvme_bytes_free[node] >= size[function])
    store = nodes.remote_snapshots[nodes.platform[node], function]
    tiers = np.where(disk, int(Tier.NVME), np.where(store, int(Tier.REMOTE), int(Tier.ABSENT)))
    return tiers.astype(np.int32)


def back_s(view: ClusterView, rows: I64, tiers: I32) -> F64:
    """Return each pod's expected time to ready on its node, in seconds, from a tier each.

    Shape (rows,).
    """
    pods = view.pods
    names = [spec.group for spec in view.nodes.specs]
    groups = list(dict.fromkeys(names))
    group_of = np.array([groups.index(name) for name in names])
    group, function = group_of[pods.node[rows]], pods.function[rows]
    times = np.zeros(len(rows))
    for tier in np.unique(tiers).tolist():
        mine = tiers == tier
        first = [names.index(name) for name in groups]
        times[mine] = _start_s(view, Tier(tier), first)[group[mine], function[mine]]
    return times


def _start_s(view: ClusterView, tier: Tier, nodes: list[int]) -> F64:
    """Return the expected time to ready from a tier, in seconds. Shape (nodes, functions)."""
    functions = view.functions
    if tier is Tier.DRAM:
        moved = functions.device_bytes
    elif tier is Tier.ABSENT:
        moved = np.array([spec.weight_bytes for spec in functions.specs], np.int64)
    else:
        moved = functions.device_bytes + functions.host_bytes
    low, high = int(moved.argmin()), int(moved.argmax())
    far = (moved - moved[low]) / max(1, int(moved[high] - moved[low]))
    times: F64 = np.empty((len(nodes), len(moved)))
    for at, node in enumerate(nodes):
        least = view.start_ns(FunctionId(low), tier, NodeId(node))
        most = view.start_ns(FunctionId(high), tier, NodeId(node))
        times[at] = (least + (most - least) * far) / NS_PER_S
    return times
