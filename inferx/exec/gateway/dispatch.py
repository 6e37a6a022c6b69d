"""The seam to the router: a request waits for its turn here, and says how it ended.

Laws:
1. Every request that arrived at the router ends there: refused, cancelled, finished or failed.
2. A slot that is given to a request whose client has just left is given back at once.
3. A request has a number of its own each time it asks; numbers are never used again.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, Protocol

from inferx.core.commands import Dispatch, Refuse, RouterCommand
from inferx.core.errors import LocalProtocolError
from inferx.core.events import (
    LeaseGranted,
    RequestArrived,
    RequestCancelled,
    RequestFailed,
    RequestFinished,
    RouterEvent,
)
from inferx.core.types import FunctionId, PodId, RequestId
from inferx.core.units import NS_PER_S
from inferx.exec.clock import Clock
from inferx.exec.driver import InboxFullError
from inferx.exec.gateway.choices import Candidate
from inferx.exec.gateway.refusals import Refused

__all__ = ["Call", "Dispatcher", "FunctionName", "Route", "RouterDispatch", "Target", "Turn"]


class FunctionName(NamedTuple):
    """What callers call a function."""

    tenant: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return "/".join(self)


class Target(NamedTuple):
    """A function as the router knows it, and how long its requests may wait."""

    function: FunctionId
    queue_timeout_ns: int


class Call(NamedTuple):
    """A request that wants a slot. `timeout_s` ends its wait, where the caller brought one."""

    function: FunctionName
    timeout_s: float | None = None


class Route:
    """A slot of a pod, while its context lasts.

    Left without `finished`, the request counts as failed.
    """

    __slots__ = ("address", "candidates", "cold", "output_tokens", "pod", "whole")

    def __init__(
        self,
        pod: PodId,
        address: str,
        candidates: tuple[Candidate, ...] = (),
        *,
        cold: bool = False,
    ) -> None:
        self.pod = pod
        self.address = address
        self.candidates = candidates
        self.cold = cold
        """Whether the request waited for the pod to start."""
        self.whole = False
        self.output_tokens = 0

    def finished(self, output_tokens: int) -> None:
        """The pod answered in full; 0 tokens where nobody counted."""
        self.whole = True
        self.output_tokens = output_tokens


class Turn(Protocol):
    """A context: entered with a slot, left with its end."""

    def __aenter__(self) -> Coroutine[Any, Any, Route]: ...

    def __aexit__(self, *raised: object) -> Coroutine[Any, Any, None]: ...


class Dispatcher(Protocol):
    """Gives requests their turn."""

    def acquire(self, call: Call) -> Turn:
        """Wait for a slot, and hold it; whoever is cancelled while waiting wants it no more.

        Raises:
            Refused: There will be none.
        """
        ...


class RouterDispatch:
    """Gives turns as a router machine decides.

    Args:
        post: Tells the router's driver.
        clock: The driver's.
        function: Finds a function by its name; None where there is none.
        address: Finds where a pod serves, as host:port; None where nobody knows.
        among: Gives what a request's pod was chosen among.
        first: The first number of a request.
    """

    def __init__(
        self,
        post: Callable[[RouterEvent], None],
        clock: Clock,
        *,
        function: Callable[[FunctionName], Target | None],
        address: Callable[[PodId], str | None],
        among: Callable[[RequestId], tuple[Candidate, ...]] = lambda _: (),
        first: int = 1,
    ) -> None:
        self._post = post
        self._clock = clock
        self._function = function
        self._address = address
        self._among = among
        self._next = first
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[RequestId, asyncio.Future[PodId]] = {}
        self._started: dict[PodId, RequestId] = {}
        """Pods that were started for those who waited: the first request that came later."""
        self.running = 0

    @property
    def waiting(self) -> int:
        """Requests that the router has not answered yet."""
        return len(self._waiting)

    def granted(self, lease: LeaseGranted) -> None:
        """Take note of a lease, before the router: who waits now may wait for its pod to start."""
        if lease.cold:
            self._started[lease.pod] = RequestId(self._next)

    def forget(self, pod: PodId) -> None:
        """Take note that a pod is leased no more."""
        self._started.pop(pod, None)

    def take(self, command: RouterCommand) -> bool:
        """Take what the router says of requests; False where it says something else."""
        match command:
            case Dispatch():
                turn = self._waiting.pop(command.request, None)
                if turn is None or turn.done():
                    self._post(RequestFailed(command.request, command.pod))
                else:
                    turn.set_result(command.pod)
            case Refuse():
                turn = self._waiting.pop(command.request, None)
                if turn is not None and not turn.done():
                    turn.set_exception(Refused(command.reason))
            case _:
                return False
        return True

    def acquire(self, call: Call) -> Turn:
        """See `Dispatcher`."""
        target = self._function(call.function)
        if target is None:
            raise Refused("not found", f"no function {call.function}")
        request = RequestId(self._next)
        self._next += 1
        return _Held(self, request, target, call.timeout_s)

    async def begin(self, held: "_Held") -> Route:
        """Wait for a request's turn."""
        request, target, timeout_s = held.request, held.target, held.timeout_s
        function, deadline_ns = target.function, 0
        if timeout_s is not None:
            # The caller may want to wait for less than the function lets it, never for more.
            wait_ns = min(int(timeout_s * NS_PER_S), target.queue_timeout_ns)
            deadline_ns = self._clock.now_ns() + wait_ns
        loop = self._loop or self._running_loop()
        turn: asyncio.Future[PodId] = loop.create_future()
        if request in self._waiting:
            raise LocalProtocolError(f"request {request} waits already")
        try:
            self._post(RequestArrived(request, function, deadline_ns=deadline_ns))
        except InboxFullError as error:
            raise Refused("queue full", "the gateway is overloaded") from error
        self._waiting[request] = turn
        try:
            pod = await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                # The slot came in the same turn of the loop as the client left.
                self._post(RequestFailed(request, turn.result()))
            elif self._waiting.pop(request, None) is not None:
                self._post(RequestCancelled(request, function))
            raise
        where = self._address(pod)
        if where is None:
            self._post(RequestFailed(request, pod))
            raise Refused("pod failed", f"pod {pod} has no address")
        self.running += 1
        cold = request < self._started.get(pod, 0)
        held.route = route = Route(pod, where, self._among(request), cold=cold)
        return route

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop; asked for once, for it asks the kernel for the process each time."""
        self._loop = asyncio.get_running_loop()
        return self._loop

    def end(self, request: RequestId, route: Route) -> None:
        """Give a slot back."""
        self.running -= 1
        if route.whole:
            self._post(RequestFinished(request, route.pod, route.output_tokens))
        else:
            self._post(RequestFailed(request, route.pod))


class _Held:
    """A request's turn, as a context; a class, for a generator costs each request microseconds."""

    __slots__ = ("_dispatch", "request", "route", "target", "timeout_s")
    route: Route

    def __init__(
        self,
        dispatch: RouterDispatch,
        request: RequestId,
        target: Target,
        timeout_s: float | None,
    ) -> None:
        self._dispatch = dispatch
        self.request = request
        self.target = target
        self.timeout_s = timeout_s

    def __aenter__(self) -> Coroutine[Any, Any, Route]:
        return self._dispatch.begin(self)

    async def __aexit__(self, *raised: object) -> None:
        self._dispatch.end(self.request, self.route)
