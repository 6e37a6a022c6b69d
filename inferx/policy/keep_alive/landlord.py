"""Landlord: residents pay rent for their room; who cannot pay any more leaves.

Source: Young, "On-Line File Caching", Algorithmica 33(3), 2002, pp. 371-383 (Landlord; p. 371: its
cost is at most k / (k - h + 1) times that of the best cache of size h <= k). FaasCache, ASPLOS'21,
p. 391, section 4.2, uses it for keep-alive: `LND` of aFuerst/faascache-sim at e1f3b84,
`code/split/LambdaScheduler.py` (`Landlord_Charge_Rent`). What is brought in gets credit
equal to its cost. When room is needed, each resident is charged rent in proportion to its size,
just so much that the first has no credit left; those without credit leave until there is room. A
use restores the credit. Without frequencies, Greedy-Dual is the same rule, written with a clock
(Cao and Irani, "Cost-Aware WWW Proxy Caching Algorithms", USITS'97, pp. 193-206).

Differs: of the choices that the source leaves open, a use restores the credit in full, and among
those without credit the one idle longest leaves; the cost is the expected start from where the
state lies after the pod has left, in seconds, the size is GPU memory in GiB; pods of one function
share one account; a use is set when a gateway gives the pod back; rent falls due when a victim has
really left; where the poorest does not make room, the rent is that of the one who does, and who
has less credit than it is left with none; for several victims nodes are compared by the sum of
their places in the order; what leaves is suspended to host memory unless `then` says otherwise
(`absent` is the published rule).
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
from inferx.policy.parts.departures import FOR_EVER, Departures, back_s_per_gib, in_turn
from inferx.policy.parts.sinks import sink_tier

__all__ = ["Landlord", "bundle"]


@dataclass(slots=True)
class Landlord:
    """Keeps pods until room is needed, then charges rent; keep-alive and eviction."""

    then: Tier
    _credit: F64 = field(default_factory=lambda: np.zeros(0))
    """Credit per GiB of each function, in seconds: rent is then the same sum for all."""
    _departures: Departures = field(default_factory=Departures)

    def retain(self, function: FunctionId, at: Tier, view: ClusterView) -> Retain:
        """Restore the credit of what was just used; hold it for ever."""
        if at is Tier.HBM:
            self._settle(view)
            self._credit[function] = back_s_per_gib(function, self.then, view)
        return FOR_EVER

    def cost(self, view: ClusterView) -> F64:
        """Return each pod's place in the order of leaving. Shape (rows of view.pods,)."""
        return in_turn(self._of_pods(view), view)

    def evict(self, want: Want, view: ClusterView, rng: Generator) -> Evict | Defer:
        """Return the plan that takes the least rent, and remember it."""
        self._settle(view)
        plan = RankedEviction(self, self.then).evict(want, view, rng)
        if isinstance(plan, Evict):
            self._departures.propose(plan, self._of_pods(view), view)
        return plan

    def _of_pods(self, view: ClusterView) -> F64:
        self._grow(view)
        credit: F64 = self._credit[np.maximum(view.pods.function, 0)]
        return credit

    def _settle(self, view: ClusterView) -> None:
        """Charge the rent of those who have left since they were proposed."""
        self._grow(view)
        rent = max((one.price for one in self._departures.left(view)), default=0.0)
        if rent:
            self._credit = np.maximum(self._credit - rent, 0.0)

    def _grow(self, view: ClusterView) -> None:
        more = len(view.functions.specs) - len(self._credit)
        if more > 0:
            self._credit = np.append(self._credit, np.zeros(more))


def bundle(then: str = "dram") -> PolicyBundle:
    """Return the bundle; `then` is where a pod that leaves goes: `dram`, `nvme` or `absent`.

    Raises:
        ValueError: `then` is none of them.
    """
    tier = sink_tier(then)
    cache = Landlord(tier)
    return replace(plain.bundle(), name="landlord", keep_alive=cache, eviction=cache)
