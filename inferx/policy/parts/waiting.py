"""What starts cost, in the seconds that requests wait: the currency of `default`. Ours."""

import numpy as np

from inferx.policy import (
    F64,
    I32,
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


def waiting_s(rate: F64, start_s: F64) -> F64:
    """Return how long those who come during one start wait in all, the first one included."""
    total: F64 = start_s * (1.0 + 0.5 * rate * start_s)
    return total


def starts_s(view: ClusterView, source: Tier) -> F64:
    """Start-up time of every function from a tier, the best group's. Shape (functions,)."""
    best: F64 = view.best_starts_ns(source) / NS_PER_S
    return best


def far_s(view: ClusterView, of: I64 | I32 | None = None) -> F64:
    """Start-up time of functions without a copy in host memory. Shape of `of`; None: (functions,).

    From where its state does lie: what no start ever came from is an estimate that nobody corrects.
    """
    nodes = view.nodes
    stored, kept = nodes.remote_snapshots, nodes.snapshots
    starts = [view.best_starts_ns(source) for source in (Tier.ABSENT, Tier.REMOTE, Tier.NVME)]
    if of is not None:
        stored, kept = stored.take(of, axis=1), kept.take(of, axis=1)
        starts = [each.take(of) for each in starts]
    remote, local = np.logical_or.reduce(stored, axis=0), np.logical_or.reduce(kept, axis=0)
    fresh, fetched, read = starts
    far: F64 = np.where(local, read, np.where(remote, fetched, fresh)) / NS_PER_S
    return far


def saved_s(rate: F64, near_s: F64, far_s: F64) -> F64:
    """Return the waiting that a copy in host memory saves each second. Shape (functions,)."""
    saved: F64 = rate * np.maximum(waiting_s(rate, far_s) - waiting_s(rate, near_s), 0.0)
    return saved


def copying(view: ClusterView) -> Bool:
    """Pods on their way into host memory without a GPU. Shape (rows of view.pods,)."""
    pods = view.pods
    coming: Bool = (pods.state == PodState.RESTORING) & (pods.gpu[:, 0] < 0)
    return coming


def ready_s(function: FunctionId, view: ClusterView) -> F64:
    """Expected seconds to ready on each GPU. Shape (gpus,).

    Starts on one GPU go one after another; those on other GPUs of its node share its links.
    """
    node, starting = view.gpus.node, view.gpus.starting
    alone = view.node_restore_ns(function) / NS_PER_S
    ready: F64 = (alone * (1.0 + BESIDE * view.nodes.starting))[node]
    # Few GPUs have a start under way: the queues are added there alone, one start after another.
    gpu = starting.nonzero()[0]
    before = 0
    while len(gpu):
        ready[gpu] += alone[node[gpu]]
        before += 1
        gpu = gpu[starting[gpu] > before]
    return ready


def comes_back(want: Want, view: ClusterView) -> bool:
    """Tell whether a pod on its way to host memory is back before a new one would be ready."""
    if not view.nodes_in(want.function, PodState.SUSPENDING):
        return False
    back_ns = COMES_BACK * int(view.best_starts_ns(Tier.DRAM)[want.function])
    return bool(back_ns <= view.node_restore_ns(want.function).min())
