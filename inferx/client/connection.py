"""HTTP to one gateway: bounds, the key, and the one place where answers become errors."""

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self, cast

import httpx2 as httpx

from inferx import __version__
from inferx.client.errors import ClientError, GoneError, RefusedError, UnreachableError

__all__ = ["Connection", "read_line"]

CONNECT_S: Final = 5.0
ANSWER_S: Final = 30.0
"""Without a byte of an answer; a cascade of deletions takes longest."""
QUIET_S: Final = 60.0
"""Without a line of a watch, which has a sign of life more often than that."""
BODY_LIMIT: Final = 256 << 20
"""Bytes of an answer: beyond it a list is asked for in parts."""
LINE_LIMIT: Final = 16 << 20
MESSAGE_LIMIT: Final = 1000

_LOOPBACK: Final = frozenset(("127.0.0.1", "localhost", "::1"))
_Body = Mapping[str, object] | None
_Query = Mapping[str, str]
NOTHING: Final[_Query] = {}


class Connection:
    """Calls to one gateway, with one key.

    Args:
        server: Its URL.
        key: An API key; empty asks as nobody.
    """

    def __init__(self, server: str, key: str = "") -> None:
        try:
            url = httpx.URL(server)
        except httpx.InvalidURL as error:
            raise ClientError(f"server {server}: {error}; expected http://HOST:PORT") from error
        if url.scheme not in {"http", "https"} or not url.host or url.userinfo or url.query:
            raise ClientError(f"server {_without_user(url)}: expected http://HOST:PORT")
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ClientError("the API key has characters that no key has; expected ix_...")
        headers = {"User-Agent": f"inferx/{__version__}", "Accept": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self.server = str(url).rstrip("/")
        self._http = httpx.Client(
            base_url=self.server,
            headers=headers,
            timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
            # A key goes to the server that it is for, and to no other that one names.
            follow_redirects=False,
            trust_env=url.host not in _LOOPBACK,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def json(self, method: str, path: str, body: _Body = None, query: _Query = NOTHING) -> Any:
        """Return what the gateway answers; None where it has nothing to say.

        Raises:
            RefusedError: It answers with an error.
            UnreachableError: It does not answer.
        """
        with self._answer(method, path, body, query, ANSWER_S) as answer:
            content = _read(answer)
        if not content:
            return None
        try:
            return json.loads(content)
        except ValueError as error:
            raise self._no_gateway(path) from error

    def lines(self, path: str, query: _Query = NOTHING, accept: str = "") -> Iterator[str]:
        """Return the lines of an answer as they come, until the gateway ends it.

        A line ends with a newline, and with no other character that ends lines of text. `accept`
        is the form that is asked for; empty is the gateway's own choice.

        Raises:
            RefusedError: It answers with an error.
            UnreachableError: It does not answer, or falls silent.
        """
        headers = {"Accept": accept} if accept else {}
        with self._answer("GET", path, None, query, QUIET_S, headers) as answer:
            rest = bytearray()
            for piece in answer.iter_bytes():
                rest += piece
                *lines, rest = rest.split(b"\n")
                for line in lines:
                    yield line.decode(errors="replace")
                if len(rest) > LINE_LIMIT:
                    raise self._no_gateway(path)
            if rest:
                yield rest.decode(errors="replace")

    @contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        body: _Body,
        query: _Query,
        quiet_s: float,
        headers: Mapping[str, str] = NOTHING,
    ) -> Generator[httpx.Response]:
        timeout = httpx.Timeout(ANSWER_S, connect=CONNECT_S, read=quiet_s)
        try:
            with self._http.stream(
                method,
                path,
                json=body,
                params=dict(query),
                timeout=timeout,
                headers=dict(headers),
            ) as answer:
                if not answer.is_success:
                    raise _refused(answer, _read(answer))
                yield answer
        except httpx.TimeoutException as error:
            raise UnreachableError(
                f"{self.server}: no answer in time to {method} {path}"
            ) from error
        except httpx.HTTPError as error:
            told = str(error) or type(error).__name__
            raise UnreachableError(f"{self.server}: {told}") from error

    def _no_gateway(self, path: str) -> UnreachableError:
        return UnreachableError(f"{self.server}{path}: the answer is not a gateway's")


def _read(answer: httpx.Response) -> bytes:
    content = bytearray()
    for piece in answer.iter_bytes():
        content += piece
        if len(content) > BODY_LIMIT:
            raise UnreachableError(f"{answer.url}: an answer of more than {BODY_LIMIT} bytes")
    return bytes(content)


def _refused(answer: httpx.Response, content: bytes) -> RefusedError:
    """Return the error that an answer tells: OpenAI's shape, or whatever else stood between."""
    status = answer.status_code
    told = code = ""
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if isinstance(found, dict):
        error = cast("dict[str, object]", found).get("error")
        if isinstance(error, dict):
            named = cast("dict[str, object]", error)
            told, code = str(named.get("message") or ""), str(named.get("code") or "")
    message = told[:MESSAGE_LIMIT] or f"{answer.url}: {status} {answer.reason_phrase}"
    if status == 401:
        message += " (set INFERX_API_KEY, or a context: inferx context set)"
    kind = GoneError if status == 404 else RefusedError
    return kind(message, status=status, code=code)


def _without_user(url: httpx.URL) -> str:
    """Return a URL for people to read: without a password that somebody put in it."""
    return str(url.copy_with(username=None, password=None)) if url.userinfo else str(url)


def read_line(path: str, line: str, *, of: str) -> Mapping[str, Any]:
    """Return the object in a line of an answer; `of` is what the answer is called.

    Raises:
        UnreachableError: There is none in it.
    """
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UnreachableError(f"{path}: a line of {of} is not a gateway's")
    return cast("Mapping[str, Any]", found)
