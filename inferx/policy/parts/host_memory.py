"""Host memory when pods leave their GPUs: what takes it, and whether a victim may go there.

A suspended victim takes host memory that the newcomer may need as well; the kernel refuses a plan
that leaves too little. Ours.
"""

from collections.abc import Sequence

import numpy as np

from inferx.policy import I64, Bool, ClusterView, FunctionId, PodId, PodState, Tier, Want

__all__ = ["host_spare", "roomy_nodes", "suspended_on", "tiers_of"]


def tiers_of(
    want: Want, view: ClusterView, node: int, dearest: Sequence[int]
) -> tuple[tuple[PodId, Tier], ...] | None:
    """Return a tier for each victim on a node: host memory while it has room, else the disk.

    Args:
        want: What comes in their place; the host memory that it needs is left free.
        view: The cluster.
        node: The victims' node.
        dearest: Their rows in `view.pods`; the first is the last that has to go to the disk.

    Returns:
        The victims in the order of their rows; None where even with all of them on the disk the
        want would lack host memory.
    """
    pods = view.pods
    brings = bool(suspended_on(want, view)[node])
    # More than all may be promised already: then there is less than nothing.
    room = int(view.nodes.host_bytes_free[node]) - (0 if brings else want.host_bytes)
    to: dict[int, Tier] = {}
    for row in reversed(dearest):
        if room < 0:
            to[row] = Tier.NVME
            room += int(pods.host_bytes[row])
    if room < 0 and not brings:
        return None
    for row in dearest:
        size = view.spec(FunctionId(int(pods.function[row]))).device_bytes
        if row not in to and not pods.standby[row] and room >= size:
            to[row] = Tier.DRAM
            room -= size
    return tuple((PodId(int(pods.id[row])), to.get(row, Tier.NVME)) for row in sorted(dearest))


def suspended_on(want: Want, view: ClusterView) -> Bool:
    """Return the nodes where a pod of the wanted function is suspended. Shape (nodes,).

    It brings its host memory along: a start there needs no more.
    """
    there = np.zeros(len(view.nodes.specs), np.bool_)
    there[view.nodes_in(want.function, PodState.STANDBY)] = True
    return there


def host_spare(want: Want, view: ClusterView) -> I64:
    """Return what each node's host memory has beyond the want's need. Shape (nodes,)."""
    free = view.nodes.host_bytes_free
    spare: I64 = free - want.host_bytes
    for node in view.nodes_in(want.function, PodState.STANDBY):
        spare[node] = free[node]
    return spare


def roomy_nodes(want: Want, view: ClusterView) -> Bool:
    """Return the nodes whose host memory takes the want as it is. Shape (nodes,)."""
    return suspended_on(want, view) | (view.nodes.host_bytes_free >= want.host_bytes)
