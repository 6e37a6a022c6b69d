"""Hybrid histogram: each function's own idle times say when it leaves and when it comes back.

Source: Shahrad et al., "Serverless in the Wild: Characterizing and Optimizing the Serverless
Workload at a Large Cloud Provider", USENIX ATC'20, pp. 205-218, section 4; the rounding and the
threshold of out of bounds are those of a simulator that implements it, repository
osukhoroslov/dslab at a6c155e, `crates/dslab-faas/src/extra/hybrid_histogram.rs`. For each function
a histogram of its idle times, from the end of a request to the next one: bins of 1 minute,
240 of them, longer ones out of bounds.

- The head is the bin of the 5th percentile, rounded down, less 10 %; the tail that of the 99th,
  rounded up, more 10 %. A pod leaves when its function falls idle, is back when the head has
  passed (prewarming), and leaves again when the tail has. A head of no whole bin: it stays.
- A histogram whose bin counts have a coefficient of variation below 2 says nothing: the pod stays
  for the histogram's range (standard keep-alive). So it does where there is none yet.
- Half or more idle times out of bounds: the histogram is not asked.

Differs: no ARIMA for functions out of bounds, which get the standard keep-alive, as the source has
it for all that is not representative;
idle times are of functions, not of applications; an idle time begins when a gateway has given the
last pod back, and arrivals that find a leased pod count into the first bin; a prewarm is done by
the control loop, at most 32 a period, up to a period early, on the node from which the function
starts soonest, and only where all of them fit without an eviction, else a period later; pods
evicted for room are not brought back before the next request; what leaves is suspended to host
memory unless `then` says otherwise (`absent` is the published rule).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator

from inferx.core.events import LeaseAsked, LoadReported
from inferx.policy import (
    FOREVER_NS,
    I64,
    NS_PER_S,
    Bool,
    ClusterView,
    FunctionId,
    PolicyBundle,
    Promote,
    Retain,
    Tier,
    plain,
)
from inferx.policy.parts.bringing import bring_up
from inferx.policy.parts.sinks import sink_tier

__all__ = ["HybridHistogram", "bundle"]

HEAD, TAIL = 0.05, 0.99
MARGIN = 0.1
LEAST_VARIATION = 2.0
OUT_OF_BOUNDS = 0.5
PERIOD_NS = 30 * NS_PER_S
MOVES = 32
"""Pods brought back a period, at most."""


@dataclass(slots=True)
class HybridHistogram:
    """Learns idle times; keep-alive, prewarming and observer."""

    then: Tier
    bins: int
    bin_ns: int
    _counts: I64 = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    """Idle times by bin, the last column out of bounds. Shape (functions, bins + 1)."""
    _idle_ns: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    """Since when each function is idle; -1 while it is asked for."""
    _head_ns: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    _tail_ns: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    """When a pod is to be back and to leave again, after its function has fallen idle."""
    _back: Bool = field(default_factory=lambda: np.zeros(0, np.bool_))
    """Whether the function's pods were brought back since it was last asked for."""
    _counted: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    """Arrivals whose idle time was taken before the report that brings them."""

    # -- learning ---
    def observe(self, now_ns: int, event: object) -> None:
        """Learn idle times: from asks, which end one, and from reports of what needed no ask."""
        if isinstance(event, LeaseAsked) and event.slots:
            self._grow(event.function + 1)
            self._asked(event.function, now_ns)
        elif isinstance(event, LoadReported) and event.functions:
            self._grow(max(event.functions) + 1)
            for f, arrivals in zip(event.functions, event.arrivals, strict=True):
                seen = min(arrivals, int(self._counted[f]))
                self._counted[f] -= seen
                self._counts[f, 0] += arrivals - seen

    def _asked(self, f: int, now_ns: int) -> None:
        since = int(self._idle_ns[f])
        self._back[f] = False
        if since >= 0:
            self._idle_ns[f] = -1
            self._counts[f, min((now_ns - since) // self.bin_ns, self.bins)] += 1
            self._counted[f] += 1
        elif not self._counts[f].any() and not self._counted[f]:
            self._counted[f] = 1  # The first arrival of all ends no idle time.

    def windows_ns(self, f: int) -> tuple[int, int]:
        """Return when a pod of a function is to be back, and to leave, after it fell idle."""
        counts, outside = self._counts[f, : self.bins], int(self._counts[f, self.bins])
        inside = int(counts.sum())
        standard = (0, self.bins * self.bin_ns)
        if not inside or outside >= OUT_OF_BOUNDS * (inside + outside):
            return standard
        if float(counts.std()) < LEAST_VARIATION * inside / self.bins:
            return standard
        below = np.cumsum(counts)
        head = int(np.searchsorted(below, HEAD * inside))
        tail = int(np.searchsorted(below, TAIL * inside)) + 1
        return int(head * self.bin_ns * (1 - MARGIN)), int(tail * self.bin_ns * (1 + MARGIN))

    # -- the slots ---
    def retain(self, function: FunctionId, at: Tier, view: ClusterView) -> Retain:
        """Return how long a pod stays: not until its head if it served, until its tail if back."""
        if at is not Tier.HBM:
            return Retain(FOREVER_NS, Tier.ABSENT)
        self._grow(len(view.functions.specs))
        pods = view.pods
        if bool((pods.leased_slots[pods.function == function] > 0).any()):
            # Another pod serves: the function is not idle yet.
            return Retain(self.windows_ns(function)[1], self.then)
        if self._back[function]:
            since = int(self._idle_ns[function])
            return Retain(max(0, since + int(self._tail_ns[function]) - view.now_ns), self.then)
        self._idle_ns[function] = view.now_ns
        head, tail = self.windows_ns(function)
        self._head_ns[function], self._tail_ns[function] = head, tail
        return Retain(0 if head else tail, self.then)

    def promote(self, view: ClusterView, rng: Generator) -> Sequence[Promote]:
        """Return a promotion for each function whose head has passed, or will before the next."""
        functions, now = view.functions, view.now_ns
        self._grow(len(functions.specs))
        idle = now - self._idle_ns
        due: Bool = (self._idle_ns >= 0) & (self._head_ns > 0) & ~self._back
        due &= (idle + PERIOD_NS > self._head_ns) & (idle < self._tail_ns)
        due &= functions.ready + functions.starting == 0
        moves = bring_up(np.flatnonzero(due).tolist(), view, moves=MOVES)
        for move in moves:
            self._back[move.function] = True
        return moves

    def _grow(self, functions: int) -> None:
        more = functions - len(self._back)
        if more > 0:
            wide = self._counts.reshape(-1, self.bins + 1)
            self._counts = np.vstack((wide, np.zeros((more, self.bins + 1), np.int64)))
            self._idle_ns = np.append(self._idle_ns, np.full(more, -1))
            self._head_ns = np.append(self._head_ns, np.zeros(more, np.int64))
            self._tail_ns = np.append(self._tail_ns, np.zeros(more, np.int64))
            self._counted = np.append(self._counted, np.zeros(more, np.int64))
            self._back = np.append(self._back, np.zeros(more, np.bool_))


def bundle(bins: int = 240, bin_s: float = 60.0, then: str = "dram") -> PolicyBundle:
    """Return the bundle.

    Args:
        bins: How many bins the histogram has; its range is the standard keep-alive.
        bin_s: How long one is, in seconds.
        then: Where a pod that leaves goes: `dram`, `nvme` or `absent`.

    Raises:
        ValueError: A setting is out of its range.
    """
    if not 2 <= bins <= 10_000:
        raise ValueError(f"bins is {bins}; expected 2 to 10000")
    if not 0.001 <= bin_s <= 86_400:
        raise ValueError(f"bin_s is {bin_s:g}; expected seconds, 0.001 to a day")
    learner = HybridHistogram(sink_tier(then), bins, round(bin_s * NS_PER_S))
    return replace(
        plain.bundle(),
        name="hybrid-histogram",
        keep_alive=learner,
        prewarm=learner,
        observers=(learner,),
        control_period_ns=PERIOD_NS,
        # A function may be awaited for a whole range after the last event, and its margin.
        settle_ns=round(bins * bin_s * (1 + MARGIN)) * NS_PER_S + PERIOD_NS,
    )
