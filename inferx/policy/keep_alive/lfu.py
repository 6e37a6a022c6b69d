"""Least frequently used: pods stay until room is needed, then the one used least often leaves.

Source: the `LFU` rule of Sleator and Tarjan, "Amortized Efficiency of List Update and Paging
Rules", CACM 28(2), 1985, pp. 202-208, section 4, who show that no factor bounds its faults; uses
count from when the function became resident, as the frequency of FaasCache, ASPLOS'21, p. 390,
section 4.1, does.

Differs: uses are counted over all pods of a function and forgotten when the last one leaves;
arrivals are counted when gateways report them, once a second; ties go to the pod idle longest,
which the source leaves open; where GPUs hold several pods, one that makes enough room alone is
preferred (`RankedEviction`), and for several victims nodes are compared by the sum of their places
in the order; what leaves is suspended to host memory unless `then` says otherwise (`absent` is a
cache's).
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
from inferx.policy.parts.departures import FOR_EVER, Departures, Uses, in_turn
from inferx.policy.parts.sinks import sink_tier

__all__ = ["LeastFrequentlyUsed", "bundle"]


@dataclass(slots=True)
class LeastFrequentlyUsed:
    """Keeps pods until room is needed, then evicts by use; keep-alive, eviction and observer."""

    then: Tier
    _uses: Uses = field(default_factory=Uses)
    _departures: Departures = field(default_factory=Departures)

    def observe(self, now_ns: int, event: object) -> None:
        """Count uses."""
        self._uses.observe(event)

    def retain(self, function: FunctionId, at: Tier, view: ClusterView) -> Retain:
        """Hold for ever."""
        self._settle(view)
        return FOR_EVER

    def cost(self, view: ClusterView) -> F64:
        """Return each pod's place in the order of leaving. Shape (rows of view.pods,)."""
        return in_turn(self._of_pods(view), view)

    def evict(self, want: Want, view: ClusterView, rng: Generator) -> Evict | Defer:
        """Return the plan of least use, and remember it."""
        self._settle(view)
        plan = RankedEviction(self, self.then).evict(want, view, rng)
        if isinstance(plan, Evict):
            self._departures.propose(plan, self._of_pods(view), view)
        return plan

    def _of_pods(self, view: ClusterView) -> F64:
        uses: F64 = self._uses.of(len(view.functions.specs))[np.maximum(view.pods.function, 0)]
        return uses

    def _settle(self, view: ClusterView) -> None:
        for one in self._departures.left(view):
            if one.last:
                self._uses.forget(one.function)


def bundle(then: str = "dram") -> PolicyBundle:
    """Return the bundle; `then` is where a pod that leaves goes: `dram`, `nvme` or `absent`.

    Raises:
        ValueError: `then` is none of them.
    """
    tier = sink_tier(then)
    cache = LeastFrequentlyUsed(tier)
    return replace(plain.bundle(), name="lfu", keep_alive=cache, eviction=cache, observers=(cache,))
