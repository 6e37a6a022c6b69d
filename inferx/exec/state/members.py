"""Calls to a service that runs more than once: one member at a time, the next when it fails.

A call whose repetition is harmless is repeated at the next member. Another is not, unless it is
known that nobody took it up: only who asked for it knows what it means if it is done twice.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn, Protocol, TypeVar

import grpc
import grpc.aio

from inferx.exec.state.rpc import A, Metadata, Method, Q, cancelled_here, open_channel
from inferx.exec.state.store import UnavailableError

__all__ = ["ATTEMPTS", "DEADLINE_S", "Members", "Service"]

DEADLINE_S = 5.0
"""Of a call, all its attempts together."""
ATTEMPT_S = 2.0
"""Of one attempt, where there may be another."""
ATTEMPTS = 8
LEAST_S = 0.2
"""Of an attempt that begins when the time is up: enough to learn why nobody could be reached."""
CONNECT_S = 1.0
"""How long one member is given to let us in."""
BACKOFF_S = 0.05
"""Between attempts, doubled each time, less up to half of it by chance."""

T = TypeVar("T")


class Service(Protocol):
    """What is peculiar to what the members serve."""

    async def metadata(self, channel: Any) -> Metadata:
        """Return what goes with every call."""
        ...

    def left_undone(self, error: grpc.RpcError) -> bool:
        """Whether an error says that nothing was done, and another attempt may go better."""
        ...

    def fail(self, error: grpc.RpcError) -> NoReturn:
        """Raise an error in our words: the one place that knows status codes."""
        ...


class Members:
    """Connections to the members of one service. It belongs to one event loop.

    Attributes:
        name: The service and where it is, for errors.
        closed: Whether it was closed.
    """

    def __init__(
        self,
        name: str,
        endpoints: Sequence[str],
        credentials: grpc.ChannelCredentials | None,
        *,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """Connect when the first call is made.

        Args:
            name: Of the service.
            endpoints: `host:port` of members, at least one.
            credentials: None: in the clear.
            deadline_s: Of a call, all its attempts together.
        """
        self.name = f"{name} at {', '.join(endpoints)}"
        self.closed = False
        self._channels = [open_channel(endpoint, credentials) for endpoint in endpoints]
        self._at = 0
        self._deadline_s = deadline_s

    async def close(self) -> None:
        """Close all connections; calls under way fail."""
        self.closed = True
        for channel in self._channels:
            await channel.close()

    def check_open(self) -> None:
        """Say that the store is closed, if it is."""
        if self.closed:
            raise UnavailableError("the store is closed")

    async def call(
        self,
        service: Service,
        method: Method[Q, A],
        request: Q,
        by: Callable[[Any, Method[Q, A], Q, float, Metadata], Awaitable[T]],
        *,
        repeat: bool = True,
    ) -> T:
        """Call a method and wait for its answer.

        Args:
            service: What the members serve.
            method: One of its methods.
            request: Its message.
            by: How it is called: `ask`, or another of `rpc`.
            repeat: Whether it is harmless to do it twice.
        """
        end = asyncio.get_running_loop().time() + self._deadline_s
        attempt = 0
        while True:
            attempt += 1
            channel = await self.channel(end)
            try:
                metadata = await service.metadata(channel)
                return await by(
                    channel, method, request, self._left_s(end, repeat=repeat), metadata
                )
            except grpc.aio.AioRpcError as error:
                left_s = end - asyncio.get_running_loop().time()
                again = service.left_undone(error) or (repeat and is_passing(error))
                if not again or attempt >= ATTEMPTS or left_s <= 0:
                    service.fail(error)
                self.leave(channel)
                await asyncio.sleep(min(backoff_s(attempt), left_s))
            except asyncio.CancelledError:
                # Closing a channel ends its calls as if they were cancelled.
                if not cancelled_here():
                    self.check_open()
                raise

    async def channel(self, end: float | None = None) -> Any:
        """Return the channel to a member that lets us in: the last that did, or the next.

        Args:
            end: When to give up, in the loop's time; None: after a call's deadline.

        Returns:
            One that is connected; if none could be, one that was tried.
        """
        loop = asyncio.get_running_loop()
        end = end or loop.time() + self._deadline_s
        attempt = 0
        while True:
            self.check_open()
            channel = self._channels[self._at]
            try:
                async with asyncio.timeout_at(min(end, loop.time() + CONNECT_S)):
                    if await connects(channel):
                        return channel
            except TimeoutError:
                pass
            self.leave(channel)
            attempt += 1
            rounds, rest = divmod(attempt, len(self._channels))
            wait_s = 0.0 if rest else backoff_s(min(rounds, 4))
            if loop.time() + wait_s >= end:
                # A call over it fails at once, and says why.
                return channel
            await asyncio.sleep(wait_s)

    def leave(self, channel: Any) -> None:
        """Go on to the next member, unless that was done already."""
        if self._channels[self._at] is channel:
            self._at = (self._at + 1) % len(self._channels)

    def _left_s(self, end: float, *, repeat: bool) -> float:
        left_s = max(LEAST_S, end - asyncio.get_running_loop().time())
        return min(left_s, ATTEMPT_S) if repeat and len(self._channels) > 1 else left_s


def is_passing(error: grpc.RpcError) -> bool:
    """Whether another attempt may go better."""
    status: Any = error
    return status.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


async def connects(channel: Any) -> bool:
    """Whether a channel is connected, or gets so before it fails."""
    ready = grpc.ChannelConnectivity.READY
    tried = False
    while (state := channel.get_state(try_to_connect=True)) != ready:
        if state == grpc.ChannelConnectivity.SHUTDOWN:
            return False
        if tried and state == grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            return False
        tried = True
        await channel.wait_for_state_change(state)
    return True


def backoff_s(attempt: int) -> float:
    """Return how long to wait after an attempt, counted from 1."""
    # Not cryptography: several clients are not to come back at one time.
    share: float = random.uniform(0.5, 1.0)  # noqa: S311
    return BACKOFF_S * float(2 ** (attempt - 1)) * share
