"""A store in this process's memory; with a journal, one that outlives the process.

With a journal a commit is made here at once and written behind, many in one write; who asked, and
who reads what it changed, waits until it is written. So nothing is ever seen that a crash undoes.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import partial

import msgspec

from inferx.core.units import NS_PER_S
from inferx.exec.clock import Clock
from inferx.exec.state.history import History
from inferx.exec.state.journal import Batch, Journal, WriteBehind
from inferx.exec.state.leases import Leases
from inferx.exec.state.limits import check_commit, check_key, check_prefix, check_ttl
from inferx.exec.state.store import (
    NO_LEASE,
    Bookmark,
    Change,
    Committed,
    Delete,
    Entry,
    Expect,
    LeaseLostError,
    Listing,
    Put,
    StoreLeaseId,
    TooOldError,
    UnavailableError,
)
from inferx.exec.state.table import Table

__all__ = ["BOOKMARK_S", "UNWRITTEN_COMMITS", "Contents", "MemoryStore"]

BOOKMARK_S = 5.0
"""How long a watch is silent before it says up to where."""
UNWRITTEN_COMMITS = 10_000
"""Made, and not yet written: beyond it new ones are refused."""


class Contents(msgspec.Struct):
    """What a store begins with."""

    table: Table
    history: History
    ttls_ns: Mapping[StoreLeaseId, int] = {}


def nothing(clock: Clock) -> Contents:
    """Return the contents of a new store, whose revisions begin at the clock's microseconds.

    A store without a journal forgets all when its process ends. Who held a revision of its former
    life is told that it is too old, and is not left waiting for numbers that come again.
    """
    revision = clock.now_ns() // 1000
    return Contents(Table(revision), History(revision))


class MemoryStore:
    """See the laws of `store`. It belongs to one event loop."""

    def __init__(
        self,
        clock: Clock,
        *,
        contents: Contents | None = None,
        journal: Journal | None = None,
        bookmark_s: float = BOOKMARK_S,
    ) -> None:
        """Begin with `contents`, which the journal has; with nothing if None."""
        contents = contents or nothing(clock)
        self._clock = clock
        self._behind = WriteBehind(journal, self._wrote) if journal else None
        self._bookmark_s = bookmark_s
        self._table = contents.table
        self._history = contents.history
        """Of what is written, as far as there is a journal."""
        self._leases = Leases(clock.now_ns(), contents.ttls_ns)
        for lease in self._leases.ids():
            self._time(lease)
        self._closed = False
        self._news = asyncio.Event()

    async def get(self, key: str) -> Entry | None:
        """Return a key's entry, or None if it is not there."""
        check_key(key)
        self._check_open()
        entry = self._table.get(key)
        await self._written()
        return entry

    async def list(self, prefix: str) -> Listing:
        """Return everything under a prefix, which ends in `/`."""
        check_prefix(prefix)
        self._check_open()
        listing = Listing(self._table.under(prefix), self._table.revision)
        await self._written()
        return listing

    async def commit(self, expects: Sequence[Expect], changes: Sequence[Change]) -> int | None:
        """Make all changes in one commit if every condition holds; see `Store`."""
        check_commit(expects, changes)
        self._check_open()
        if self._behind and self._behind.waiting >= UNWRITTEN_COMMITS:
            raise UnavailableError(f"{UNWRITTEN_COMMITS} commits wait to be written: too many")
        holds = self._table.holds(expects)
        lost = [
            change.lease
            for change in changes
            if holds and isinstance(change, Put) and not self._is_alive(change.lease)
        ]
        if holds and not lost:
            self._change(changes)
        revision = self._table.revision
        await self._written()
        if lost:
            raise LeaseLostError(f"lease {lost[0]} has run out: nothing is put under it")
        return revision if holds else None

    async def grant(self, ttl_s: float) -> StoreLeaseId:
        """Return a new lease that runs out `ttl_s` seconds after it was last kept alive."""
        check_ttl(ttl_s)
        self._check_open()
        ttl_ns = round(ttl_s * NS_PER_S)
        lease = self._leases.grant(self._clock.now_ns(), ttl_ns)
        self._time(lease)
        if self._behind:
            self._behind.next().granted[lease] = ttl_ns
        await self._written()
        return lease

    async def keep_alive(self, lease: StoreLeaseId) -> None:
        """Begin a lease's time anew; see `Store`."""
        self._check_open()
        if lease == NO_LEASE or not self._is_alive(lease):
            await self._written()
            raise LeaseLostError(f"lease {lease} has run out: it cannot be kept alive")
        self._leases.keep_alive(self._clock.now_ns(), lease)

    async def revoke(self, lease: StoreLeaseId) -> None:
        """End a lease and all that was put under it; one that is no more is no error."""
        self._check_open()
        self._end(lease)
        await self._written()

    async def watch(self, prefix: str, after: int) -> AsyncGenerator[Committed | Bookmark, None]:
        """Yield what is committed under a prefix after revision `after`; see `Store`."""
        check_prefix(prefix)
        self._check_open()
        if after > self._table.revision:
            raise TooOldError(
                f"revision {after} has not been, {self._table.revision} is the latest: it is "
                "another store's, list again"
            )
        self._history.next(after)
        yield Bookmark(after)
        loop = asyncio.get_running_loop()
        bookmark_at = loop.time() + self._bookmark_s
        while not self._closed:
            # Taken before looking: what comes after the look sets it.
            news = self._news
            committed = self._history.next(after)
            if committed is not None:
                after = committed.revision
                if seen := only_under(prefix, committed):
                    yield seen
                    bookmark_at = loop.time() + self._bookmark_s
                continue
            if self._behind and self._behind.fault:
                raise self._behind.fault
            if loop.time() >= bookmark_at:
                yield Bookmark(after)
                bookmark_at = loop.time() + self._bookmark_s
            try:
                async with asyncio.timeout_at(bookmark_at):
                    await news.wait()
            except TimeoutError:
                continue

    async def close(self) -> None:
        """Write what is left, and let go of the journal; watches end."""
        if self._closed:
            return
        self._closed = True
        self._wake()
        if self._behind:
            await self._behind.close()

    def _check_open(self) -> None:
        if self._closed:
            raise UnavailableError("the store is closed")
        if self._behind and self._behind.fault:
            raise self._behind.fault

    async def _written(self) -> None:
        """Wait until all that was done before this call is written."""
        if self._behind:
            await self._behind.written()

    def _change(self, changes: Sequence[Change]) -> None:
        committed = self._table.commit(changes)
        if committed is None:
            return
        if self._behind:
            self._behind.next().commits.append(committed)
        else:
            self._history.append(committed)
            self._wake()

    def _wrote(self, batch: Batch) -> None:
        for committed in batch.commits:
            self._history.append(committed)
        self._wake()

    def _wake(self) -> None:
        """Let every watch look again."""
        self._news.set()
        self._news = asyncio.Event()

    def _is_alive(self, lease: StoreLeaseId) -> bool:
        """Whether something may be put under a lease; one whose time is up ends now."""
        if lease == NO_LEASE:
            return True
        ends_ns = self._leases.ends_ns(lease)
        if ends_ns is not None and ends_ns <= self._clock.now_ns():
            self._end(lease)
            return False
        return ends_ns is not None

    def _time(self, lease: StoreLeaseId) -> None:
        """Look at a lease again when its time is up, as it is now."""
        ends_ns = self._leases.ends_ns(lease)
        if ends_ns is not None:
            self._clock.call_at(ends_ns, partial(self._time_is_up, lease))

    def _time_is_up(self, lease: StoreLeaseId) -> None:
        if not self._closed and self._is_alive(lease):
            self._time(lease)  # It was kept alive meanwhile.

    def _end(self, lease: StoreLeaseId) -> None:
        if self._leases.ends_ns(lease) is None:
            return
        self._leases.end(lease)
        if self._behind:
            self._behind.next().ended.append(lease)
        self._change([Delete(key) for key in self._table.held(lease)])


def only_under(prefix: str, committed: Committed) -> Committed | None:
    """Return what a commit did under a prefix; None if nothing."""
    changes = tuple(change for change in committed.changes if change.key.startswith(prefix))
    return Committed(committed.revision, changes) if changes else None
