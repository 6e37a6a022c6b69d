"""A gateway's line to whichever scheduler leads: demand up, leases down.

Laws:
1. A scheduler is told first what is held here; until then nothing else is said to it.
2. One of an older epoch than one that was followed is not followed again (INV-8).
3. Where no scheduler has heard of this gateway for `FENCE_S`, it may be given up: the router is
   told, and sends nothing more to the pods that it had leased. The scheduler waits longer.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc

from inferx.core.commands import AskLease, ReportLeases, ReportLoad, ReturnLease
from inferx.core.events import LeaderChanged, LeaderLost, RouterEvent
from inferx.core.types import PodId
from inferx.core.units import NS_PER_S
from inferx.exec.clock import Clock
from inferx.exec.logs import ids
from inferx.exec.wire import wire_pb2 as pb
from inferx.exec.wire.calls import again_and_again, called
from inferx.exec.wire.codec import FROM_ROUTER, TO_ROUTER, Codec, WireError
from inferx.exec.wire.line import Line, LineError
from inferx.exec.wire.names import Peer
from inferx.exec.wire.rpc import JOIN

__all__ = ["FENCE_S", "SchedulerLine"]

FENCE_S: Final = 6.0
"""The scheduler's patience is longer, and begins later: clocks may differ in speed."""
LOOK_S: Final = 0.5
_PEER: Final = Peer(0)

_log = logging.getLogger(__name__)


class SchedulerLine:
    """Keeps one line to the leader.

    Args:
        name: What this gateway is registered as.
        leader: Gives the leader's address, waiting until there is one.
        codec: This process's.
        clock: The time.
        post: Takes what the scheduler tells.
        locate: Takes where a pod serves, before it is leased.
        credentials: Of the channel; None is in the clear.
    """

    def __init__(
        self,
        name: str,
        leader: Callable[[], Awaitable[str]],
        *,
        codec: Codec,
        clock: Clock,
        post: Callable[[RouterEvent], None],
        locate: Callable[[PodId, str], None],
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._name = name
        self._leader = leader
        self._codec = codec
        self._clock = clock
        self._post = post
        self._locate = locate
        self._credentials = credentials
        self._line: Line | None = None
        self._told = False
        """Whether the scheduler at the other end knows what is held here."""
        self._at = ""
        self._epoch = 0
        self._reached_ns = 0
        self._fenced = True

    @property
    def stands(self) -> bool:
        """Whether a scheduler is connected."""
        return self._line is not None and self._told

    def leader_changed(self, address: str) -> None:
        """Hang up on a scheduler that leads no more."""
        if self._line is not None and self._at != address:
            self._line.hang_up(f"{address} leads now")

    def send(
        self,
        command: AskLease | ReturnLease | ReportLoad | ReportLeases,
        traceparent: str = "",
    ) -> None:
        """Send a command, of a trace; without a line it is lost, and told again to the next one."""
        line = self._line
        if line is None:
            return
        if isinstance(command, ReportLeases):
            self._told = True
        if self._told:
            message = self._codec.encode(FROM_ROUTER, command, _PEER)
            if traceparent:
                message.traceparent = traceparent
            line.say(message)

    async def run(self) -> None:
        """Follow whoever leads, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(again_and_again("scheduler", self._once), name="scheduler line")
            tasks.create_task(self._fence(), name="fence")

    async def _once(self) -> None:
        address = self._at = await self._leader()
        async with called(address, JOIN, self._credentials) as call:
            await call.write(pb.FromRouter(hello=pb.Hello(gateway=self._name)))
            welcome = await call.read()
            if not hasattr(welcome, "welcome"):
                raise LineError(f"{address}: no welcome")
            epoch = welcome.welcome.epoch
            if epoch < self._epoch:
                raise LineError(f"{address}: epoch {epoch} is over; {self._epoch} was followed")
            self._epoch = epoch
            line = Line(call, pb.FromRouter, self._clock)
            self._line, self._told = line, False
            self._post(LeaderChanged(epoch))
            try:
                await line.run(self._hear)
            finally:
                self._line = None
                self._reached_ns = max(self._reached_ns, line.reached_ns)

    def _hear(self, message: Any) -> None:
        if message.WhichOneof("message") == "located":
            self._locate(PodId(message.located.pod), message.located.address)
            return
        try:
            event: Any = self._codec.heard(TO_ROUTER, message, _PEER)
        except WireError as error:
            _log.info("scheduler: %s", error, extra=ids(epoch=self._epoch))
            return
        self._post(event)

    async def _fence(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            if self._line is not None:
                self._reached_ns = max(self._reached_ns, self._line.reached_ns)
            silent_s = (self._clock.now_ns() - self._reached_ns) / NS_PER_S
            if silent_s <= FENCE_S:
                self._fenced = False
            elif not self._fenced:
                self._fenced = True
                _log.warning(
                    "no scheduler has heard of this gateway for %.1f s",
                    silent_s,
                    extra=ids(epoch=self._epoch),
                )
                self._post(LeaderLost())
