"""One end of a stream: says what is queued, hears what comes, and knows when it last got through.

Both ends are alike, client and server. Each beats once a second and says which beat of the other it
heard last, so that each knows up to when the other has heard it: silence in one direction is told
from silence in both.

Laws:
1. What is said goes out in the order in which it was said; what is heard is acted on as it comes.
2. A line on which nothing comes for `SILENT_S` is dead, whatever the transport thinks of it.
3. A line that cannot send as fast as it is told is closed, and its ends begin anew with the truth:
   nothing is dropped in silence.
4. What waits to be sent goes as one message: to send one costs far more than what is in it. Only
   to an end that has said that it reads such; one of an older version is sent each by itself.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import grpc.aio

from inferx.core.errors import InferXError
from inferx.core.units import NS_PER_S
from inferx.exec.clock import Clock
from inferx.exec.received import Unreadable
from inferx.exec.wire import wire_pb2 as pb

__all__ = [
    "BEAT_S",
    "LOST_S",
    "MANY_BYTES",
    "QUEUE_LIMIT",
    "SILENT_S",
    "Line",
    "LineError",
    "Stream",
]

BEAT_S = 1.0
"""Between signs of life."""
SILENT_S = 4.0
"""Without any of which a line is dead."""
LOST_S = 10.0
"""After which a scheduler gives up whoever has no line to it."""
QUEUE_LIMIT = 65_536
"""Messages that may wait to be sent."""
MANY_BYTES = 1 << 20
"""Of what goes as one message: a quarter of what gRPC takes."""


class LineError(InferXError):
    """A line broke: its peer went away, fell silent, or did not keep up."""


class Stream(Protocol):
    """A gRPC stream as both of its ends have it."""

    async def read(self) -> Any:
        """Return the next message, or what gRPC returns at the end."""
        ...

    async def write(self, message: Any, /) -> None:
        """Send a message; waits while the other side does not keep up."""
        ...


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


class Line:
    """One end of one stream.

    Args:
        stream: What carries it.
        envelope: The message with a oneof that goes out.
        clock: The time.
        beat_s: Between beats.
        silent_s: After which silence is death.
    """

    def __init__(
        self,
        stream: Stream,
        envelope: Callable[..., Any],
        clock: Clock,
        *,
        beat_s: float = BEAT_S,
        silent_s: float = SILENT_S,
    ) -> None:
        self._stream = stream
        self._envelope = envelope
        self._clock = clock
        self._beat_s = beat_s
        self._silent_ns = int(silent_s * NS_PER_S)
        self._queue: deque[Any] = deque()
        self._said = asyncio.Event()
        self._over = ""
        """Why this end gives the line up."""
        self._given_up = asyncio.Event()
        self._sent_ns: dict[int, int] = {}
        """When each beat was sent that the peer has not told to have heard."""
        self._number = 0
        self._many = False
        """Whether the peer reads `also`."""
        self._heard = 0
        self._heard_ns = clock.now_ns()
        self.reached_ns = 0
        """When the latest of our beats was sent that the peer has heard; 0 before the first."""

    def say(self, message: Any) -> None:
        """Queue a message; a line that does not keep up breaks instead."""
        if len(self._queue) >= QUEUE_LIMIT:
            self.hang_up(f"{QUEUE_LIMIT} messages wait to be sent: the other side is stuck")
        else:
            self._queue.append(message)
            self._said.set()

    def hang_up(self, why: str) -> None:
        """Give the line up."""
        self._over = why
        self._given_up.set()

    async def run(self, hear: Callable[[Any], None]) -> None:
        """Send and listen until cancelled, or the line breaks.

        Args:
            hear: Takes every message that is no beat.

        Raises:
            LineError: It broke.
        """
        work = (self._listen(hear), self._talk(), self._beat(), self._give_up())
        tasks = [asyncio.ensure_future(one) for one in work]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        # A stream that has just ended calls it a wrong use to write to it, not an end.
        except (grpc.aio.BaseError, asyncio.InvalidStateError) as error:
            raise LineError(f"the stream broke: {_first_line(error)}") from error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, hear: Callable[[Any], None]) -> None:
        while True:
            message = await self._stream.read()
            if isinstance(message, Unreadable):
                raise LineError("the other side sent what is no message")
            # gRPC's own mark of the end is no message.
            if not hasattr(message, "WhichOneof"):
                raise LineError("the other side ended the stream")
            self._heard_ns = self._clock.now_ns()
            self._take(message, hear)
            for one in message.also:
                self._take(one, hear)

    def _take(self, message: Any, hear: Callable[[Any], None]) -> None:
        if message.WhichOneof("message") == "beat":
            self._heard = message.beat.number
            self._many = message.beat.many
            self._reached(message.beat.heard)
        else:
            hear(message)

    def _reached(self, number: int) -> None:
        sent = self._sent_ns.get(number)
        if sent is not None:
            self.reached_ns = sent
            self._sent_ns = {n: at for n, at in self._sent_ns.items() if n > number}

    async def _talk(self) -> None:
        while True:
            await self._said.wait()
            self._said.clear()
            while self._queue:
                await self._stream.write(self._next())

    def _next(self) -> Any:
        """Take what goes next: all that waits, as far as it may be one message."""
        queue = self._queue
        message = queue.popleft()
        if self._many and queue:
            room = MANY_BYTES - message.ByteSize()
            while queue and (room := room - queue[0].ByteSize()) >= 0:
                message.also.append(queue.popleft())
        return message

    async def _give_up(self) -> None:
        # Apart from talking, which waits for the other side.
        await self._given_up.wait()
        raise LineError(self._over)

    async def _beat(self) -> None:
        while True:
            silent_ns = self._clock.now_ns() - self._heard_ns
            if silent_ns > self._silent_ns:
                raise LineError(f"nothing was heard for {silent_ns / NS_PER_S:.1f} s")
            self._number += 1
            self._sent_ns[self._number] = self._clock.now_ns()
            beat = pb.Beat(number=self._number, heard=self._heard, many=True)
            self.say(self._envelope(beat=beat))
            await asyncio.sleep(self._beat_s)
