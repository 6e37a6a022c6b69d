"""One client's connection: requests in, one at a time, and their answers out.

Laws:
1. A request is served by one task; the connection's end cancels it.
2. Nothing is parsed of a next request until an answer is complete; what came of it waits, bounded.
3. A body is framed anew: by its length where the client told one, else in chunks. Requests whose
   length can be read in two ways are refused by the parser.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, cast

import httptools

from inferx.exec.gateway.bodies import Body
from inferx.exec.gateway.client_answer import ClientAnswer, bare_refusal
from inferx.exec.gateway.heads import RequestHead
from inferx.exec.gateway.limits import HttpLimits
from inferx.exec.gateway.refusals import Refused
from inferx.exec.gateway.repeats import Latest
from inferx.exec.gateway.sweeping import Sweep
from inferx.exec.gateway.writes import Writes
from inferx.exec.metrics.gateway import GatewayCounts

__all__ = ["ClientConnection", "Serve"]

LINGER_S: Final = 2.0
"""For a client that still sends what nobody reads: it shall see why before it is cut off."""
AHEAD_BYTES: Final = 64 * 1024
"""Of requests sent before the answer to the one before; a client that sends more is closed."""

Serve = Callable[[ClientAnswer, RequestHead, Body], Coroutine[Any, Any, None]]
"""Answers one request, and tells its `ClientAnswer` when that is over."""


class ClientConnection(asyncio.Protocol):
    """See the module's laws. Registers with `everyone` while it lasts."""

    __slots__ = (
        *("_ahead", "_answer", "_body", "_chunked", "_closing", "_continue", "_counts"),
        *("_due_s", "_everyone", "_head", "_header_bytes", "_headers", "_latest", "_left_s"),
        *("_length", "_limits", "_loop", "_lost", "_on_left", "_overhead", "_parser", "_peer"),
        *("_scheme", "_serve", "_size", "_stalled_s", "_sweep", "_target", "_task", "_told"),
        *("_transport", "_writes"),
    )
    _transport: asyncio.Transport
    _peer: str
    _scheme: bytes
    _target: bytes
    _headers: list[tuple[bytes, bytes]]
    _length: int

    def __init__(
        self,
        serve: Serve,
        limits: HttpLimits,
        sweep: Sweep,
        everyone: set["ClientConnection"],
        on_left: Callable[[], None],
        counts: GatewayCounts,
        writes: Writes,
    ) -> None:
        self._writes = writes
        self._counts = counts
        self._on_left = on_left
        self._serve = serve
        self._limits = limits
        self._sweep = sweep
        self._everyone = everyone
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._task: asyncio.Task[None] | None = None
        self._body: Body | None = None
        self._head: RequestHead | None = None
        self._latest: Latest[RequestHead] = Latest()
        self._ahead = bytearray()
        self._header_bytes = 0
        self._due_s: float | None = None
        self._left_s = 0.0
        self._stalled_s: float | None = None
        self._lost = False
        self._chunked = self._told = False
        self._overhead = self._size = 0
        self._closing = False
        self._continue = False
        self._answer: ClientAnswer | None = None

    # -- asyncio ---
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless there are too many."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if peer else "unknown"
        self._scheme = b"https" if transport.get_extra_info("ssl_object") else b"http"
        if len(self._everyone) >= self._limits.connections:
            self._lost = True
            why = Refused("too many connections")
            self._counts.refusals.add(why.reason)
            self._transport.write(bare_refusal(why))
            self._transport.close()
            return
        self._counts.accepted += 1
        self._everyone.add(self)
        self._sweep.add(self)
        self._due_s = self._loop.time() + self._limits.header_s

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what is being served: nobody reads its answer."""
        del exc
        self._lost = True
        self._everyone.discard(self)
        self._on_left()
        self._sweep.remove(self)
        self._due_s = None
        if self._answer is not None:
            self._answer.lost = True
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        """The client reads slower than it is told."""
        self._stalled_s = self._loop.time()
        if self._answer is not None and self._answer.on_stall is not None:
            self._answer.on_stall(True)

    def resume_writing(self) -> None:
        """The client caught up."""
        self._stalled_s = None
        if self._answer is not None and self._answer.on_stall is not None:
            self._answer.on_stall(False)

    def data_received(self, data: bytes) -> None:
        """Parse, or keep what comes too early."""
        if self._lost:
            return
        if self._task is not None and (self._body is None or self._body.ended):
            self._ahead += data
            if len(self._ahead) > AHEAD_BYTES:
                self._transport.abort()
            return
        if self._head is None:
            alone = not self._header_bytes
            if alone and self._again(data):
                return
            self._header_bytes += len(data)
            self._parse(data)
            if self._head is None and self._header_bytes > self._limits.header_bytes:
                self._refuse_now(self._too_large())
                return
            if alone:
                self._remember(data)
            self._overhead += self._header_bytes - self._size
        else:
            self._overhead += len(data)
            self._parse(data)
        # What comes with a body and is none of it: the frames of chunks, and trailers.
        body = self._body
        if body is not None and self._overhead > self._limits.header_bytes + 8 * body.size:
            self._refuse_now(self._too_large())

    def _again(self, data: bytes) -> bool:
        """Take a request that says what the latest did; return whether it is one."""
        piece = self._latest.body_of(data)
        if piece is None or len(piece) > self._limits.body_bytes:
            return False
        self._header_bytes = len(data)
        head = self._latest.head
        head.length = len(piece)
        self._begin(head).be_whole(piece)
        return True

    def _remember(self, data: bytes) -> None:
        head, body = self._head, self._body
        if head is None or body is None or not body.ended or self._closing:
            return
        if head.keep_alive and head.length == body.size and not self._continue:
            self._latest.keep(data, body.size, head)

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            # What a callback refused arrives as the cause.
            why = error.__context__
            self._refuse_now(
                why if isinstance(why, Refused) else Refused("bad request", f"HTTP: {error}")
            )

    # -- the parser ---
    def on_message_begin(self) -> None:
        """A request's first byte came."""
        if self._task is not None:
            # It came in one piece with the one before. It is not read: the client asks again.
            self._close_after()
            return
        self._target = b""
        self._headers = []
        self._chunked = self._continue = self._told = False
        self._length = self._overhead = 0
        self._size = 0
        self._due_s = self._loop.time() + self._limits.header_s

    def on_url(self, url: bytes) -> None:
        """Part of the target came."""
        if self._task is None:
            self._target += url
            self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header came."""
        if self._task is not None:
            return
        self._count(len(name) + len(value) + 4)
        low = name.lower()
        if low == b"content-length":
            self._length = int(value)
            self._told = True
            return
        self._headers.append((name, value))
        if low == b"transfer-encoding":
            self._chunked = True
        elif low == b"expect":
            self._continue = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        """A request can be served; its body follows."""
        if self._task is not None:
            return
        parser = self._parser
        if parser.should_upgrade():
            raise Refused("bad request", "upgrades are not served here")
        head = RequestHead(
            parser.get_method(),
            self._target,
            self._headers,
            length=None if self._chunked else self._length,
            tells_length=self._told,
            version=parser.get_http_version(),
            keep_alive=parser.should_keep_alive(),
            peer=self._peer,
            scheme=self._scheme,
        )
        self._head = head
        if not self._chunked and self._length > self._limits.body_bytes:
            raise Refused("body too large", f"more than {self._limits.body_bytes} bytes of body")
        has_body = self._chunked or self._length > 0
        self._due_s = self._loop.time() + self._limits.body_idle_s if has_body else None
        if self._continue and head.version == "1.1":
            self._writes.flush()
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._begin(head)

    def _begin(self, head: RequestHead) -> Body:
        """Serve a request whose head is there; return where its body goes."""
        limits = self._limits
        self._head = head
        self._body = body = Body(limits.body_bytes, limits.body_ahead_bytes, self._pause_reading)
        answer = self._answer = ClientAnswer(
            *(self._transport, self._writes, head, body), closing=self._closing
        )
        answer.on_over = self._finished
        self._task = self._loop.create_task(self._serve(answer, head, body))
        return body

    def on_body(self, body: bytes) -> None:
        """A piece of a body came."""
        if self._body is not None and not self._body.ended:
            if self._due_s is not None:
                # A body that drips earns less time than it takes.
                earned_s = self._due_s + len(body) / self._limits.body_bytes_per_s
                self._due_s = min(self._loop.time() + self._limits.body_idle_s, earned_s)
            self._overhead -= len(body)
            self._body.feed(body)

    def on_message_complete(self) -> None:
        """A body is whole."""
        if self._body is not None and not self._body.ended:
            self._due_s = None
            self._body.end()

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > self._limits.header_bytes:
            raise self._too_large()

    def _too_large(self) -> Refused:
        text = f"more than {self._limits.header_bytes} bytes of headers"
        return Refused("headers too large", text)

    # -- serving ---
    def _finished(self, answer: ClientAnswer, body: Body) -> None:
        self._task = self._body = self._head = self._answer = None
        self._header_bytes = 0
        if self._lost or answer.lost:
            self._lost = True
            return
        if not body.ended:
            self._linger()
            return
        if self._closing or answer.closing or not answer.keeps or not answer.ended:
            self._lost = True
            self._transport.close()
            return
        self._due_s = self._loop.time() + self._limits.keep_alive_s
        if self._ahead:
            ahead, self._ahead = bytes(self._ahead), bytearray()
            self._loop.call_soon(self.data_received, ahead)

    # -- bounds ---
    def look(self, now_s: float) -> None:
        """End what takes too long; see `HttpLimits`."""
        if self._stalled_s is not None and now_s - self._stalled_s > self._limits.write_stall_s:
            self.cut()
        elif self._due_s is not None and now_s >= self._due_s:
            self._due_s = None
            late = Refused("request timeout", "the request did not come in time")
            if self._body is not None:
                self._body.fail(late)
            elif self._header_bytes:
                self._refuse_now(late)
            else:
                self._writes.flush()
                self._transport.close()

    def drain(self) -> None:
        """Close once what is served has ended."""
        self._close_after()
        if self._task is None:
            self._writes.flush()
            self._transport.close()

    def cut(self) -> None:
        """Break off what is served, and close."""
        self._lost = True
        self._transport.abort()

    def _close_after(self) -> None:
        self._closing = True
        if self._answer is not None:
            self._answer.closing = True

    def _pause_reading(self, paused: bool) -> None:  # noqa: FBT001  # a callback
        if self._lost:
            return
        if paused:
            # Its time stands still for as long as nobody reads from it.
            if self._due_s is not None:
                self._left_s = self._due_s - self._loop.time()
                self._due_s = None
            self._transport.pause_reading()
        else:
            body = self._body
            if body is not None and not body.ended:
                self._due_s = self._loop.time() + self._left_s
            self._transport.resume_reading()

    def _refuse_now(self, why: Refused) -> None:
        """Answer what could not be parsed, and close; once."""
        if self._lost:
            return
        if self._task is not None:
            assert self._body is not None, "a task has a body"
            self._close_after()
            self._body.fail(why)
            return
        self._counts.refusals.add(why.reason)
        # The answer before may be on its way in this very turn.
        self._writes.flush()
        self._transport.write(bare_refusal(why))
        self._linger()

    def _linger(self) -> None:
        """Send what there is and the end of it; read on for a while, so that it arrives."""
        self._lost = True
        if self._transport.is_closing():
            return
        self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._loop.call_later(LINGER_S, self._transport.abort)
