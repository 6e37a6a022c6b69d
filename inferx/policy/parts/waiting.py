"""What starts cost, in the seconds that requests wait: the currency of `default`. Ours."""

import numpy as np

from inferx.policy import (
    F64,
    I64,
    NS_PER_S,
    Bool,
    ClusterView,
    FunctionId,
    PodState,
    Tier,
    Want,
)

__all__ = [
    "KILL_S",
    "RARELY_PER_S",
    "comes_back",
    "copies_of",
    "copying",
    "far_s",
    "ready_s",
    "saved_s",
    "starts_s",
    "waiting_s",
]

BESIDE = 0.1
"""Share of a start that each other one under way on its node adds to it."""
RARELY_PER_S = 1.0 / 86_400
"""Rate of a function that nobody has asked for yet: once a day."""

KILL_S = 0.5
"""How long a start waits for a victim that is killed; longer for one that is suspended."""
COMES_BACK = 1.5
"""Resumes that a pod takes which must first arrive in host memory: half of that way is left."""

_STARTING = np.zeros(len(PodState), np.bool_)
_STARTING[[PodState.CREATING, PodState.RESTORING, PodState.RESUMING]] = True


def waiting_s(rate: F64, start_s: F64) -> F64:
    """Return how long those who come during one start wait in all, the first one included."""
    total: F64 = start_s * (1.0 + 0.5 * rate * start_s)
    return total


def starts_s(view: ClusterView, source: Tier) -> F64:
    """Start-up time of every function from a tier, the best group's. Shape (functions,)."""
    best: F64 = view.starts_ns(source).min(axis=0) / NS_PER_S
    return best


def far_s(view: ClusterView) -> F64:
    """Start-up time of every function without a copy in host memory. Shape (functions,).

    From where its state does lie: what no start ever came from is an estimate that nobody corrects.
    """
    nodes = view.nodes
    below = np.where(
        nodes.remote_snapshots.any(axis=0),
        starts_s(view, Tier.REMOTE),
        starts_s(view, Tier.ABSENT),
    )
    return np.where(nodes.snapshots.any(axis=0), starts_s(view, Tier.NVME), below)


def saved_s(rate: F64, near_s: F64, far_s: F64) -> F64:
    """Return the waiting that a copy in host memory saves each second. Shape (functions,)."""
    saved: F64 = rate * np.maximum(waiting_s(rate, far_s) - waiting_s(rate, near_s), 0.0)
    return saved


def copying(view: ClusterView) -> Bool:
    """Pods on their way into host memory without a GPU. Shape (rows of view.pods,)."""
    pods = view.pods
    coming: Bool = (pods.state == PodState.RESTORING) & (pods.gpu[:, 0] < 0)
    return coming


def copies_of(view: ClusterView) -> I64:
    """Suspended pods of each function, those on their way there included. Shape (functions,)."""
    pods = view.pods
    there = pods.standby | copying(view)
    return np.bincount(pods.function[there], minlength=len(view.functions.specs))


def ready_s(function: FunctionId, view: ClusterView) -> F64:
    """Expected seconds to ready on each GPU. Shape (gpus,).

    Starts on one GPU go one after another; those on other GPUs of its node share its links.
    """
    pods, node = view.pods, view.gpus.node
    alone = view.node_restore_ns(function) / NS_PER_S
    starting = np.flatnonzero(_STARTING[pods.state] & (pods.gpu[:, 0] >= 0))
    if not len(starting):
        return alone[node]
    beside = np.bincount(pods.node[starting], minlength=len(alone))
    ready: F64 = (alone * (1.0 + BESIDE * beside))[node]
    # Few GPUs have a start under way: the queues are added there alone.
    gpu = pods.gpu[starting].ravel()
    gpu = gpu[gpu >= 0]
    np.add.at(ready, gpu, alone[node[gpu]])
    return ready


def comes_back(want: Want, view: ClusterView) -> bool:
    """Tell whether a pod on its way to host memory is back before a new one would be ready."""
    pods = view.pods
    if not ((pods.function == want.function) & (pods.state == PodState.SUSPENDING)).any():
        return False
    back_ns = COMES_BACK * int(view.starts_ns(Tier.DRAM)[:, want.function].min())
    return bool(back_ns <= view.node_restore_ns(want.function).min())
