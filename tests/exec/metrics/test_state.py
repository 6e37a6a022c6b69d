"""What a state service counts; that counting changes nothing, the conformance suite shows."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from stores import put

from inferx.exec.clock import WallClock
from inferx.exec.metrics.exposition import exposition
from inferx.exec.metrics.state import CountedStore, StateSource
from inferx.exec.state.memory import MemoryStore
from inferx.exec.state.store import ABSENT, Expect, LeaseLostError, Put, RefusedError, TooOldError


def run(work: Callable[[CountedStore], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await work(CountedStore(MemoryStore(WallClock(), bookmark_s=0.05)))

    asyncio.run(main())


def test_transactions_are_counted_by_how_they_end() -> None:
    async def work(store: CountedStore) -> None:
        first = await put(store, "/a/1", b"1")
        assert await store.commit([Expect("/a/1", ABSENT)], [Put("/a/1", b"2")]) is None
        lease = await store.grant(1)
        await store.revoke(lease)
        with pytest.raises(LeaseLostError):
            await store.commit([], [Put("/a/2", b"", lease)])
        with pytest.raises(RefusedError):
            await store.commit([], [Put("/a/1", b""), Put("/a/1", b"")])
        assert store.transactions == {
            "committed": 1,
            "conflict": 1,
            "lease lost": 1,
            "refused": 1,
            "unavailable": 0,
        }
        assert sum(store.seconds.counts) == 4
        assert store.revision >= first
        await store.close()

    run(work)


def test_calls_are_counted_and_so_is_why_they_fail() -> None:
    async def work(store: CountedStore) -> None:
        await store.get("/a/1")
        await store.list("/a/")
        with pytest.raises(RefusedError):
            await store.get("/a/")
        lease = await store.grant(1)
        await store.keep_alive(lease)
        await store.revoke(lease)
        with pytest.raises(LeaseLostError):
            await store.keep_alive(lease)
        with pytest.raises(TooOldError):
            await anext(store.watch("/a/", 1 << 62))
        assert store.calls == {
            "get": 2,
            "list": 1,
            "grant": 1,
            "keep_alive": 2,
            "revoke": 1,
            "watch": 1,
        }
        assert dict(store.failed) == {
            ("get", "refused"): 1,
            ("keep_alive", "lease lost"): 1,
            ("watch", "too old"): 1,
        }
        assert store.watchers == 0
        await store.close()

    run(work)


def test_a_watch_stands_until_it_is_closed() -> None:
    async def work(store: CountedStore) -> None:
        listing = await store.list("/a/")
        watch = store.watch("/a/", listing.revision)
        assert store.watchers == 0
        await anext(watch)
        assert store.watchers == 1
        await put(store, "/a/1", b"1")
        while not store.watched:
            await anext(watch)
        text = (await exposition([StateSource(store)])).decode()
        assert "inferx_state_watchers 1\n" in text
        assert "inferx_state_watched_commits_total 1\n" in text
        await watch.aclose()
        assert store.watchers == 0
        await store.close()

    run(work)
