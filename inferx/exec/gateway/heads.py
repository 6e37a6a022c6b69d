"""The heads of requests and answers, and what of them goes on to the next hop."""

import random
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

__all__ = ["EVENTS", "AnswerHead", "HeaderMap", "RequestHead", "forwarded"]

EVENTS: Final = b"text/event-stream"

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
        b"content-length",
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
    """Headers by name, in any case; of a repeated one, the first.

    Attributes:
        low: By their names in lower case.
    """

    __slots__ = ("low",)

    def __init__(self, headers: HeaderList) -> None:
        self.low: dict[str, str] = {}
        for name, value in headers:
            self.low.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))

    def __getitem__(self, name: str) -> str:
        return self.low[name.lower()]

    def get(self, name: str, default: Any = None, /) -> Any:
        """Return a header, or what stands in for it: without an exception, which costs more."""
        return self.low.get(name.lower(), default)

    def __iter__(self) -> Iterator[str]:
        return iter(self.low)

    def __len__(self) -> int:
        return len(self.low)


class RequestHead:
    """A request without its body.

    Where a connection's next request says the same, it is the same object with another length.

    Attributes:
        target: Path and query, as they were sent.
        headers: Without what frames the body.
        length: Of the body; None where it comes in chunks.
        tells_length: Whether it was told.
    """

    __slots__ = (
        "_map",
        "_onward",
        "_told",
        "headers",
        "keep_alive",
        "length",
        "method",
        "peer",
        "scheme",
        "target",
        "tells_length",
        "version",
    )

    def __init__(
        self,
        method: bytes,
        target: bytes,
        headers: HeaderList,
        *,
        length: int | None,
        tells_length: bool,
        version: str,
        keep_alive: bool,
        peer: str,
        scheme: bytes = b"http",
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.length = length
        self.tells_length = tells_length
        self.version = version
        self.keep_alive = keep_alive
        self.peer = peer
        self.scheme = scheme
        self._map: HeaderMap | None = None
        self._onward: _Onward | None = None
        self._told: Told | None = None

    @property
    def told(self) -> "Told":
        """What the gateway itself is told."""
        told = self._told
        if told is None:
            low = self.by_name.low
            told = self._told = Told(
                self.method.decode("latin-1"),
                low.get("x-request-id"),
                low.get("traceparent"),
                low.get("x-inferx-timeout"),
                low.get("authorization"),
            )
        return told

    @property
    def by_name(self) -> HeaderMap:
        """The headers as a mapping; made when it is first asked for."""
        if self._map is None:
            self._map = HeaderMap(self.headers)
        return self._map

    def onward(self, *, with_key: bool) -> "_Onward":
        """Return what goes on to the next hop, which is the same for each request that says it."""
        if with_key:
            return _onward(self, with_key=True)
        if self._onward is None:
            self._onward = _onward(self, with_key=False)
        return self._onward


class Told(NamedTuple):
    """What of a head is read for every request; None is not said."""

    method: str
    request_id: str | None
    traceparent: str | None
    timeout: str | None
    authorization: str | None


class AnswerHead:
    """A pod's answer without its body.

    Where a connection's next answer says the same, it is the same object with another length.

    Attributes:
        headers: All of them, as they came.
        length: Of the body; None where it is not told.
        is_events: Whether the body is an event stream that can be read: a compressed one is not.
    """

    __slots__ = ("headers", "is_events", "length", "lines", "status")

    def __init__(self, status: int, headers: HeaderList, *, length: int | None) -> None:
        self.status = status
        self.headers = headers
        self.length = length
        events, plain = False, True
        lines: list[bytes] = []
        for low, name, value in _beyond_the_hop(headers, _KEPT_BACK):
            if low == b"content-type":
                events = value.lower().startswith(EVENTS)
            elif low == b"content-encoding":
                plain = value.lower() == b"identity"
            lines.append(b"%b: %b\r\n" % (name, value))
        self.is_events = events and plain
        self.lines = b"".join(lines)
        """What goes on to the client, but for the length."""


class _Onward(NamedTuple):
    """Lines of a request's head that go on.

    Attributes:
        lines: All but these.
        traced: The client's `traceparent`; empty where it has none.
    """

    lines: bytes
    traced: bytes


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
    lines, traced = head.onward(with_key=with_key)
    if traceparent:
        traced = b"traceparent: %b\r\n" % traceparent.encode()
    elif not traced:
        # To be told apart, not to be guessed: the kernel's randomness costs more than the rest.
        ids = b"%048x" % (random.getrandbits(192) | _NO_ZERO)
        traced = b"traceparent: 00-%b-%b-01\r\n" % (ids[:32], ids[32:])
    if head.length is None:
        framing = b"Transfer-Encoding: chunked\r\n"
    else:
        framing = b"Content-Length: %d\r\n" % head.length if head.tells_length else b""
    return b"%b %b HTTP/1.1\r\nHost: %b\r\nX-Request-Id: %b\r\n%b%b%b\r\n" % (
        *(head.method, target, address.encode(), request_id.encode()),
        *(lines, traced, framing),
    )


_NO_ZERO: Final = 1 << 64 | 1
"""Neither a trace's id nor a span's may be zero."""


def _onward(head: RequestHead, *, with_key: bool) -> _Onward:
    addresses, host = head.peer.encode(), b""
    lines: list[bytes] = []
    traced: list[bytes] = []
    for low, name, value in _beyond_the_hop(head.headers, _HOP):
        match low:
            case b"x-forwarded-for":
                addresses = value + b", " + head.peer.encode()
            case b"host":
                host = value
            case b"traceparent":
                traced.append(b"%b: %b\r\n" % (name, value))
            case _ if low not in _OURS or (with_key and low == b"authorization"):
                lines.append(b"%b: %b\r\n" % (name, value))
            case _:
                pass
    lines.append(b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n" % (addresses, head.scheme))
    if host:
        lines.append(b"X-Forwarded-Host: %b\r\n" % host)
    return _Onward(b"".join(lines), b"".join(traced))


def _beyond_the_hop(headers: HeaderList, hop: frozenset[bytes]) -> list[tuple[bytes, bytes, bytes]]:
    """Leave out what is of one hop, what `Connection` says is, and the length: it is told anew.

    Returns:
        Names in lower case, names, and values.
    """
    kept: list[tuple[bytes, bytes, bytes]] = []
    named: frozenset[bytes] = frozenset()
    for name, value in headers:
        low = name.lower()
        if low not in hop:
            kept.append((low, name, value))
        elif low == b"connection" and (said := value.lower()) not in _USUAL:
            named |= frozenset(one.strip() for one in said.split(b",")) - _NEVER_NAMED
    return [header for header in kept if header[0] not in named] if named else kept


_USUAL: Final = frozenset((b"keep-alive", b"close", b""))
_NEVER_NAMED: Final = frozenset((b"host", b"content-type"))
"""Never dropped because a client says so."""
