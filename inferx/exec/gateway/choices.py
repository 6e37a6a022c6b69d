"""What a request's pod was chosen among: noted beside the routing policy, which decides as ever."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from numpy.random import Generator

from inferx.core.events import RequestArrived
from inferx.core.protocols import LeasedPod, PolicyBundle, RouterView, RoutingPolicy
from inferx.core.types import PodId, RequestId

__all__ = ["Candidate", "Choices"]

LIMIT: Final = 4_096
"""Choices that nobody has asked for: of requests whose clients left in the same moment."""


class Candidate(NamedTuple):
    """A pod with a free slot, among which a request's was chosen."""

    pod: PodId
    free_slots: int
    inflight: int


class Choices:
    """The latest choices of one router."""

    def __init__(self) -> None:
        self._among: dict[RequestId, tuple[Candidate, ...]] = {}

    def watched(self, bundle: PolicyBundle) -> PolicyBundle:
        """Return a bundle that decides as another does, and whose choices are noted."""
        return replace(bundle, routing=_Watched(bundle.routing, self))

    def note(self, request: RequestId, among: Sequence[LeasedPod]) -> None:
        """Take in what a request's pod is chosen among."""
        while len(self._among) >= LIMIT:
            del self._among[next(iter(self._among))]
        self._among[request] = tuple(
            Candidate(pod.id, pod.free_slots, pod.inflight) for pod in among
        )

    def take(self, request: RequestId) -> tuple[Candidate, ...]:
        """Return what it was, once; empty where there was no choice."""
        return self._among.pop(request, ())


class _Watched:
    """A routing policy, with somebody who looks on."""

    def __init__(self, policy: RoutingPolicy, choices: Choices) -> None:
        self._policy = policy
        self._choices = choices

    def route(
        self,
        request: RequestArrived,
        candidates: Sequence[LeasedPod],
        view: RouterView,
        rng: Generator,
    ) -> int:
        """Return what the policy does."""
        self._choices.note(request.request, candidates)
        return self._policy.route(request, candidates, view, rng)
