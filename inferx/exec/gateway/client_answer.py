"""The answer to one request, as it goes to the client that asked."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from inferx.exec.gateway.bodies import Body
from inferx.exec.gateway.heads import RequestHead
from inferx.exec.gateway.refusals import Refused, error_body, status_of
from inferx.exec.gateway.writes import Writes

__all__ = ["ClientAnswer", "bare_refusal"]

_PHRASES: Final = {status.value: status.phrase.encode() for status in HTTPStatus}
_LINES: Final = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, phrase) for status, phrase in _PHRASES.items()
}


class ClientAnswer:
    """Written by whoever serves the request; its connection looks at how it went.

    Attributes:
        begun: Whether the head is on its way: what fails then cannot have a status.
        ended: Whether all of it is on its way.
        counted: Counts it, by its status; set by whoever serves it.
        closing: Whether the connection ends with it; its head says so.
        keeps: Whether the client may ask again on the connection.
        lost: Whether nobody is at the other end.
        request_id: Told to the client; empty where the request has none.
        status: As the client was told; 0 before.
        body_bytes: Of the body, on their way.
        on_over: Told when whoever serves it has ended, well or not.
        on_stall: Told when the client reads too slowly, and when it caught up.
    """

    __slots__ = (
        "_body",
        "_head",
        "_in_chunks",
        "_transport",
        "_writes",
        "begun",
        "body_bytes",
        "closing",
        "counted",
        "ended",
        "keeps",
        "lost",
        "on_over",
        "on_stall",
        "request_id",
        "status",
    )
    counted: defaultdict[int, int]
    on_over: Callable[["ClientAnswer", Body], None]

    def __init__(
        self,
        transport: asyncio.Transport,
        writes: Writes,
        head: RequestHead,
        body: Body,
        *,
        closing: bool,
    ) -> None:
        self._writes = writes
        self._transport = transport
        self._head = head
        self._body = body
        self._in_chunks = False
        self.begun = False
        self.ended = False
        self.closing = closing
        self.keeps = False
        self.lost = False
        self.status = self.body_bytes = 0
        self.on_stall: Callable[[bool], None] | None = None
        self.request_id = ""

    def over(self) -> None:
        """Take note that nobody serves it any more."""
        self.on_over(self, self._body)

    def start(
        self,
        status: int,
        headers: bytes,
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
        asked = self._head
        assert not self.begun, "one answer to a request"
        self.begun = True
        self.status = status
        old = asked.version != "1.1"
        self.keeps = asked.keep_alive and not self.closing and (framed or not old)
        self._in_chunks = not framed and not old
        line = _LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        own = b"Transfer-Encoding: chunked\r\n" if self._in_chunks else b""
        if not self.keeps:
            own += b"Connection: close\r\n"
        elif old:
            own += b"Connection: keep-alive\r\n"
        request_id = self.request_id.encode()
        if request_id:
            head = b"%b%bX-Request-Id: %b\r\n%b\r\n" % (line, headers, request_id, own)
        else:
            head = b"%b%b%b\r\n" % (line, headers, own)
        self._send(head, first, last=last)

    def write(self, piece: bytes, *, last: bool = False) -> None:
        """Send a piece of an answer's body."""
        self._send(b"", piece, last=last)

    def end(self) -> None:
        """End an answer, unless its last piece has."""
        if not self.ended:
            self._send(b"", b"", last=True)

    def _send(self, head: bytes, piece: bytes, *, last: bool) -> None:
        self.ended = last
        self.body_bytes += len(piece)
        if self._in_chunks:
            if piece:
                piece = b"%x\r\n%b\r\n" % (len(piece), piece)
            if last:
                piece += b"0\r\n\r\n"
        if head and last and self.keeps and self._body.ended:
            # Whole, and its connection stays: nothing is done to that before the turn is over.
            self._writes.keep(self._transport, head + piece)
        # A transport that broke tells so a turn of the loop later.
        elif (head or piece) and not self._transport.is_closing():
            self._transport.write(head + piece if head else piece)

    def whole(self, status: int, body: bytes, *headers: bytes) -> None:
        """Send a whole answer in JSON."""
        told = b"%bContent-Type: application/json\r\nContent-Length: %d\r\n" % (
            b"".join(headers),
            len(body),
        )
        if not self._body.ended:
            self.closing = True
        bodiless = self._head.method == b"HEAD"
        self.start(status, told, b"" if bodiless else body, framed=True, last=True)

    def refuse(self, why: Refused) -> None:
        """Tell why a request is not served."""
        self.whole(status_of(why.reason), error_body(why), *_retry(why))

    def break_off(self, last: bytes) -> None:
        """Say a last thing, where there is room for it, and break off: the end is not sent."""
        if not self._in_chunks:
            self.cut()
            return
        self._send(b"", last, last=False)
        self.lost = True
        self._transport.close()

    def cut(self) -> None:
        """Break an answer off, so that its client sees that it is not whole."""
        self.lost = True
        self._transport.abort()


def bare_refusal(why: Refused) -> bytes:
    """Return the answer to what is no request."""
    body, status = error_body(why), status_of(why.reason)
    head = b"HTTP/1.1 %d %b\r\n%bContent-Type: application/json\r\n" % (
        status,
        _PHRASES[status],
        b"".join(_retry(why)),
    )
    return head + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body


def _retry(why: Refused) -> list[bytes]:
    later = why.retry_after_s
    return [] if later is None else [b"Retry-After: %d\r\n" % later]
