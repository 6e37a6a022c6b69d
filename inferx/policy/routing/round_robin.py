"""Round robin: the pods of a function take turns.

Source: Ephremides, Varaiya, Walrand, "A simple dynamic routing problem", IEEE Transactions on
Automatic Control 25(4), 1980, pp. 690-693: where queues cannot be seen and servers are alike,
sending customers to each in turn minimises the expected time in system. No constants.

The next pod is the one with the least id above that of the pod chosen last; after the greatest id
the least comes again.

Differs: a pod without a free slot loses its turn, where the original queues at the server; one
order a function, shared by the routers of a process.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from numpy.random import Generator

from inferx.policy import (
    FunctionId,
    LeasedPod,
    PodId,
    PolicyBundle,
    RequestArrived,
    RouterView,
    plain,
)

__all__ = ["RoundRobin", "bundle"]


@dataclass(slots=True)
class RoundRobin:
    """Routes to each pod in turn, in the order of their ids."""

    _last: dict[FunctionId, PodId] = field(default_factory=dict[FunctionId, PodId])

    def route(
        self,
        request: RequestArrived,
        candidates: Sequence[LeasedPod],
        view: RouterView,
        rng: Generator,
    ) -> int:
        """Return the index of the next pod. Cost: O(candidates)."""
        last = self._last.get(request.function, -1)
        after, first = -1, 0
        for index, pod in enumerate(candidates):
            if pod.id < candidates[first].id:
                first = index
            if pod.id > last and (after < 0 or pod.id < candidates[after].id):
                after = index
        chosen = after if after >= 0 else first
        self._last[request.function] = candidates[chosen].id
        return chosen


def bundle() -> PolicyBundle:
    """Return the bundle."""
    return replace(plain.bundle(), name="round-robin", routing=RoundRobin())
