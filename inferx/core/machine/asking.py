"""The scheduler's questions to its policies: what they answer, once it was found possible.

A bad answer is a `PolicyError`: raised in a strict run; in production counted, and the mildest
answer stands in its place.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from numpy.random import Generator

from inferx.core.cluster import Cluster
from inferx.core.errors import PolicyError
from inferx.core.events import SchedulerEvent
from inferx.core.explain import Explanation
from inferx.core.machine.proposals import (
    check_evict,
    check_move,
    check_place,
    check_retain,
    check_targets,
)
from inferx.core.protocols import Defer, Demote, Evict, Place, PolicyBundle, Promote, Retain
from inferx.core.types import I32, FunctionId, Tier, Want
from inferx.core.view import ClusterView
from inferx.core.watched import watched

__all__ = ["Asking"]

_T = TypeVar("_T")
_NO_NODE: Final = Defer("no node")
"""Policies are asked about clusters that have GPUs."""
_NOWHERE: Place | Defer = Defer("policy error")
_NOBODY: Evict | Defer = Defer("policy error")


class Asking:
    """Asks one bundle about one cluster."""

    def __init__(
        self,
        policies: PolicyBundle,
        cluster: Cluster,
        rng: Generator,
        *,
        strict: bool,
        on_error: Callable[[], None],
    ) -> None:
        self.policies = watched(policies)
        self.view = ClusterView(cluster, snapshots=policies.snapshots)
        self._c = cluster
        self._rng = rng
        self._strict = strict
        self._on_error = on_error

    def _ask(self, instead: _T, ask: Callable[..., _T], *arguments: object) -> _T:
        try:
            return ask(*arguments)
        except PolicyError:
            if self._strict:
                raise
        self._on_error()
        return instead

    def observe(self, event: SchedulerEvent) -> None:
        """Let those that learn see an event."""
        for observer in self.policies.observers:
            self._ask(None, observer.observe, self._c.now_ns, event)

    def place(self, want: Want) -> Place | Defer:
        """Return GPUs that have room for the wanted pod, or none."""
        if not self._c.gpu_count:
            return _NO_NODE
        return self._ask(_NOWHERE, self._placed, want)

    def _placed(self, want: Want) -> Place | Defer:
        proposal = self.policies.placement.place(want, self.view, self._rng)
        if isinstance(proposal, Place):
            check_place(want, proposal, self._c)
        return proposal

    def explain(self, want: Want) -> Explanation | None:
        """Return why the GPUs were chosen; None where the policy does not tell."""
        explains: Callable[..., Explanation] | None = getattr(
            self.policies.placement, "explain", None
        )
        return None if explains is None else self._ask(None, explains, want, self.view)

    def evict(self, want: Want) -> Evict | Defer:
        """Return who leaves for the wanted pod, or nobody."""
        if not self._c.gpu_count:
            return _NO_NODE
        return self._ask(_NOBODY, self._evicted, want)

    def _evicted(self, want: Want) -> Evict | Defer:
        proposal = self.policies.eviction.evict(want, self.view, self._rng)
        if isinstance(proposal, Evict):
            check_evict(want, proposal, self._c)
        return proposal

    def retain(self, function: FunctionId, at: Tier) -> Retain | None:
        """Return how long a pod stays; None, where the policy fails, is for ever."""
        return self._ask(None, self._retained, function, at)

    def _retained(self, function: FunctionId, at: Tier) -> Retain:
        proposal = self.policies.keep_alive.retain(function, at, self.view)
        check_retain(proposal, at)
        return proposal

    def target(self, function: FunctionId) -> int:
        """Return how many pods a function should have whose requests lack slots."""
        return self._ask(0, self.policies.scaling.target, function, self.view)

    def targets(self) -> I32 | None:
        """Return how many pods each function should have. Shape (functions,); None: no opinion."""
        return self._ask(None, self._targets)

    def _targets(self) -> I32 | None:
        proposal = self.policies.scaling.targets(self.view)
        check_targets(proposal, self._c)
        return proposal

    def next_want(self, wants: Sequence[Want]) -> int:
        """Return the index of the want to place next: the longest wait, unless a policy says."""
        queueing = self.policies.queueing
        if queueing is None or len(wants) == 1:
            return 0
        return self._ask(0, queueing.next_want, wants, self.view)

    def moves(self) -> Iterator[Promote | Demote]:
        """Yield what to move up and down the tiers, each checked when its turn comes."""
        nothing: Sequence[Promote | Demote] = ()
        for move in self._ask(nothing, self.policies.prewarm.promote, self.view, self._rng):
            possible = self._ask(None, self._possible, move)
            if possible is not None:
                yield possible

    def _possible(self, move: Promote | Demote) -> Promote | Demote:
        check_move(move, self._c)
        return move
