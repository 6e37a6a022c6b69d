"""A watch of etcd's: whole commits out of its events, and bookmarks out of its progress."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, suppress
from typing import Any

import grpc.aio

from inferx.exec.state.etcd import etcd_pb2 as pb
from inferx.exec.state.etcd.client import RANGE, STATUS, WATCH, Client
from inferx.exec.state.etcd.entry import entry
from inferx.exec.state.limits import check_prefix, prefix_end
from inferx.exec.state.rpc import END_OF_STREAM, ask, cancelled_here, converse
from inferx.exec.state.store import (
    Bookmark,
    Committed,
    Deleted,
    Entry,
    StoreError,
    TooOldError,
    UnavailableError,
)

__all__ = ["answers_in_order", "watch"]

BEGIN_S = 5.0
"""How long etcd is given to begin a watch."""

IN_ORDER: dict[tuple[int, ...], tuple[int, ...]] = {(3, 4): (3, 4, 31), (3, 5): (3, 5, 13)}
"""From which patch on, for the minor versions that once did not."""

PROGRESS = pb.WatchRequest(progress_request=pb.WatchProgressRequest())


async def watch(
    client: Client, prefix: str, after: int, *, bookmark_s: float
) -> AsyncGenerator[Committed | Bookmark, None]:
    """Yield what is committed under a prefix after a revision; see `Store.watch`."""
    check_prefix(prefix)
    client.members.check_open()
    begin, end = prefix.encode(), prefix_end(prefix).encode()
    # A member may be behind, but this asks the leader. It also renews a token that has passed, as
    # which a watch would be told that it is not permitted.
    probe = pb.RangeRequest(key=begin, range_end=end, limit=1, count_only=True)
    present = (await client.call(RANGE, probe)).header.revision
    if present < after:
        raise TooOldError(
            f"revision {after} has not been, {present} is etcd's latest: it is another cluster's, "
            "list again"
        )
    version = (await client.call(STATUS, pb.StatusRequest())).version
    channel = await client.members.channel()
    asks = answers_in_order(version)
    call: Any = None
    try:
        call = converse(channel, WATCH, await client.metadata(channel))
        create = pb.WatchCreateRequest(
            key=begin,
            range_end=end,
            start_revision=after + 1,
            progress_notify=True,
            fragment=True,
        )
        async with asyncio.timeout(BEGIN_S):
            await send(call, pb.WatchRequest(create_request=create))
            created = await call.read()
        refuse_ended(created)
        yield Bookmark(after)
        commits = Commits()
        async with aclosing(responses(call, silent_s=bookmark_s, asks=asks)) as following:
            async for response in following:
                if response is None:
                    # The watch says nothing of itself. That its member answers for the cluster is
                    # the next best thing; how far the watch is stays as it was.
                    await ask(channel, RANGE, probe, BEGIN_S, await client.metadata(channel))
                    yield Bookmark(after)
                    continue
                refuse_ended(response)
                for committed in commits.of(response):
                    after = committed.revision
                    yield committed
                # Nothing but how far etcd is, which may be behind where the watch began. Where it
                # is as far as before, the watch stands still for nothing is written.
                if not response.events and response.header.revision >= after:
                    after = response.header.revision
                    yield Bookmark(after)
    except TimeoutError as error:
        client.members.leave(channel)
        raise UnavailableError(f"etcd did not begin a watch within {BEGIN_S:.0f} s") from error
    except grpc.aio.AioRpcError as error:
        client.members.leave(channel)
        client.fail(error)
    except asyncio.CancelledError:
        if cancelled_here() or not client.members.closed:
            raise
        # Closing the channels ends their calls as if the calls were cancelled.
    finally:
        if call:
            call.cancel()


async def responses(
    call: Any, *, silent_s: float, asks: bool
) -> AsyncGenerator[pb.WatchResponse | None, None]:
    """Yield what etcd sends; when it has been silent, ask how far it is, or yield None."""
    reading = asyncio.ensure_future(call.read())
    try:
        while True:
            # To cancel a read is to cancel the call: it goes on while etcd is asked.
            done, _ = await asyncio.wait({reading}, timeout=silent_s)
            if not done:
                if asks:
                    await send(call, PROGRESS)
                else:
                    yield None
                continue
            response = reading.result()
            reading = asyncio.ensure_future(call.read())
            yield response
    finally:
        call.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def send(call: Any, request: pb.WatchRequest) -> None:
    """Send a request; if the call has ended, its next read says why."""
    with suppress(asyncio.InvalidStateError):
        await call.write(request)


class Commits:
    """Whole commits out of events, which come in order, but not every commit in one response."""

    def __init__(self) -> None:
        self._revision = 0
        self._changes: dict[str, Entry | Deleted] = {}

    def of(self, response: pb.WatchResponse) -> Iterator[Committed]:
        """Yield the commits that a response completes."""
        for event in response.events:
            if event.kv.mod_revision != self._revision:
                yield from self._complete()
                self._revision = event.kv.mod_revision
            change = entry(event.kv)
            self._changes[change.key] = (
                Deleted(change.key) if event.type == pb.Event.DELETE else change
            )
        if not response.fragment:
            yield from self._complete()

    def _complete(self) -> Iterator[Committed]:
        if self._changes:
            changes = tuple(self._changes[key] for key in sorted(self._changes))
            self._changes = {}
            yield Committed(self._revision, changes)


def refuse_ended(response: pb.WatchResponse) -> None:
    """Raise why etcd ended a watch, if it did."""
    if response is END_OF_STREAM:
        raise UnavailableError("etcd ended a watch")
    if response.compact_revision:
        raise TooOldError(
            f"etcd keeps the commits after revision {response.compact_revision} only: list again"
        )
    if response.canceled:
        reason = " ".join(response.cancel_reason.split())
        kind = StoreError if "permission denied" in reason else UnavailableError
        raise kind(f"etcd ended a watch: {reason}")


def answers_in_order(version: str) -> bool:
    """Whether this etcd, asked how far it is, answers only after all events up to there.

    Older versions may overtake them. Their timed notices do not: every ten minutes, if
    `--experimental-watch-progress-notify-interval` says nothing else.
    """
    try:
        number = tuple(int(part) for part in version.split("-", maxsplit=1)[0].split("."))
    except ValueError:
        return False
    return number >= IN_ORDER.get(number[:2], max(IN_ORDER.values()))
