"""What a state service counts: a store that counts what is asked of the store within."""

import time
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Sequence
from contextlib import aclosing, contextmanager
from typing import Final

from inferx.exec.metrics.families import Family, Piece
from inferx.exec.metrics.histogram import QUICK_S, Histogram
from inferx.exec.state.store import (
    Bookmark,
    Change,
    Committed,
    Entry,
    Expect,
    LeaseLostError,
    Listing,
    RefusedError,
    Store,
    StoreError,
    StoreLeaseId,
    TooOldError,
)

__all__ = ["FAMILIES", "CountedStore", "StateSource"]

CALLS: Final = ("get", "list", "grant", "keep_alive", "revoke", "watch")
COMMITTED: Final = "committed"
CONFLICT: Final = "conflict"
OUTCOMES: Final = (COMMITTED, CONFLICT, "refused", "lease lost", "unavailable")

TRANSACTIONS: Final = Family(
    "inferx_state_transactions", "counter", "Transactions by how they ended.", ("outcome",)
)
SECONDS: Final = Family(
    "inferx_state_transaction_seconds",
    "histogram",
    "How long transactions took, whatever came of them.",
)
ASKED: Final = Family("inferx_state_calls", "counter", "Other calls.", ("call",))
FAILED: Final = Family(
    "inferx_state_failed_calls", "counter", "Those of them that failed, by why.", ("call", "reason")
)
WATCHERS: Final = Family("inferx_state_watchers", "gauge", "Watches that stand.")
WATCHED: Final = Family("inferx_state_watched_commits", "counter", "Commits told to watches.")
REVISION: Final = Family(
    "inferx_state_revision", "gauge", "The latest revision that was seen here; it only grows."
)
FAMILIES: Final = (TRANSACTIONS, SECONDS, ASKED, FAILED, WATCHERS, WATCHED, REVISION)


class CountedStore:
    """A store; see `Store`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.transactions: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
        self.seconds = Histogram(QUICK_S)
        self.calls: dict[str, int] = dict.fromkeys(CALLS, 0)
        self.failed: dict[tuple[str, str], int] = defaultdict(int)
        self.watchers = self.watched = self.revision = 0

    async def get(self, key: str) -> Entry | None:
        """Return a key's entry, or None if it is not there."""
        with self._counted("get"):
            return await self._store.get(key)

    async def list(self, prefix: str) -> Listing:
        """Return everything under a prefix, which ends in `/`."""
        with self._counted("list"):
            listing = await self._store.list(prefix)
            self._seen(listing.revision)
            return listing

    async def commit(self, expects: Sequence[Expect], changes: Sequence[Change]) -> int | None:
        """Make all changes in one commit if every condition holds."""
        began_s = time.monotonic()
        # Whoever gives up on it is not told what became of it.
        outcome = "unavailable"
        try:
            revision = await self._store.commit(expects, changes)
            outcome = CONFLICT if revision is None else COMMITTED
            self._seen(revision or 0)
        except StoreError as error:
            outcome = _reason(error)
            raise
        finally:
            self.transactions[outcome] += 1
            self.seconds.observe(time.monotonic() - began_s)
        return revision

    async def grant(self, ttl_s: float) -> StoreLeaseId:
        """Return a new lease."""
        with self._counted("grant"):
            return await self._store.grant(ttl_s)

    async def keep_alive(self, lease: StoreLeaseId) -> None:
        """Begin a lease's time anew."""
        with self._counted("keep_alive"):
            await self._store.keep_alive(lease)

    async def revoke(self, lease: StoreLeaseId) -> None:
        """End a lease and all that was put under it."""
        with self._counted("revoke"):
            await self._store.revoke(lease)

    async def watch(self, prefix: str, after: int) -> AsyncGenerator[Committed | Bookmark, None]:
        """Yield what is committed under a prefix after a revision, until closed."""
        self.watchers += 1
        try:
            with self._counted("watch"):
                async with aclosing(self._store.watch(prefix, after)) as watch:
                    async for item in watch:
                        self.watched += isinstance(item, Committed)
                        self._seen(item.revision)
                        yield item
        finally:
            self.watchers -= 1

    async def close(self) -> None:
        """Let go of connections and files; watches end."""
        await self._store.close()

    def _seen(self, revision: int) -> None:
        self.revision = max(self.revision, revision)

    @contextmanager
    def _counted(self, call: str) -> Generator[None]:
        self.calls[call] += 1
        try:
            yield
        except StoreError as error:
            self.failed[call, _reason(error)] += 1
            raise


def _reason(error: StoreError) -> str:
    match error:
        case RefusedError():
            return "refused"
        case LeaseLostError():
            return "lease lost"
        case TooOldError():
            return "too old"
        case _:
            return "unavailable"


class StateSource:
    """Tells what a store counted."""

    def __init__(self, store: CountedStore) -> None:
        self._store = store

    async def pieces(self) -> AsyncIterator[Piece]:
        """See `MetricSource`."""
        store = self._store
        yield TRANSACTIONS.of(((outcome,), count) for outcome, count in store.transactions.items())
        yield SECONDS.spread((((), store.seconds),))
        yield ASKED.of(((call,), count) for call, count in store.calls.items())
        yield FAILED.of(sorted(store.failed.items()))
        yield WATCHERS.one(store.watchers)
        yield WATCHED.one(store.watched)
        yield REVISION.one(store.revision)
