"""Every kind of store there is, for the conformance suite."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from stores import Bed, put

from inferx.exec.clock import WallClock
from inferx.exec.state.history import History
from inferx.exec.state.memory import Contents, MemoryStore
from inferx.exec.state.store import Store
from inferx.exec.state.table import Table

__all__ = ["BEDS"]

HISTORY = 64
BOOKMARK_S = 0.1


class MemoryBed:
    name = "memory"
    ttl_s = 0.1

    @contextmanager
    def up(self) -> Iterator[None]:
        yield

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Store]:
        contents = Contents(Table(0), History(0, most=HISTORY))
        store = MemoryStore(WallClock(), contents=contents, bookmark_s=BOOKMARK_S)
        try:
            yield store
        finally:
            await store.close()

    async def forget(self, store: Store) -> None:
        await fill_history(store)


async def fill_history(store: Store) -> None:
    for _ in range(HISTORY):
        await put(store, "/elsewhere/filler", b"")


BEDS: list[Bed] = [MemoryBed()]
