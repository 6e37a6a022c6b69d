"""One client's connection: requests in, one at a time, and their answers out.

Laws:
1. A request is served by one task; the connection's end cancels it.
2. Nothing is parsed of a next request until an answer is complete; what came of it waits, bounded.
3. A body is framed anew: by its length where the client told one, else in chunks. Requests whose
   length can be read in two ways are refused by the parser.
"""

import asyncio
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, Final, cast

import httptools

from inferx.exec.gateway.bodies import Body
from inferx.exec.gateway.heads import RequestHead
from inferx.exec.gateway.limits import HttpLimits
from inferx.exec.gateway.refusals import Refused, error_body, status_of
from inferx.exec.gateway.sweeping import Sweep

__all__ = ["ClientConnection", "Serve"]

LINGER_S: Final = 2.0
"""For a client that still sends what nobody reads: it shall see why before it is cut off."""
AHEAD_BYTES: Final = 64 * 1024
"""Of requests sent before the answer to the one before; a client that sends more is closed."""
_PHRASES: Final = {status.value: status.phrase.encode() for status in HTTPStatus}

Serve = Callable[["ClientConnection", RequestHead, Body], Coroutine[Any, Any, None]]
"""Answers one request on the connection that it came by."""


class ClientConnection(asyncio.Protocol):
    """See the module's laws. Registers with `everyone` while it lasts."""

    def __init__(
        self,
        serve: Serve,
        limits: HttpLimits,
        sweep: Sweep,
        everyone: set["ClientConnection"],
        on_left: Callable[[], None],
    ) -> None:
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
        self._ahead = bytearray()
        self._header_bytes = 0
        self._due_s: float | None = None
        self._stalled_s: float | None = None
        self._lost = False
        self._chunked = False
        self._overhead = self._size = 0
        self._in_chunks = False
        self._answer_keeps = False
        self._closing = False
        self._continue = False
        self.begun = False
        """Whether the head of the answer is on its way: what fails then cannot have a status."""
        self.ended = False
        """Whether all of the answer is on its way."""
        self.on_stall: Callable[[bool], None] | None = None
        """Told when the client reads too slowly, and when it caught up."""

    # -- asyncio ---
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless there are too many."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if peer else "unknown"
        if len(self._everyone) >= self._limits.connections:
            self._lost = True
            self._write_refusal(Refused("too many connections"))
            self._transport.close()
            return
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
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        """The client reads slower than it is told."""
        self._stalled_s = self._loop.time()
        if self.on_stall is not None:
            self.on_stall(True)

    def resume_writing(self) -> None:
        """The client caught up."""
        self._stalled_s = None
        if self.on_stall is not None:
            self.on_stall(False)

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
            self._header_bytes += len(data)
            self._parse(data)
            if self._head is None and self._header_bytes > self._limits.header_bytes:
                self._refuse_now(self._too_large())
                return
            self._overhead += self._header_bytes - self._size
        else:
            self._overhead += len(data)
            self._parse(data)
        # What comes with a body and is none of it: the frames of chunks, and trailers.
        body = self._body
        if body is not None and self._overhead > self._limits.header_bytes + 8 * body.size:
            self._refuse_now(self._too_large())

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
            self._closing = True
            return
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._chunked = self._continue = False
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
        self._headers.append((name, value))
        low = name.lower()
        if low == b"content-length":
            self._length = int(value)
        elif low == b"transfer-encoding":
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
        self._head = head = RequestHead(
            parser.get_method(),
            self._target,
            self._headers,
            length=None if self._chunked else self._length,
            version=parser.get_http_version(),
            keep_alive=parser.should_keep_alive(),
            peer=self._peer,
        )
        if not self._chunked and self._length > self._limits.body_bytes:
            raise Refused("body too large", f"more than {self._limits.body_bytes} bytes of body")
        has_body = self._chunked or self._length > 0
        self._due_s = self._loop.time() + self._limits.body_idle_s if has_body else None
        self._body = body = Body(
            self._limits.body_bytes, self._limits.body_ahead_bytes, self._pause_reading
        )
        self.begun = self.ended = False
        if self._continue and head.version == "1.1":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._task = self._loop.create_task(self._run(head, body))

    def on_body(self, body: bytes) -> None:
        """A piece of a body came."""
        if self._body is not None and not self._body.ended:
            self._due_s = self._loop.time() + self._limits.body_idle_s
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
    async def _run(self, head: RequestHead, body: Body) -> None:
        try:
            await self._serve(self, head, body)
        finally:
            self._finished(body)

    def _finished(self, body: Body) -> None:
        self._task = self._body = self._head = None
        self.on_stall = None
        self._header_bytes = 0
        if self._lost:
            return
        if not body.ended:
            self._linger()
            return
        if self._closing or not self._answer_keeps or not self.ended:
            self._lost = True
            self._transport.close()
            return
        self._due_s = self._loop.time() + self._limits.keep_alive_s
        if self._ahead:
            ahead, self._ahead = bytes(self._ahead), bytearray()
            self._loop.call_soon(self.data_received, ahead)

    @property
    def lost(self) -> bool:
        """Whether nobody is at the other end."""
        return self._lost

    def start(
        self,
        status: int,
        headers: list[bytes],
        first: bytes = b"",
        *,
        framed: bool,
        last: bool = False,
    ) -> None:
        """Send the head of an answer, and what of its body is there: in one write, for that costs.

        Args:
            status: Of the answer.
            headers: Lines, each with its end.
            first: Of the body.
            framed: Whether the headers tell the body's length, or that there is none.
            last: Whether `first` is all of the body.
        """
        head = self._head
        assert head is not None, "an answer is to a request"
        assert not self.begun, "one answer to a request"
        self.begun = True
        old = head.version != "1.1"
        self._answer_keeps = head.keep_alive and not self._closing and (framed or not old)
        self._in_chunks = not framed and not old
        lines = [b"HTTP/1.1 %d %b\r\n" % (status, _PHRASES.get(status, b"")), *headers]
        if self._in_chunks:
            lines.append(b"Transfer-Encoding: chunked\r\n")
        if not self._answer_keeps:
            lines.append(b"Connection: close\r\n")
        elif old:
            lines.append(b"Connection: keep-alive\r\n")
        lines.append(b"\r\n")
        self._send(b"".join(lines), first, last=last)

    def write(self, piece: bytes, *, last: bool = False) -> None:
        """Send a piece of an answer's body."""
        self._send(b"", piece, last=last)

    def end(self) -> None:
        """End an answer, unless its last piece has."""
        if not self.ended:
            self._send(b"", b"", last=True)

    def _send(self, head: bytes, piece: bytes, *, last: bool) -> None:
        self.ended = last
        if self._in_chunks:
            if piece:
                piece = b"%x\r\n%b\r\n" % (len(piece), piece)
            if last:
                piece += b"0\r\n\r\n"
        # A transport that broke tells so a turn of the loop later.
        if (head or piece) and not self._transport.is_closing():
            self._transport.write(head + piece if head else piece)

    def answer(self, status: int, body: bytes, *headers: bytes) -> None:
        """Send a whole answer in JSON."""
        told = [
            *headers,
            b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body),
        ]
        if self._body is None or not self._body.ended:
            self._closing = True
        bodiless = self._head is not None and self._head.method == b"HEAD"
        self.start(status, told, b"" if bodiless else body, framed=True, last=True)

    def refuse(self, why: Refused) -> None:
        """Tell why a request is not served."""
        self.answer(status_of(why.reason), error_body(why), *_retry(why))

    def cut(self) -> None:
        """Break an answer off, so that its client sees that it is not whole."""
        self._lost = True
        self._transport.abort()

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
                self._transport.close()

    def drain(self) -> None:
        """Close once what is served has ended."""
        self._closing = True
        if self._task is None:
            self._transport.close()

    def _pause_reading(self, paused: bool) -> None:  # noqa: FBT001  # a callback
        if self._lost:
            return
        if paused:
            self._due_s = None
            self._transport.pause_reading()
        else:
            body = self._body
            if body is not None and not body.ended:
                self._due_s = self._loop.time() + self._limits.body_idle_s
            self._transport.resume_reading()

    def _refuse_now(self, why: Refused) -> None:
        """Answer what could not be parsed, and close."""
        if self._task is not None:
            assert self._body is not None, "a task has a body"
            self._closing = True
            self._body.fail(why)
            return
        self._write_refusal(why)
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

    def _write_refusal(self, why: Refused) -> None:
        body, status = error_body(why), status_of(why.reason)
        head = b"HTTP/1.1 %d %b\r\n%bContent-Type: application/json\r\n" % (
            status,
            _PHRASES[status],
            b"".join(_retry(why)),
        )
        length = b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
        self._transport.write(head + length + body)


def _retry(why: Refused) -> list[bytes]:
    later = why.retry_after_s
    return [] if later is None else [b"Retry-After: %d\r\n" % later]
