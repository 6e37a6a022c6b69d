"""Connections to pods: kept for each address while they are fresh, one request at a time.

Laws:
1. A connection that ended, broke or holds bytes nobody asked for is not used again.
2. An answer without a length ends with its connection; any other that is cut off has failed.
"""

import asyncio
from collections import deque
from typing import Final, Protocol, cast

import httptools

from inferx.exec.gateway.heads import AnswerHead
from inferx.exec.gateway.limits import HttpLimits
from inferx.exec.gateway.refusals import Refused
from inferx.exec.gateway.repeats import Latest
from inferx.exec.gateway.sweeping import Sweep
from inferx.exec.gateway.writes import Writes

__all__ = ["Answered", "PodConnection", "Pods"]

HEADER_BYTES: Final = 256 * 1024
"""Of a pod's answer; pods are a tenant's own programs."""


class Answered(Protocol):
    """Who takes a pod's answer."""

    def on_answer(self, head: AnswerHead, first: bytes, *, bodiless: bool, last: bool) -> None:
        """Take the head, and what of the body came with it: all of it, where it is the last."""
        ...

    def on_piece(self, piece: bytes, *, last: bool) -> None:
        """Take a piece of the body."""
        ...

    def on_end(self) -> None:
        """The answer is whole."""
        ...

    def on_failure(self, why: Refused) -> None:
        """No more of it will come."""
        ...

    def on_pod_stall(self, stalled: bool) -> None:  # noqa: FBT001
        """The pod reads slower than the body comes, or caught up."""
        ...


class PodConnection(asyncio.Protocol):
    """One connection; made by `Pods`."""

    __slots__ = (
        *("_bodiless", "_ended", "_framed", "_head", "_head_only", "_headers", "_idle_s"),
        *("_keep", "_latest", "_length", "_limits", "_parser", "_paused", "_pieces", "_pods"),
        *("_size", "_sweep", "_to", "_told", "_total_s", "_transport", "_untouched", "address"),
        *("fresh_until_s", "loop", "open", "sent"),
    )
    _transport: asyncio.Transport

    def __init__(self, pods: "Pods", address: str, limits: HttpLimits, sweep: Sweep) -> None:
        self._pods = pods
        self.address = address
        self._limits = limits
        self._sweep = sweep
        self.loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._to: Answered | None = None
        self._pieces: list[bytes] = []
        self._told = False
        self._ended = False
        self._bodiless = False
        self._framed = False
        self._keep = False
        self._head_only = False
        self._paused = False
        self._size = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._length: int | None = None
        self._head: AnswerHead | None = None
        self._latest: Latest[AnswerHead] = Latest()
        self._untouched = True
        """Whether nothing of an answer has come yet."""
        self.sent = False
        """Whether all of the request is on its way; until then no other may follow it."""
        self._idle_s = 0.0
        self._total_s = 0.0
        self.open = False
        self.fresh_until_s = 0.0

    # -- asyncio ---
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self.open = True
        self._sweep.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End an answer that has no other end; fail any other."""
        self.open = False
        self._sweep.remove(self)
        self._pods.forget(self)
        to = self._to
        if to is None:
            return
        if self._head is not None and exc is None and not self._framed:
            self._done(to)
        else:
            self._fail(Refused("pod failed", "the pod closed its connection before its answer"))

    def pause_writing(self) -> None:
        """The pod reads slower than the body comes."""
        if self._to is not None:
            self._to.on_pod_stall(True)

    def resume_writing(self) -> None:
        """The pod caught up."""
        if self._to is not None:
            self._to.on_pod_stall(False)

    def data_received(self, data: bytes) -> None:
        """Hand on what came, all of a read at once."""
        to = self._to
        if to is None:
            self.close()
            return
        alone, self._untouched = self._untouched, False
        if alone and self._again(data, to):
            return
        self._idle_s = self.loop.time() + self._limits.pod_idle_s
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(Refused("pod failed", "the pod does not answer in HTTP/1.1"))
            return
        head = self._head
        if head is None:
            return
        if alone:
            self._remember(data, head)
        pieces = self._pieces
        piece = b"" if not pieces else pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if not self._told:
            self._told = True
            to.on_answer(head, piece, bodiless=self._bodiless, last=self._ended)
        elif piece:
            to.on_piece(piece, last=self._ended)
        if self._ended and self._to is to:
            self._done(to)

    def _again(self, data: bytes, to: Answered) -> bool:
        """Take a whole answer that says what the latest did; return whether it is one."""
        if self._head_only:
            return False
        piece = self._latest.body_of(data)
        if piece is None:
            return False
        head = self._latest.head
        head.length = len(piece)
        self._told = self._ended = self._framed = self._keep = True
        self._head = head
        to.on_answer(head, piece, bodiless=False, last=True)
        if self._to is to:
            self._done(to)
        return True

    def _remember(self, data: bytes, head: AnswerHead) -> None:
        length = head.length
        if length is not None and self._ended and self._keep and not self._bodiless:
            self._latest.keep(data, length, head)

    # -- the parser ---
    def on_message_begin(self) -> None:
        """A head begins, which may be of an answer on the way to the answer."""
        if self._ended:
            self._keep = False
            return
        self._headers = []
        self._length = None
        self._framed = False
        self._size = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header came."""
        if self._ended:
            return
        self._size += len(name) + len(value)
        if self._size > HEADER_BYTES:
            raise Refused("pod failed")
        self._headers.append((name, value))
        low = name.lower()
        if low == b"content-length":
            self._length = int(value)
            self._framed = True
        elif low == b"transfer-encoding":
            self._framed = True

    def on_headers_complete(self) -> None:
        """A head is whole."""
        status = self._parser.get_status_code()
        if status < 200 or self._ended:
            return
        self._head = AnswerHead(status, self._headers, length=self._length)
        self._keep = self._parser.should_keep_alive() and self._framed
        if status in {204, 304}:
            self._bodiless = self._framed = True
            self._keep = self._parser.should_keep_alive()
        if self._head_only:
            # The parser waits for a body that never comes: it is of no use any more.
            self._bodiless = self._framed = self._ended = True
            self._keep = False

    def on_body(self, body: bytes) -> None:
        """A piece came."""
        if not self._ended:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._head is not None:
            self._ended = True

    # -- requests ---
    def ask(self, to: Answered, sent: bytes, *, head_only: bool, whole: bool) -> None:
        """Send a request as far as it is there, and hand its answer to `to`."""
        assert self._to is None, "a connection carries one request"
        assert self.open, "what is closed is not used again"
        self._to = to
        self._told = self._ended = self._bodiless = False
        self._head = None
        self._untouched = True
        self._head_only = head_only
        self.sent = whole
        now_s = self.loop.time()
        self._idle_s = now_s + self._limits.pod_idle_s
        self._total_s = now_s + self._limits.pod_total_s
        if whole:
            self._pods.writes.keep(self._transport, sent)
        elif not self._transport.is_closing():
            self._transport.write(sent)

    def send(self, piece: bytes) -> None:
        """Send more of a request."""
        if self.open and not self._transport.is_closing():
            self._idle_s = self.loop.time() + self._limits.pod_idle_s
            self._transport.write(piece)

    def pause(self, paused: bool) -> None:  # noqa: FBT001
        """Read nothing while the client is slower."""
        if self.open and paused is not self._paused:
            self._paused = paused
            if paused:
                self._transport.pause_reading()
            else:
                self._idle_s = self.loop.time() + self._limits.pod_idle_s
                self._transport.resume_reading()

    def close(self) -> None:
        """Close: whoever waits for an answer is told nothing more."""
        self._to = None
        self._sweep.remove(self)
        if self.open:
            self.open = False
            self._pods.forget(self)
            self._transport.abort()

    def look(self, now_s: float) -> None:
        """End an answer that takes too long."""
        if self._to is None:
            return
        if now_s >= self._idle_s:
            self._fail(
                Refused("pod timeout", f"nothing from the pod in {self._limits.pod_idle_s:g} s")
            )
        elif now_s >= self._total_s:
            self._fail(Refused("pod timeout", f"no whole answer in {self._limits.pod_total_s:g} s"))

    def _done(self, to: Answered) -> None:
        self._to = None
        if self.open and self._keep and self.sent:
            if self._paused:
                self.pause(False)
            self._pods.put_back(self)
        else:
            self.close()
        to.on_end()

    def _fail(self, why: Refused) -> None:
        to = self._to
        self.close()
        if to is not None:
            to.on_failure(why)


class Pods:
    """The connections that wait for a request, by address."""

    def __init__(self, limits: HttpLimits, sweep: Sweep, writes: Writes) -> None:
        self.writes = writes
        self._limits = limits
        self._sweep = sweep
        self._loop = asyncio.get_running_loop()
        self._idle: dict[str, deque[PodConnection]] = {}
        sweep.add(self)

    def fresh(self, address: str) -> PodConnection | None:
        """Return a connection that was used a moment ago, the latest first."""
        idle = self._idle.get(address)
        return idle.pop() if idle else None

    async def connect(self, address: str) -> PodConnection:
        """Open a connection.

        Raises:
            OSError: It is refused, or not accepted in time; nothing was sent.
        """
        host, _, port = address.rpartition(":")
        made = PodConnection(self, address, self._limits, self._sweep)
        async with asyncio.timeout(self._limits.connect_s):
            await self._loop.create_connection(lambda: made, host.strip("[]"), int(port))
        return made

    def put_back(self, one: PodConnection) -> None:
        """Keep a connection for the next request."""
        idle = self._idle.get(one.address)
        if idle is None:
            idle = self._idle[one.address] = deque()
        if len(idle) >= self._limits.pool_idle_count:
            one.close()
            return
        one.fresh_until_s = self._loop.time() + self._limits.pool_idle_s
        idle.append(one)

    def forget(self, one: PodConnection) -> None:
        """Keep it no longer."""
        idle = self._idle.get(one.address)
        if idle is not None and one in idle:
            idle.remove(one)

    def look(self, now_s: float) -> None:
        """Close what was not used for long, and forget addresses without connections."""
        for address, idle in tuple(self._idle.items()):
            while idle and idle[0].fresh_until_s <= now_s:
                idle[0].close()
            if not idle:
                del self._idle[address]

    def close(self) -> None:
        """Close all that wait."""
        self._sweep.remove(self)
        for idle in tuple(self._idle.values()):
            for one in tuple(idle):
                one.close()
