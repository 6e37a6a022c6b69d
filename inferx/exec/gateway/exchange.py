"""One request at one pod: its body up, its answer down, each as fast as the slower end.

Laws:
1. What a pod answers is passed on untouched, whatever its status; headers of the hop apart.
2. An answer that breaks off breaks off for the client too: never does a part look like a whole.
   An event stream says why in an event, where it broke off between two; one of the gateway's own
   ends with it.
"""

import asyncio
import time
from typing import Final

from inferx.exec.gateway.bodies import Body
from inferx.exec.gateway.client_answer import ClientAnswer
from inferx.exec.gateway.heads import AnswerHead
from inferx.exec.gateway.pods import PodConnection
from inferx.exec.gateway.records import RequestRecord
from inferx.exec.gateway.refusals import Refused
from inferx.exec.gateway.sse import error_event, event_of
from inferx.exec.gateway.usage import Usage, told_usage
from inferx.exec.metrics.gateway import CallCounts

__all__ = ["Exchange"]

TAIL_BYTES: Final = 2048
"""Of an answer's end, where the usage is told."""
_BETWEEN_EVENTS: Final = (b"\n\n", b"\r\n\r\n")
ERROR_BYTES: Final = 64 * 1024
"""Of a pod's error that is told as an event; a longer one is told by its status."""


class Exchange:
    """Joins a client to a pod; see the module's laws.

    Args:
        waited_s: From the request's arrival to its slot.
        record: What is known of the request; None where nobody keeps it.
        counts: Told when a good answer's body begins.
    """

    __slots__ = (
        "_body",
        "_chunked",
        "_client",
        "_counts",
        "_done",
        "_error",
        "_events",
        "_pod",
        "_record",
        "_sent_s",
        "_streaming",
        "_tail",
        "_waited_s",
        "_whole",
        "status",
    )

    def __init__(
        self,
        client: ClientAnswer,
        body: Body,
        pod: PodConnection,
        *,
        waited_s: float,
        record: RequestRecord | None = None,
        counts: CallCounts | None = None,
    ) -> None:
        self._client = client
        self._body = body
        self._pod = pod
        self._waited_s = waited_s
        self._record = record
        self._counts = counts
        """None once it was told."""
        self._done: asyncio.Future[None] = pod.loop.create_future()
        self._tail = b""
        self._streaming = client.begun
        """Whether the client has a head already: then it is told events alone."""
        self._error: bytearray | None = None
        self._events: int | None = None
        """Events so far; None where the answer is no event stream that can be read."""
        self._whole = False
        self.status = 0

    async def run(self, head: bytes, *, chunked: bool, head_only: bool) -> None:
        """Send a request and pass its answer on.

        Raises:
            Refused: It failed before the client was told anything.
        """
        self._chunked = chunked
        self._client.on_stall = self._pod.pause
        self._sent_s = time.monotonic()
        try:
            whole = self._body.ended
            first = self._framed(self._body.take_held(), last=whole)
            self._pod.ask(self, head + first, head_only=head_only, whole=whole)
            if not whole:
                self._body.hand_to(self._send)
            if self._body.failure is not None:
                raise self._body.failure
            self._body.on_failure = self.on_failure
            await self._done
        finally:
            self._body.on_failure = None
            self._body.hand_to(None)
            self._client.on_stall = None
            if not self._whole:
                self._pod.close()

    @property
    def usage(self) -> Usage:
        """What was used, as far as the answer went: all of it, or until it broke off."""
        return told_usage(self._tail, self._events)

    # -- up ---
    def _send(self, piece: bytes, last: bool) -> None:  # noqa: FBT001  # a callback
        self._pod.sent = last
        if framed := self._framed(piece, last=last):
            self._pod.send(framed)

    def _framed(self, piece: bytes, *, last: bool) -> bytes:
        if not self._chunked:
            return piece
        framed = b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
        return framed + b"0\r\n\r\n" if last else framed

    def on_pod_stall(self, stalled: bool) -> None:  # noqa: FBT001
        """Let the client wait while the pod is slower."""
        self._body.hold_back(stalled)

    # -- down ---
    def on_answer(self, head: AnswerHead, first: bytes, *, bodiless: bool, last: bool) -> None:
        """Pass the head on, with its latencies as far as they are known."""
        self.status = status = head.status
        record = self._record
        if record is not None and record.trace is not None and record.trace.sampled:
            record.pod_headers = head.headers
        if status >= 400:
            self._counts = None
        if head.is_events:
            self._events = 0
        if self._streaming:
            if status != 200:
                self._error = bytearray()
            elif self._events is None:
                self.on_failure(
                    Refused("pod failed", "the pod answered with no plain event stream")
                )
                return
        else:
            length = head.length
            framing = b"" if length is None else b"Content-Length: %d\r\n" % length
            waited_ms = 1e3 * self._waited_s
            lines = b"%b%bX-TcpConn-Latency: %d\r\n" % (head.lines, framing, waited_ms)
            if first:
                # Known only where the first piece came with the head, which waits for nothing.
                took_s = time.monotonic() - self._sent_s
                lines += b"X-Ttft-Latency: %d\r\n" % (1e3 * took_s)
                if record is not None:
                    record.first_ns = record.sent_ns + int(1e9 * took_s)
                self._count_first(took_s)
            framed = bodiless or length is not None
            self._client.start(status, lines, first, framed=framed, last=last)
            self._seen(first)
            return
        if first:
            self.on_piece(first, last=last)

    def on_piece(self, piece: bytes, *, last: bool) -> None:
        """Pass a piece on."""
        record = self._record
        if record is not None and not record.first_ns:
            record.first_ns = record.sent_ns + int(1e9 * (time.monotonic() - self._sent_s))
        if self._error is not None:
            if len(self._error) <= ERROR_BYTES:
                self._error += piece
            return
        if self._counts is not None:
            self._count_first(time.monotonic() - self._sent_s)
        self._client.write(piece, last=last)
        self._seen(piece)

    def _seen(self, piece: bytes) -> None:
        """Keep of a piece what tells of tokens."""
        size = len(piece)
        self._tail = piece if size >= TAIL_BYTES else self._tail[size - TAIL_BYTES :] + piece
        if self._events is not None:
            self._events += piece.count(b"data:")

    def _count_first(self, took_s: float) -> None:
        counts = self._counts
        if counts is not None:
            self._counts = None
            counts.first(self._waited_s + took_s)

    def on_end(self) -> None:
        """The answer is whole."""
        if self._error is not None:
            self._client.write(event_of(self.status, bytes(self._error)))
        if not self._client.ended:
            self._client.end()
        if not self._done.done():
            self._whole = True
            self._done.set_result(None)

    def on_failure(self, why: Refused) -> None:
        """Tell the client in the way that is left."""
        if self._done.done():
            return
        if self._record is not None:
            # Known before the task is: what is cut off ends its client's connection first.
            self._record.reason = why.reason
        if self._streaming:
            self._client.write(error_event(why))
            self._client.end()
        elif self._client.begun:
            if self._events is not None and self._tail.endswith(_BETWEEN_EVENTS):
                self._client.break_off(error_event(why))
            else:
                self._client.cut()
        self._done.set_exception(why)
