"""What caching policies share: who was used how often, whose turn it is, and who has really left.

The kernel carries a plan out in the step in which it was proposed, or not at all. A policy whose
state moves with evictions therefore remembers what it proposed and, when it is next asked, reads
from the view which of the victims still serve: those were spared, the others left.
"""

from dataclasses import dataclass, field

import numpy as np

from inferx.core.events import LoadReported
from inferx.policy import (
    F64,
    FOREVER_NS,
    GIB,
    NS_PER_S,
    ClusterView,
    Evict,
    FunctionId,
    NodeId,
    PodId,
    PodState,
    Retain,
    Tier,
)

__all__ = ["FOR_EVER", "Departures", "Left", "Uses", "back_s_per_gib", "in_turn", "size_gib"]


FOR_EVER = Retain(FOREVER_NS, Tier.ABSENT)
"""The keep-alive of a cache, at either tier."""


@dataclass(frozen=True, slots=True)
class Left:
    """A pod that was proposed as a victim.

    Attributes:
        pod: The pod; its id may come back, when it is resumed.
        function: Its function.
        at_ns: When it was proposed.
        price: What it was worth then.
        last: Whether no pod of the function stays ready beside the plan's victims.
    """

    pod: PodId
    function: FunctionId
    at_ns: int
    price: float
    last: bool


@dataclass(slots=True)
class Departures:
    """Proposed victims, until the view tells what became of them."""

    _proposed: list[Left] = field(default_factory=list[Left])

    def propose(self, plan: Evict, prices: F64, view: ClusterView) -> None:
        """Note a plan. `prices` has shape (rows of view.pods,)."""
        pods = view.pods
        victims = [int(pod) for pod, _ in plan.victims]
        rows = np.flatnonzero(np.isin(pods.id, victims))
        functions = pods.function[rows].tolist()
        for row, f in zip(rows.tolist(), functions, strict=True):
            last = int(view.functions.ready[f]) <= functions.count(f)
            pod, function = PodId(int(pods.id[row])), FunctionId(f)
            self._proposed.append(Left(pod, function, view.now_ns, float(prices[row]), last))

    def left(self, view: ClusterView) -> list[Left]:
        """Return the victims that left since they were proposed, and forget all of them."""
        if not self._proposed:
            return []
        proposed, self._proposed = self._proposed, []
        pods = view.pods
        # One that is ready again since has left in between.
        ready = np.flatnonzero(pods.state == int(PodState.READY))
        since = dict(zip(pods.id[ready].tolist(), pods.ready_ns[ready].tolist(), strict=True))
        return [one for one in proposed if since.get(one.pod, FOREVER_NS) > one.at_ns]


@dataclass(slots=True)
class Uses:
    """How often each function was asked for while it was resident, as gateways report it."""

    _count: F64 = field(default_factory=lambda: np.zeros(0))

    def observe(self, event: object) -> None:
        """Count the arrivals of a report."""
        if isinstance(event, LoadReported) and event.functions:
            self._grow(max(event.functions) + 1)
            for function, arrivals in zip(event.functions, event.arrivals, strict=True):
                self._count[function] += arrivals

    def of(self, functions: int) -> F64:
        """Return the counts, one where none was reported yet. Shape (functions,)."""
        self._grow(functions)
        return np.maximum(self._count[:functions], 1.0)

    def forget(self, function: FunctionId) -> None:
        """Begin to count a function anew."""
        self._grow(function + 1)
        self._count[function] = 0.0

    def _grow(self, functions: int) -> None:
        if functions > len(self._count):
            self._count = np.append(self._count, np.zeros(functions - len(self._count)))


def size_gib(function: FunctionId, view: ClusterView) -> float:
    """Return the GPU memory that a pod of a function holds, over all its slices."""
    spec = view.spec(function)
    return spec.gpus * spec.hbm_bytes / GIB


def back_s_per_gib(function: FunctionId, then: Tier, view: ClusterView) -> float:
    """Return what a start costs once a ready pod has sunk to `then`, in seconds per GiB.

    It comes from there, or from a warmer tier where that holds the function's state already; the
    seconds are the view's estimate on the node of the function's first ready pod.
    """
    pods = view.pods
    mine = np.flatnonzero((pods.function == function) & (pods.state == int(PodState.READY)))
    node = int(pods.node[mine[0]]) if len(mine) else 0
    source = Tier(max(int(then), int(view.node_tier(function)[node])))
    return view.start_ns(function, source, NodeId(node)) / NS_PER_S / size_gib(function, view)


def in_turn(prices: F64, view: ClusterView) -> F64:
    """Return the place of each pod in the order of leaving: cheapest first, then idle longest.

    A pod's place instead of its price, for prices that are equal must not be told apart by the
    order of the pods. Shape (rows of view.pods,); `inf` for pods that are not idle.
    """
    pods = view.pods
    rows = np.flatnonzero(pods.idle)
    order = np.lexsort((pods.idle_since_ns[rows], prices[rows]))
    turn: F64 = np.full(len(prices), np.inf)
    turn[rows[order]] = np.arange(len(rows), dtype=np.float64)
    return turn
