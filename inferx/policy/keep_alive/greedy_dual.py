"""Greedy-Dual-Size-Frequency: keep what is used often, dear to start, and small.

Source: Fuerst and Sharma, "FaasCache: Keeping Serverless Computing Alive with Greedy-Dual Caching",
ASPLOS'21, p. 390, equation 1; repository aFuerst/faascache-sim at e1f3b84,
`code/split/LambdaScheduler.py`, `calc_priority` and `Eviction` under `GD`:

    priority = clock + frequency x cost / size

An idle pod stays until its room is needed; then the one of least priority leaves, and the clock
takes that priority (the last victim's, where several leave). The priority is set at each use with
the clock of that moment. The frequency counts the uses over all pods of the function since it was
last without any. The cost is a start's time above a warm one's, the size is memory.

Differs: the cost is the expected start from where the state lies after the pod has left, in
seconds, not a measured cold time less the warm one; the size is GPU memory in GiB; a use is set
when a gateway gives the pod back, and arrivals are counted when gateways report them, once a
second; the frequency of the last use counts at once, where the source recomputes a pod's priority
at its next use; ties go to the pod idle longest, where the source leaves them to its heap; where
GPUs hold several pods, one that makes enough room alone is preferred (`RankedEviction`), and for
several victims nodes are compared by the sum of their places in the order; what leaves is suspended
to host memory unless `then` says otherwise (`absent` is the published rule).
"""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator

from inferx.policy import (
    F64,
    ClusterView,
    Defer,
    Evict,
    FunctionId,
    PolicyBundle,
    Retain,
    Tier,
    Want,
    plain,
)
from inferx.policy.compose import RankedEviction
from inferx.policy.parts.departures import FOR_EVER, Departures, Uses, back_s_per_gib, in_turn
from inferx.policy.parts.sinks import sink_tier

__all__ = ["GreedyDual", "bundle"]


@dataclass(slots=True)
class GreedyDual:
    """Keeps pods until room is needed, then evicts by priority; keep-alive, eviction and observer.

    Attributes:
        then: Where a pod that leaves goes.
        clock: The priority of the pod that left last.
    """

    then: Tier
    clock: float = 0.0
    _used_at: F64 = field(default_factory=lambda: np.zeros(0))
    """The clock at each function's latest use. Shape (functions,)."""
    _worth: F64 = field(default_factory=lambda: np.zeros(0))
    """Cost over size, in seconds per GiB. Shape (functions,)."""
    _uses: Uses = field(default_factory=Uses)
    _departures: Departures = field(default_factory=Departures)

    def observe(self, now_ns: int, event: object) -> None:
        """Count uses."""
        self._uses.observe(event)

    def retain(self, function: FunctionId, at: Tier, view: ClusterView) -> Retain:
        """Set the priority of what was just used; hold it for ever."""
        if at is Tier.HBM:
            self._settle(view)
            self._used_at[function] = self.clock
            self._worth[function] = back_s_per_gib(function, self.then, view)
        return FOR_EVER

    def cost(self, view: ClusterView) -> F64:
        """Return each pod's place in the order of leaving. Shape (rows of view.pods,)."""
        return in_turn(self._priority(view), view)

    def evict(self, want: Want, view: ClusterView, rng: Generator) -> Evict | Defer:
        """Return the plan of least priority, and remember it."""
        self._settle(view)
        plan = RankedEviction(self, self.then).evict(want, view, rng)
        if isinstance(plan, Evict):
            self._departures.propose(plan, self._priority(view), view)
        return plan

    def _priority(self, view: ClusterView) -> F64:
        """Return each pod's priority. Shape (rows of view.pods,)."""
        self._grow(view)
        priority = self._used_at + self._uses.of(len(self._worth)) * self._worth
        of_pods: F64 = priority[np.maximum(view.pods.function, 0)]
        return of_pods

    def _settle(self, view: ClusterView) -> None:
        """Move the clock by what has left since it was proposed."""
        self._grow(view)
        for one in self._departures.left(view):
            self.clock = max(self.clock, one.price)
            if one.last:
                self._uses.forget(one.function)

    def _grow(self, view: ClusterView) -> None:
        more = len(view.functions.specs) - len(self._worth)
        if more > 0:
            self._used_at = np.append(self._used_at, np.zeros(more))
            self._worth = np.append(self._worth, np.zeros(more))


def bundle(then: str = "dram") -> PolicyBundle:
    """Return the bundle; `then` is where a pod that leaves goes: `dram`, `nvme` or `absent`.

    Raises:
        ValueError: `then` is none of them.
    """
    tier = sink_tier(then)
    cache = GreedyDual(tier)
    return replace(
        plain.bundle(),
        name="greedy-dual",
        keep_alive=cache,
        eviction=cache,
        observers=(cache,),
    )
