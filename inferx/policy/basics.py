"""The plain filling of each slot: what a bundle uses where it has nothing to say. Ours."""

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import Generator

from inferx.policy import (
    FOREVER_NS,
    I32,
    Admit,
    ClusterView,
    Defer,
    Demote,
    FunctionId,
    LeasedPod,
    Promote,
    RequestArrived,
    Retain,
    RouterView,
    Tier,
    Want,
)

__all__ = [
    "AdmitAll",
    "FixedHold",
    "LeastOutstanding",
    "NeverEvict",
    "NoPrewarm",
    "OnDemand",
    "pods_needed",
]

_ADMIT = Admit()
_NEVER = Defer("never evicts")


@dataclass(frozen=True, slots=True)
class AdmitAll:
    """Lets every request in; the function's queue bounds what waits."""

    def admit(self, request: RequestArrived, queued: int, view: RouterView) -> Admit:
        """Admit."""
        return _ADMIT


@dataclass(frozen=True, slots=True)
class LeastOutstanding:
    """Routes to the pod with the fewest requests in service; ties to the one leased first."""

    def route(
        self,
        request: RequestArrived,
        candidates: Sequence[LeasedPod],
        view: RouterView,
        rng: Generator,
    ) -> int:
        """Return the index of the least busy candidate."""
        best, fewest = 0, candidates[0].inflight
        for index, pod in enumerate(candidates):
            if pod.inflight < fewest:
                best, fewest = index, pod.inflight
        return best


@dataclass(frozen=True, slots=True)
class NeverEvict:
    """Leaves pods alone; what does not fit waits."""

    def evict(self, want: Want, view: ClusterView, rng: Generator) -> Defer:
        """Defer."""
        return _NEVER


@dataclass(frozen=True, slots=True)
class FixedHold:
    """Holds an idle pod for a fixed time, then sinks it; a suspended one stays for ever."""

    hold_ns: int
    then: Tier

    def retain(self, function: FunctionId, at: Tier, view: ClusterView) -> Retain:
        """Return the fixed hold."""
        if at is Tier.HBM:
            return Retain(self.hold_ns, self.then)
        return Retain(FOREVER_NS, Tier.ABSENT)


@dataclass(frozen=True, slots=True)
class NoPrewarm:
    """Moves nothing without a request."""

    def promote(self, view: ClusterView, rng: Generator) -> Sequence[Promote | Demote]:
        """Return nothing."""
        return ()


def pods_needed(function: FunctionId, view: ClusterView) -> int:
    """Return how many pods the requests inside need, every slot used; at least one."""
    table = view.functions
    inside = int(table.queued[function]) + int(table.inflight[function])
    return max(1, -(-inside // view.spec(function).slots))


@dataclass(frozen=True, slots=True)
class OnDemand:
    """As many pods as the requests inside need slots; idle ones leave by keep-alive alone."""

    def target(self, function: FunctionId, view: ClusterView) -> int:
        """Return the pods that the requests need now."""
        return pods_needed(function, view)

    def targets(self, view: ClusterView) -> I32 | None:
        """No opinion."""
        return None
