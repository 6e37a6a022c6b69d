"""The router's questions to a bundle's queue policy: which of those who wait takes a slot.

A policy may keep accounts, so it hears of every request when it was let in, starts and ends. A bad
answer is a `PolicyError`: raised in a strict run; in production counted, and the oldest takes it.
"""

from collections import deque
from collections.abc import Callable
from typing import TypeVar

from inferx.core.errors import LocalProtocolError, PolicyError
from inferx.core.events import RequestArrived, RequestFailed, RequestFinished
from inferx.core.protocols import RouterView, Waiting
from inferx.core.types import RequestId
from inferx.core.watched import WatchedQueueing

__all__ = ["Turns"]

_T = TypeVar("_T")


class Turns:
    """Asks one queue policy for one router."""

    def __init__(
        self,
        policy: WatchedQueueing,
        view: RouterView,
        *,
        strict: bool,
        on_error: Callable[[], None],
    ) -> None:
        self._policy = policy
        self._view = view
        self._strict = strict
        self._on_error = on_error
        self._inside: dict[RequestId, RequestArrived] = {}
        """Requests in service, as they came."""

    def _ask(self, instead: _T, ask: Callable[..., _T], *arguments: object) -> _T:
        try:
            return ask(*arguments, self._view)
        except PolicyError:
            if self._strict:
                raise
        self._on_error()
        return instead

    def arrived(self, request: RequestArrived, queue: deque[Waiting]) -> None:
        """Tell of a request that was let in and is not in the queue yet."""
        self._ask(None, self._policy.arrived, request, tuple(queue))

    def take(self, queue: deque[Waiting]) -> RequestArrived:
        """Take the request whose turn it is out of the queue: it starts now."""
        at = 0
        if len(queue) > 1:
            at = self._ask(0, self._policy.next_request, tuple(queue))
        request = queue[at].request
        del queue[at]
        self.started(request)
        return request

    def started(self, request: RequestArrived) -> None:
        """Tell that a request was given a slot."""
        self._inside[request.request] = request
        self._ask(None, self._policy.started, request)

    def ended(self, event: RequestFinished | RequestFailed) -> None:
        """Tell that a request left its slot."""
        request = self._inside.pop(event.request, None)
        if request is None:
            raise LocalProtocolError(f"request {event.request}: it ended, and was not in service")
        tokens = event.output_tokens if isinstance(event, RequestFinished) else 0
        self._ask(None, self._policy.ended, request, tokens)
