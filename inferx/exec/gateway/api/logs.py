"""What pods write, for those who may read it: lists, and each pod's output as it comes.

Laws:
1. A list holds what its caller may read; a pod is opened by who may read its function's logs.
2. Who asks is asked for again while they follow: a key that is revoked reads no longer.
3. A part never looks like a whole: what breaks off ends with an `error` line, and as plain text
   with a broken connection.
4. Nothing is held here but the piece that is on its way: a slow reader slows the node's reading.
"""

import asyncio
import codecs
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final

import msgspec
from aiohttp import web

from inferx.core.errors import DescriptionError
from inferx.exec.gateway.api.access import Access
from inferx.exec.gateway.api.agents import Agents
from inferx.exec.gateway.api.errors import refused_of
from inferx.exec.gateway.api.limits import HEARTBEAT_S, LOG_READERS
from inferx.exec.gateway.api.pauses import with_pauses
from inferx.exec.gateway.api.places import named, place_in, within
from inferx.exec.gateway.api.routing import Parameter, Route, flag, json_answer, number
from inferx.exec.gateway.api.watching import event_line
from inferx.exec.gateway.refusals import Refused, error_body
from inferx.exec.identity.principal import Principal
from inferx.exec.wire import wire_pb2 as pb

__all__ = ["LogRoutes"]

_STREAMS: Final = ("stdout", "stderr")
_LINES: Final = "application/x-ndjson"
_QUERY: Final = (
    Parameter("follow", "Go on until the pod ends.", {"type": "integer", "enum": [0, 1]}),
    Parameter("tail", "Only so many last lines.", {"type": "integer", "minimum": 0}),
    Parameter("stream", "One of the two.", {"type": "string", "enum": list(_STREAMS)}),
)


class LogRoutes:
    """Serves them, `LOG_READERS` at once."""

    def __init__(self, access: Access, agents: Agents) -> None:
        self._access = access
        self._agents = agents
        self._running: set[asyncio.Task[Any]] = set()

    def routes(self) -> list[Route]:
        """Return what is served."""
        found: list[Route] = []
        place = ""
        for part in ("", "{tenant}/", "{namespace}/", "{function}/"):
            place += part
            says = "Pods whose output nodes keep."
            found.append(Route("GET", f"/podlogs/{place}", self.list, says))
        path, says = f"/podlog/{place}{{version}}/{{pod}}/", "What a pod wrote."
        return [*found, Route("GET", path, self.read, says, _QUERY, answers="text/plain")]

    def end(self) -> None:
        """End what would not end by itself."""
        for task in self._running:
            task.cancel()

    async def list(self, request: web.Request) -> web.Response:
        """GET /podlogs/[TENANT/[NAMESPACE/[FUNCTION/]]]."""
        who = await self._access.who(request)
        place = place_in(request)
        self._access.check_list(who, "log", place.get("tenant", ""))
        if "namespace" in place:
            self._access.check(who, "read", place["tenant"], place["namespace"], "log")
        logs = await self._agents.logs(*(place.get(k, "") for k in _KEYS))
        rows = [
            row
            for row in logs.rows
            if within(request, row["function"]) and self._sees(who, row["function"])
        ]
        return json_answer({"logs": rows, "complete": logs.complete})

    def _sees(self, who: Principal, function: str) -> bool:
        of = named(function)
        return self._access.may(who, "read", of.tenant, of.namespace, "log")

    async def read(self, request: web.Request) -> web.StreamResponse:
        """GET /podlog/TENANT/NAMESPACE/FUNCTION/VERSION/POD/."""
        await self._check(request)
        asked = _asked(request)
        if len(self._running) >= LOG_READERS:
            raise Refused("busy", f"{LOG_READERS} read pods' output here already")
        task = asyncio.current_task()
        assert task is not None, "a request is served in a task"
        self._running.add(task)
        try:
            async with self._agents.reading(asked) as pieces:
                return await self._answer(request, pieces)
        finally:
            self._running.discard(task)

    async def _check(self, request: web.Request) -> None:
        who = await self._access.who(request)
        place = place_in(request)
        self._access.check(who, "read", place["tenant"], place["namespace"], "log")

    async def _answer(self, request: web.Request, pieces: AsyncIterator[Any]) -> web.StreamResponse:
        # Before the head: where the pod is not found, that is the answer's status. The first piece
        # is empty, and comes at once.
        await anext(pieces)
        form = _Lines() if _LINES in request.headers.get("Accept", "") else _Text()
        answer = web.StreamResponse(
            headers={
                "Content-Type": form.kind,
                "Cache-Control": "no-store",
                "X-Content-Type-Options": "nosniff",
            }
        )
        await answer.prepare(request)
        try:
            async with aclosing(with_pauses(pieces, HEARTBEAT_S)) as coming:
                await self._follow(request, answer, coming, form)
            if form.end:
                await answer.write(form.end)
        except Exception as error:
            if isinstance(error, ConnectionError):
                raise
            if not form.tells_errors:
                _cut(request)
                return answer
            await answer.write(event_line("error", error_body(refused_of(error)), events=False))
        await answer.write_eof()
        return answer

    async def _follow(
        self,
        request: web.Request,
        answer: web.StreamResponse,
        coming: AsyncIterator[Any | None],
        form: "_Lines | _Text",
    ) -> None:
        now_s = asyncio.get_running_loop().time
        due_s = now_s() + HEARTBEAT_S
        async for piece in coming:
            if now_s() >= due_s:
                await self._check(request)
                due_s = now_s() + HEARTBEAT_S
            if request.transport is None or request.transport.is_closing():
                raise ConnectionResetError("the reader left")
            if told := form.idle if piece is None else form.piece(piece):
                await answer.write(told)


_KEYS: Final = ("tenant", "namespace", "function")


def _asked(request: web.Request) -> pb.ReadLogRequest:
    place = request.match_info
    stream = request.query.get("stream", "")
    if stream not in {"", *_STREAMS}:
        raise DescriptionError(f"?stream={stream[:40]!r}: expected {' or '.join(_STREAMS)}")
    if not (place["pod"].isascii() and place["pod"].isdecimal() and len(place["pod"]) <= 18):
        raise DescriptionError(f"pod {place['pod'][:40]!r}: expected a number")
    function = f"{place['tenant']}/{place['namespace']}/{place['function']}@{place['version']}"
    return pb.ReadLogRequest(
        pod=int(place["pod"]),
        function=function,
        lines=number(request, "tail"),
        follow=flag(request, "follow"),
        stream=stream,
    )


def _cut(request: web.Request) -> None:
    """End a connection so that nobody takes what was sent for all there is."""
    if request.transport is not None:
        request.transport.abort()


class _Text:
    """As the pod wrote it."""

    kind = "text/plain; charset=utf-8"
    tells_errors = False
    idle = end = b""

    def piece(self, piece: Any) -> bytes:
        given_up = b"[%d bytes are no longer kept]\n" % piece.skipped_bytes
        return (given_up if piece.skipped_bytes else b"") + bytes(piece.text)


class _Lines:
    """As lines of JSON, which say of which stream a text is, and that nothing came."""

    kind = _LINES
    tells_errors = True
    idle = b'{"event":"alive"}\n'
    end = b'{"event":"end"}\n'

    def __init__(self) -> None:
        # A piece may end within a character.
        made = codecs.getincrementaldecoder("utf-8")
        self._decoders = {stream: made("replace") for stream in _STREAMS}

    def piece(self, piece: Any) -> bytes:
        told: dict[str, object] = {"stream": piece.stream}
        if piece.skipped_bytes:
            told["skipped_bytes"] = piece.skipped_bytes
        told["text"] = self._decoders[piece.stream].decode(piece.text)
        return event_line("text", msgspec.json.encode(told), events=False)
