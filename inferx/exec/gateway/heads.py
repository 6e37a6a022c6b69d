"""The heads of requests and answers, and what of them goes on to the next hop."""

import random
from collections.abc import Iterator, Mapping
from typing import Any, Final

__all__ = ["HeaderMap", "RequestHead", "answer_headers", "forwarded"]

HeaderList = list[tuple[bytes, bytes]]
"""Names as they came; compared in lower case."""

_HOP: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
_OURS: Final = frozenset(
    (
        b"expect",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"authorization",
        b"x-inferx-timeout",
        b"x-request-id",
    )
)
"""Answered, said or kept here. The client's key is the gateway's business: a tenant's program has
no use for it but a bad one."""


_KEPT_BACK: Final = _HOP | {b"x-request-id"}
"""Of an answer: an engine that tells a request's id tells the one that it was told."""


class HeaderMap(Mapping[str, str]):
    """Headers by name, in any case; of a repeated one, the first."""

    __slots__ = ("_by_name",)

    def __init__(self, headers: HeaderList) -> None:
        self._by_name: dict[str, str] = {}
        for name, value in headers:
            self._by_name.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))

    def __getitem__(self, name: str) -> str:
        return self._by_name[name.lower()]

    def get(self, name: str, default: Any = None, /) -> Any:
        """Return a header, or what stands in for it: without an exception, which costs more."""
        return self._by_name.get(name.lower(), default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)


class RequestHead:
    """A request without its body.

    Attributes:
        target: Path and query, as they were sent.
        length: Of the body; None where it comes in chunks.
    """

    __slots__ = ("_map", "headers", "keep_alive", "length", "method", "peer", "target", "version")

    def __init__(
        self,
        method: bytes,
        target: bytes,
        headers: HeaderList,
        *,
        length: int | None,
        version: str,
        keep_alive: bool,
        peer: str,
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.length = length
        self.version = version
        self.keep_alive = keep_alive
        self.peer = peer
        self._map: HeaderMap | None = None

    @property
    def by_name(self) -> HeaderMap:
        """The headers as a mapping; made when it is first asked for."""
        if self._map is None:
            self._map = HeaderMap(self.headers)
        return self._map


def forwarded(
    head: RequestHead,
    target: bytes,
    address: str,
    *,
    request_id: str,
    traceparent: str = "",
    with_key: bool = False,
) -> bytes:
    """Return the head of a request as it goes to a pod, or with the caller's key to the API.

    Args:
        head: As it came.
        target: Path and query at the next hop.
        address: Of the next hop.
        request_id: The request's.
        traceparent: In place of the client's; empty where nothing is traced here.
        with_key: Whether the caller's key goes along.
    """
    line = b"%b %b HTTP/1.1\r\nHost: %b\r\nX-Request-Id: %b"
    lines = [line % (head.method, target, address.encode(), request_id.encode())]
    addresses, host, traced = head.peer.encode(), b"", False
    for name, value in _beyond_the_hop(head.headers):
        match name.lower():
            case b"x-forwarded-for":
                addresses = value + b", " + head.peer.encode()
            case b"host":
                host = value
            case b"traceparent" if traceparent:
                pass
            case low if low not in _OURS or (with_key and low == b"authorization"):
                traced = traced or low == b"traceparent"
                lines.append(b"%b: %b" % (name, value))
            case _:
                pass
    lines.append(b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: http" % addresses)
    if host:
        lines.append(b"X-Forwarded-Host: " + host)
    if traceparent:
        lines.append(b"traceparent: " + traceparent.encode())
    elif not traced:
        # To be told apart, not to be guessed: the kernel's randomness costs more than the rest.
        trace, span = random.getrandbits(128) or 1, random.getrandbits(64) or 1
        lines.append(b"traceparent: 00-%032x-%016x-01" % (trace, span))
    if head.length is None:
        lines.append(b"Transfer-Encoding: chunked")
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def answer_headers(headers: HeaderList) -> list[bytes]:
    """Return the lines of a pod's answer that go on to the client."""
    return [b"%b: %b\r\n" % header for header in _beyond_the_hop(headers, _KEPT_BACK)]


def _beyond_the_hop(headers: HeaderList, hop: frozenset[bytes] = _HOP) -> HeaderList:
    """Leave out what is of one hop, and what `Connection` says is."""
    kept: HeaderList = []
    named: frozenset[bytes] = frozenset()
    for header in headers:
        low = header[0].lower()
        if low not in hop:
            kept.append(header)
        elif low == b"connection" and (value := header[1].lower()) not in _USUAL:
            named |= frozenset(one.strip() for one in value.split(b",")) - _FRAMING
    return [header for header in kept if header[0].lower() not in named] if named else kept


_USUAL: Final = frozenset((b"keep-alive", b"close", b""))
_FRAMING: Final = frozenset((b"content-length", b"host", b"content-type"))
"""Never dropped because a client says so: a body without its length would be another request."""
