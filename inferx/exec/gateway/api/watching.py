"""Watches over HTTP: what there is, then what changes, as lines of JSON or as an event stream.

Laws:
1. A line is one of `put` with an object, `delete` with a key, or `bookmark`: all up to a revision
   has been told. An object whose labels no longer fit is told as deleted.
2. Who asks is asked for again with every line, also where nothing happens: a key that is revoked
   watches no longer.
3. What goes wrong once it has begun is the last line, an `error` in OpenAI's shape.
"""

import asyncio
from contextlib import aclosing
from typing import Any

import msgspec
from aiohttp import web

from inferx.exec.gateway.api.access import Access, place_of
from inferx.exec.gateway.api.errors import refused_of
from inferx.exec.gateway.api.limits import HEARTBEAT_S, WATCHES
from inferx.exec.gateway.api.pauses import with_pauses
from inferx.exec.gateway.refusals import Refused, error_body
from inferx.exec.state.objects.envelope import DataObject, Key
from inferx.exec.state.objects.objects import Objects
from inferx.exec.state.objects.results import Batch
from inferx.exec.state.objects.selector import Selection

__all__ = ["Watches", "event_line"]


class Watches:
    """Those of one gateway, at most `WATCHES` at once."""

    def __init__(
        self, access: Access, objects: Objects, *, heartbeat_s: float = HEARTBEAT_S
    ) -> None:
        self._access = access
        self._objects = objects
        self._heartbeat_s = heartbeat_s
        self._running: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def end(self) -> None:
        """End all: their callers come back to another gateway."""
        for task in self._running:
            task.cancel()

    async def serve(
        self, request: web.Request, selection: Selection, after: int | None
    ) -> web.StreamResponse:
        """Answer one request for as long as its caller listens."""
        if len(self._running) >= WATCHES:
            raise Refused("busy", f"{WATCHES} watches here already")
        events = "text/event-stream" in request.headers.get("Accept", "")
        kind = "text/event-stream" if events else "application/x-ndjson"
        answer = web.StreamResponse(headers={"Content-Type": kind, "Cache-Control": "no-store"})
        task = asyncio.current_task()
        assert task is not None, "a request is served in a task"
        self._running.add(task)
        try:
            listed, revision = None, after
            if revision is None:
                listed = await self._objects.list(selection)
                revision = listed.revision
            await answer.prepare(request)
            try:
                if listed is not None:
                    first = Batch(revision, listed.objects)
                    await answer.write(await self._told(request, selection, first, events=events))
                await self._follow(request, answer, selection, revision, events=events)
            except Exception as error:
                if isinstance(error, ConnectionError):
                    raise
                await answer.write(
                    event_line("error", error_body(refused_of(error)), events=events)
                )
        finally:
            self._running.discard(task)
        await answer.write_eof()
        return answer

    async def _follow(
        self,
        request: web.Request,
        answer: web.StreamResponse,
        selection: Selection,
        after: int,
        *,
        events: bool,
    ) -> None:
        async with aclosing(self._objects.changes(selection, after)) as changes:
            async for batch in with_pauses(changes, self._heartbeat_s):
                after = after if batch is None else batch.revision
                told = batch or Batch(after)
                await answer.write(await self._told(request, selection, told, events=events))

    async def _told(
        self, request: web.Request, selection: Selection, batch: Batch, *, events: bool
    ) -> bytes:
        who = await self._access.who(request)
        lines: list[bytes] = []
        for one in batch.changes:
            key = one.key if isinstance(one, DataObject) else one
            if not self._access.may(who, "read", *place_of(key), key.type):
                continue
            if isinstance(one, DataObject) and selection.takes(one):
                lines.append(event_line("put", msgspec.json.encode({"object": one}), events=events))
            else:
                lines.append(event_line("delete", _gone(key), events=events))
        bookmark = msgspec.json.encode({"revision": batch.revision})
        lines.append(event_line("bookmark", bookmark, events=events))
        return b"".join(lines)


def _gone(key: Key) -> bytes:
    return msgspec.json.encode({"key": key})


def event_line(event: str, body: bytes, *, events: bool) -> bytes:
    """Return a line: the event's name beside what it holds."""
    if events:
        return b"event: %b\ndata: %b\n\n" % (event.encode(), body)
    assert body[:1] == b"{", "what a line holds is an object"
    return b'{"event":"%b",%b\n' % (event.encode(), body[1:])
