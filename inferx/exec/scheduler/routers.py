"""Lines from gateways: what they lack and hold comes in, leases go out.

A gateway is known by the name that it is registered under; its number is this leader's own. One
without a line for `LOST_S` is given up. Its own end gives up earlier, by itself: see the gateway.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import grpc

from inferx.core.commands import GrantLease, RecallLease, RefuseLease, RevokeLease
from inferx.core.events import LeaseAsked, RouterLost, SchedulerEvent
from inferx.core.types import FunctionId, PodId, RouterId
from inferx.exec.clock import Clock
from inferx.exec.logs import ids
from inferx.exec.wire import wire_pb2 as pb
from inferx.exec.wire.codec import FROM_ROUTER, TO_ROUTER, Codec, WireError
from inferx.exec.wire.line import LOST_S, Line, LineError
from inferx.exec.wire.names import Peer

__all__ = ["RouterLines"]

_log = logging.getLogger(__name__)


class RouterLines:
    """The scheduler's end of all gateways' lines.

    Args:
        epoch: The leader's.
        codec: This process's.
        clock: The time.
        post: Takes what gateways tell.
        address_of: Gives where a pod serves.
        traced: Takes an ask that belongs to a trace.
        awaited: Gateways that an older leader knew, numbered.
    """

    def __init__(
        self,
        *,
        epoch: int,
        codec: Codec,
        clock: Clock,
        post: Callable[[SchedulerEvent], None],
        address_of: Callable[[PodId], str],
        awaited: Mapping[str, RouterId],
        traced: Callable[[RouterId, FunctionId, str], None] | None = None,
    ) -> None:
        self._epoch = epoch
        self._codec = codec
        self._clock = clock
        self._post = post
        self._address_of = address_of
        self._traced = traced
        self._numbers = dict(awaited)
        self._lines: dict[RouterId, Line] = {}
        self._tasks: dict[RouterId, asyncio.Task[None]] = {}
        self._lost: dict[RouterId, asyncio.TimerHandle] = {}
        self._closed = False

    def connected(self) -> list[str]:
        """Return the names of the gateways that have a line."""
        return [name for name, router in self._numbers.items() if router in self._lines]

    def send(self, command: GrantLease | RevokeLease | RecallLease | RefuseLease) -> None:
        """Send a command; without a line it is lost, and mended when the gateway joins again."""
        line = self._lines.get(command.router)
        if line is None:
            return
        if isinstance(command, GrantLease):
            where = pb.Located(pod=command.pod, address=self._address_of(command.pod))
            line.say(pb.ToRouter(located=where))
        line.say(self._codec.encode(TO_ROUTER, command, Peer(command.router)))

    async def join(self, _: Any, context: Any) -> None:
        """Serve one gateway's stream."""
        hello = await context.read()
        if not hasattr(hello, "WhichOneof") or hello.WhichOneof("message") != "hello":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "expected a hello first")
        name = hello.hello.gateway
        router = self._numbers.setdefault(name, RouterId(len(self._numbers)))
        await context.write(pb.ToRouter(welcome=pb.Welcome(epoch=self._epoch)))
        while (older := self._tasks.get(router)) is not None:
            older.cancel()
            await asyncio.gather(older, return_exceptions=True)
            # While it ended, another line of this gateway may have begun.
            if self._tasks.get(router) is older:
                del self._tasks[router]
        pending = self._lost.pop(router, None)
        if pending is not None:
            pending.cancel()
        line = Line(context, pb.ToRouter, self._clock)
        peer = Peer(router)
        self._lines[router] = line
        task = asyncio.ensure_future(line.run(lambda message: self._hear(name, peer, message)))
        self._tasks[router] = task
        try:
            await asyncio.shield(task)
        except (LineError, asyncio.CancelledError) as error:
            _log.info(
                "gateway %s: %s",
                name,
                error or "its line was ended",
                extra=ids(gateway=name, epoch=self._epoch),
            )
        finally:
            task.cancel()
            if self._lines.get(router) is line:
                del self._lines[router]
                self._tasks.pop(router, None)
                if not self._closed:
                    self._lost[router] = asyncio.get_running_loop().call_later(
                        LOST_S, self._give_up, name, router
                    )

    def close(self) -> None:
        """Hang up everywhere, and forget who was about to be given up."""
        self._closed = True
        for task in self._tasks.values():
            task.cancel()
        for timer in self._lost.values():
            timer.cancel()

    def _give_up(self, name: str, router: RouterId) -> None:
        _log.warning(
            "gateway %s: no line for %.0f s; given up",
            name,
            LOST_S,
            extra=ids(gateway=name, epoch=self._epoch),
        )
        self._lost.pop(router, None)
        self._post(RouterLost(router))

    def _hear(self, name: str, peer: Peer, message: Any) -> None:
        try:
            event: Any = self._codec.heard(FROM_ROUTER, message, peer)
        except WireError as error:
            _log.info("gateway %s: %s", name, error, extra=ids(gateway=name, epoch=self._epoch))
            return
        if self._traced is not None and message.traceparent and isinstance(event, LeaseAsked):
            self._traced(event.router, event.function, message.traceparent)
        self._post(event)
