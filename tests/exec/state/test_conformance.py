"""The laws of `inferx.exec.state.store`, held by every kind of store."""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import aclosing
from itertools import chain

import pytest
from beds import BEDS
from stores import Bed, commits, put, take

from inferx.exec.state.limits import COMMIT_BYTES, COMMIT_PARTS, KEY_BYTES, TTL_S_MAX
from inferx.exec.state.store import (
    ABSENT,
    NO_LEASE,
    Bookmark,
    Committed,
    Delete,
    Deleted,
    Entry,
    Expect,
    LeaseLostError,
    Put,
    RefusedError,
    Store,
    StoreLeaseId,
    TooOldError,
    UnavailableError,
)


@pytest.fixture(scope="module", params=BEDS, ids=lambda bed: bed.name)
def bed(request: pytest.FixtureRequest) -> Iterator[Bed]:
    with request.param.up():
        yield request.param


@pytest.fixture
def root() -> str:
    """A prefix of the test's own: a store may hold what others left."""
    return f"/t-{secrets.token_hex(4)}/"


# -- commits and reads ---
async def test_what_is_put_is_read_with_the_revision_of_its_commit(bed: Bed, root: str):
    async with bed.open() as store:
        assert await store.get(f"{root}a") is None
        revision = await put(store, f"{root}a", b"1")
        assert await store.get(f"{root}a") == Entry(f"{root}a", b"1", revision)
        listing = await store.list(root)
        assert listing.entries == (Entry(f"{root}a", b"1", revision),)
        assert listing.revision >= revision


async def test_every_commit_has_a_greater_revision(bed: Bed, root: str):
    async with bed.open() as store:
        revisions = [await put(store, f"{root}a", b"same") for _ in range(5)]
        assert revisions == sorted(set(revisions))


async def test_a_commit_is_all_or_nothing(bed: Bed, root: str):
    async with bed.open() as store:
        first = await put(store, f"{root}a", b"1")
        changes = [Put(f"{root}a", b"2"), Put(f"{root}b", b"2"), Delete(f"{root}c")]
        for wrong in (ABSENT, first + 1):
            assert await store.commit([Expect(f"{root}a", wrong)], changes) is None
        assert await store.commit([Expect(f"{root}x", first)], changes) is None
        assert (await store.list(root)).entries == (Entry(f"{root}a", b"1", first),)
        holding = [Expect(f"{root}a", first), Expect(f"{root}b", ABSENT)]
        second = await store.commit(holding, changes)
        assert second is not None
        assert (await store.list(root)).entries == (
            Entry(f"{root}a", b"2", second),
            Entry(f"{root}b", b"2", second),
        )


async def test_a_deleted_key_is_absent_and_may_come_again(bed: Bed, root: str):
    async with bed.open() as store:
        first = await put(store, f"{root}a", b"1")
        gone = await store.commit([Expect(f"{root}a", first)], [Delete(f"{root}a")])
        assert gone is not None
        assert gone > first
        assert await store.get(f"{root}a") is None
        again = await store.commit([Expect(f"{root}a", ABSENT)], [Put(f"{root}a", b"")])
        assert await store.get(f"{root}a") == Entry(f"{root}a", b"", again or 0)


async def test_a_commit_that_changes_nothing_gives_the_present_revision(bed: Bed, root: str):
    async with bed.open() as store:
        first = await put(store, f"{root}a", b"1")
        assert await store.commit([], []) == first
        assert await store.commit([Expect(f"{root}a", first)], []) == first
        assert await store.commit([Expect(f"{root}a", ABSENT)], []) is None
        assert await store.commit([], [Delete(f"{root}b")]) == first
        assert (await store.list(root)).revision == first


async def test_a_tenant_is_not_answered_for_with_another_of_a_longer_name(bed: Bed, root: str):
    async with bed.open() as store:
        keys = [f"{root}{tenant}/x" for tenant in ("t1", "t10", "t1-", "t1.", "t10/a", "s9", "t2")]
        for key in keys:
            await put(store, key, key.encode())
        after = (await store.list(root)).revision
        assert [entry.key for entry in (await store.list(f"{root}t1/")).entries] == [keys[0]]
        assert [entry.key for entry in (await store.list(root)).entries] == sorted(keys)
        for key in keys:
            await store.commit([], [Delete(key)])
        last = await put(store, f"{root}t1/y", b"")
        seen = await commits(store, f"{root}t1/", after, last)
        assert [change.key for each in seen for change in each.changes] == [
            f"{root}t1/x",
            f"{root}t1/y",
        ]


async def test_keys_are_listed_by_their_bytes(bed: Bed, root: str):
    async with bed.open() as store:
        keys = [
            f"{root}{name}" for name in ("a", "é", "z", "Z", "~", "\U0001f600", "\uffee", "a/b")
        ]
        await store.commit([], [Put(key, b"") for key in keys])
        listed = [entry.key for entry in (await store.list(root)).entries]
        assert listed == sorted(keys, key=str.encode)


async def test_any_bytes_are_a_value(bed: Bed, root: str):
    async with bed.open() as store:
        value = bytes(range(256))
        await put(store, f"{root}a", value)
        entry = await store.get(f"{root}a")
        assert entry is not None
        assert entry.value == value


# -- what is refused ---
async def refused(store: Store, changes: list[Put | Delete], *expects: Expect) -> str:
    with pytest.raises(RefusedError) as caught:
        await store.commit(expects, changes)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("key", ["", "/", "a/", "a\0b", "a\nb", "\ud800", "k" * (KEY_BYTES + 1)])
async def test_what_is_no_key_is_refused(bed: Bed, key: str):
    async with bed.open() as store:
        await refused(store, [Put(key, b"")])
        await refused(store, [Delete(key)])
        await refused(store, [], Expect(key, ABSENT))
        with pytest.raises(RefusedError, match="key"):
            await store.get(key)


@pytest.mark.parametrize("prefix", ["", "t1", "a\0/", "k" * KEY_BYTES + "/"])
async def test_what_is_no_prefix_is_refused(bed: Bed, prefix: str):
    async with bed.open() as store:
        with pytest.raises(RefusedError, match="ends in /"):
            await store.list(prefix)
        with pytest.raises(RefusedError, match="ends in /"):
            await anext(store.watch(prefix, 0))


async def test_a_key_is_changed_once_in_a_commit(bed: Bed, root: str):
    async with bed.open() as store:
        for twice in ([Put(f"{root}a", b"1"), Delete(f"{root}a")], [Delete(f"{root}a")] * 2):
            assert "twice" in await refused(store, twice)
        assert (await store.list(root)).entries == ()


async def test_a_commit_has_a_largest_size_and_takes_it(bed: Bed, root: str):
    async with bed.open() as store:
        keys = [f"{root}{number:03}".ljust(60, "k") for number in range(COMMIT_PARTS)]
        room = COMMIT_BYTES - sum(len(key) for key in keys) * 2
        values = [b"x" * (room - COMMIT_PARTS + 1), *[b"y"] * (COMMIT_PARTS - 1)]
        changes = [Put(key, value) for key, value in zip(keys, values, strict=True)]
        expects = [Expect(key, ABSENT) for key in keys]
        after = (await store.list(root)).revision
        revision = await store.commit(expects, changes)
        assert revision is not None
        assert [each.value for each in (await store.list(root)).entries] == values
        [seen] = await commits(store, root, after, revision)
        assert len(seen.changes) == COMMIT_PARTS
        changes[0] = Put(keys[0], values[0] + b"x")
        assert str(COMMIT_BYTES) in await refused(store, changes, *expects)
        more = [Put(f"{root}{number}", b"") for number in range(COMMIT_PARTS + 1)]
        assert str(COMMIT_PARTS) in await refused(store, more)
        assert (await store.list(root)).revision == revision


async def test_a_long_listing_is_of_one_revision(bed: Bed, root: str):
    async with bed.open() as store:
        for page in range(4):
            large = [Put(f"{root}{page}/{number:03}", b"v" * 10_000) for number in range(128)]
            await store.commit([], large)
        stop = asyncio.Event()

        async def churn() -> None:
            """Keep one invariant: all keys under n/ were modified at one revision."""
            keys = [f"{root}{page}/{number:03}" for page in range(4) for number in (0, 127)]
            while not stop.is_set():
                await store.commit([], [Put(key, b"") for key in keys])

        task = asyncio.create_task(churn())
        for _ in range(5):
            listing = await store.list(root)
            assert len(listing.entries) == 512
            ends = {each.modified for each in listing.entries if each.key[-3:] in {"000", "127"}}
            assert len(ends) <= 1 or max(ends) <= listing.revision
            assert max(each.modified for each in listing.entries) <= listing.revision
            changed = {each.modified for each in listing.entries if each.value == b""}
            assert len(changed) <= 1
        stop.set()
        await task


# -- concurrent writers ---
async def test_no_update_is_lost_among_concurrent_writers(bed: Bed, root: str):
    async with bed.open() as store:
        key = f"{root}count"

        async def add() -> None:
            while True:
                entry = await store.get(key)
                count = int(entry.value) if entry else 0
                expect = Expect(key, entry.modified if entry else ABSENT)
                if await store.commit([expect], [Put(key, str(count + 1).encode())]):
                    return

        await asyncio.gather(*(add() for _ in range(25)))
        entry = await store.get(key)
        assert entry is not None
        assert int(entry.value) == 25


async def test_what_was_committed_is_seen_by_every_later_read(bed: Bed, root: str):
    async with bed.open() as store:

        async def write_and_read(number: int) -> None:
            for turn in range(10):
                revision = await put(store, f"{root}{number}", str(turn).encode())
                entry = await store.get(f"{root}{number}")
                assert entry == Entry(f"{root}{number}", str(turn).encode(), revision)
                listing = await store.list(root)
                assert entry in listing.entries
                assert listing.revision >= revision

        await asyncio.gather(*(write_and_read(number) for number in range(5)))


# -- watches ---
async def test_a_watch_begins_with_a_bookmark_and_goes_on_from_its_place(bed: Bed, root: str):
    async with bed.open() as store:
        after = await put(store, f"{root}a", b"0")
        before = await put(store, f"{root}a", b"1")
        async with aclosing(store.watch(root, after)) as watch:
            assert await anext(watch) == Bookmark(after)
            assert await anext(watch) == Committed(before, (Entry(f"{root}a", b"1", before),))
            await put(store, "/elsewhere/x", b"")
            gone = await store.commit([], [Put(f"{root}b", b"2"), Delete(f"{root}a")])
            [seen] = await take(watch, 1)
            assert gone is not None
            assert seen == Committed(gone, (Deleted(f"{root}a"), Entry(f"{root}b", b"2", gone)))


async def test_a_silent_watch_says_up_to_where_it_is_complete(bed: Bed, root: str):
    async with bed.open() as store:
        after = (await store.list(root)).revision
        async with aclosing(store.watch(root, after)) as watch:
            await anext(watch)
            elsewhere = await put(store, "/elsewhere/x", b"")
            async for item in watch:
                assert isinstance(item, Bookmark)
                if item.revision >= elsewhere:
                    break


async def test_a_bookmark_never_comes_before_what_it_covers(bed: Bed, root: str):
    async with bed.open() as store:
        after = (await store.list(root)).revision
        done: list[int] = []

        async def write() -> None:
            for number in range(40):
                done.append(await put(store, f"{root}{number}", b""))
                if number % 4 == 0:
                    await asyncio.sleep(0.03)

        writing = asyncio.create_task(write())
        seen: list[int] = []
        async with aclosing(store.watch(root, after)) as watch:
            async for item in watch:
                if isinstance(item, Committed):
                    seen.append(item.revision)
                else:
                    assert {each for each in done if each <= item.revision} <= set(seen)
                if len(seen) == 40:
                    break
        await writing
        assert seen == done


async def test_watches_under_concurrent_writers_give_the_same_in_the_same_order(
    bed: Bed, root: str
):
    async with bed.open() as store:
        after = (await store.list(root)).revision
        writers, turns = 6, 8

        async def write(number: int) -> list[int]:
            revisions = []
            for turn in range(turns):
                keys = [f"{root}{number}", f"{root}shared"]
                revision = await store.commit([], [Put(key, bytes([turn])) for key in keys])
                revisions.append(revision)
            return revisions

        async def read() -> list[Committed]:
            async with aclosing(store.watch(root, after)) as watch:
                return await take(watch, writers * turns)

        reading = [asyncio.create_task(read()) for _ in range(4)]
        written = await asyncio.gather(*(write(number) for number in range(writers)))
        late = asyncio.create_task(read())
        seen = [await task for task in (*reading, late)]
        assert all(each == seen[0] for each in seen)
        assert [each.revision for each in seen[0]] == sorted(chain(*written))
        assert all(len(each.changes) == 2 for each in seen[0])


async def test_a_watch_of_what_is_no_longer_kept_says_so(bed: Bed, root: str):
    async with bed.open() as store:
        after = await put(store, f"{root}a", b"1")
        await put(store, f"{root}a", b"2")
        await bed.forget(store)
        with pytest.raises(TooOldError, match="list again"):
            async with aclosing(store.watch(root, after)) as watch:
                await take(watch, 2)
        listing = await store.list(root)
        async with aclosing(store.watch(root, listing.revision)) as watch:
            assert await anext(watch) == Bookmark(listing.revision)
            revision = await put(store, f"{root}a", b"3")
            assert [each.revision for each in await take(watch, 1)] == [revision]


async def test_a_revision_that_has_not_been_is_another_stores(bed: Bed, root: str):
    async with bed.open() as store:
        listing = await store.list(root)
        with pytest.raises(TooOldError, match="list again"):
            async with aclosing(store.watch(root, listing.revision + 1_000)) as watch:
                await take(watch, 1)


async def test_watches_end_when_the_store_is_closed(bed: Bed, root: str):
    async with bed.open() as store:
        after = (await store.list(root)).revision

        async def read() -> int:
            return len([item async for item in store.watch(root, after)])

        reading = [asyncio.create_task(read()) for _ in range(3)]
        await asyncio.sleep(0.05)
        await store.close()
        assert min(await asyncio.gather(*reading)) >= 1
        await store.close()
        for call in (store.get(f"{root}a"), store.list(root), store.commit([], []), store.grant(1)):
            with pytest.raises(UnavailableError, match="closed"):
                await call
        with pytest.raises(UnavailableError, match="closed"):
            await anext(store.watch(root, after))


# -- leases ---
async def test_what_is_under_a_lease_goes_in_one_commit_when_it_runs_out(bed: Bed, root: str):
    async with bed.open() as store:
        lease = await store.grant(bed.ttl_s)
        changes = [Put(f"{root}{key}", b"", lease) for key in "ba"]
        put_at = await store.commit([], [*changes, Put(f"{root}stays", b"")])
        assert put_at is not None
        entry = await store.get(f"{root}a")
        assert entry == Entry(f"{root}a", b"", put_at, lease)
        async with aclosing(store.watch(root, put_at)) as watch:
            [seen] = await take(watch, 1)
        assert seen.changes == (Deleted(f"{root}a"), Deleted(f"{root}b"))
        assert seen.revision > put_at
        assert [each.key for each in (await store.list(root)).entries] == [f"{root}stays"]
        with pytest.raises(LeaseLostError):
            await store.keep_alive(lease)


async def test_a_lease_that_is_kept_alive_does_not_run_out(bed: Bed, root: str):
    async with bed.open() as store:
        lease = await store.grant(bed.ttl_s)
        await store.commit([], [Put(f"{root}a", b"", lease)])
        loop = asyncio.get_running_loop()
        end = loop.time() + bed.ttl_s * 2.5
        while loop.time() < end:
            await store.keep_alive(lease)
            await asyncio.sleep(bed.ttl_s / 10)
        assert await store.get(f"{root}a") is not None
        await store.revoke(lease)
        assert await store.get(f"{root}a") is None
        await store.revoke(lease)


async def test_a_key_follows_the_lease_of_its_last_put(bed: Bed, root: str):
    async with bed.open() as store:
        short, long = [await store.grant(60.0) for _ in range(2)]
        names = ("freed", "moved", "again", "kept")
        await store.commit([], [Put(f"{root}{name}", b"", short) for name in names])
        await store.commit([], [Put(f"{root}freed", b""), Put(f"{root}moved", b"", long)])
        await store.commit([], [Delete(f"{root}again")])
        await put(store, f"{root}again", b"")
        await store.revoke(short)
        keys = [(each.key, each.lease) for each in (await store.list(root)).entries]
        assert keys == [
            (f"{root}again", NO_LEASE),
            (f"{root}freed", NO_LEASE),
            (f"{root}moved", long),
        ]
        await store.revoke(long)
        assert await store.get(f"{root}moved") is None


async def test_nothing_is_put_under_a_lease_that_is_no_more(bed: Bed, root: str):
    async with bed.open() as store:
        lease = await store.grant(60.0)
        await store.revoke(lease)
        for lost in (lease, StoreLeaseId(12_345)):
            changes = [Put(f"{root}a", b""), Put(f"{root}b", b"", lost)]
            with pytest.raises(LeaseLostError, match=str(lost)):
                await store.commit([], changes)
            # Conditions come first: this commit is refused by them.
            assert await store.commit([Expect(f"{root}a", 7)], changes) is None
            with pytest.raises(LeaseLostError, match=str(lost)):
                await store.keep_alive(lost)
        assert (await store.list(root)).entries == ()
        with pytest.raises(LeaseLostError):
            await store.keep_alive(NO_LEASE)
        await store.revoke(NO_LEASE)


@pytest.mark.parametrize("ttl_s", [0.0, -1.0, float("nan"), float("inf"), TTL_S_MAX + 1])
async def test_a_lease_that_never_runs_out_is_refused(bed: Bed, ttl_s: float):
    async with bed.open() as store:
        with pytest.raises(RefusedError, match="lease"):
            await store.grant(ttl_s)


async def test_a_lease_without_keys_makes_no_commit_when_it_ends(bed: Bed, root: str):
    async with bed.open() as store:
        revision = (await store.list(root)).revision
        await store.revoke(await store.grant(60.0))
        assert (await store.list(root)).revision == revision
