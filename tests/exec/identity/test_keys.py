"""API keys: made, kept, looked up, revoked, and everything that opens nothing."""

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hand_clock import HandClock
from hypothesis import example, given
from hypothesis import strategies as st

from inferx.core.units import NS_PER_S
from inferx.exec.clock import Clock, WallClock
from inferx.exec.identity.authenticator import CREDENTIALS_LIMIT, Authenticator
from inferx.exec.identity.bootstrap import BootstrapError, bootstrap_admin_key
from inferx.exec.identity.key_cache import KeyCache
from inferx.exec.identity.key_desk import KeyDesk, KeyRequest, KeyRequestError
from inferx.exec.identity.keys import (
    PREFIX,
    KeyRecord,
    Secret,
    digest_of,
    id_at,
    make_secret,
    read_record,
    store_key,
    verify,
    write_record,
)
from inferx.exec.identity.limits import Limits
from inferx.exec.identity.principal import (
    ANONYMOUS,
    EVERY,
    Denied,
    Grant,
    Level,
    Principal,
)
from inferx.exec.identity.rights import Allowed, authorize
from inferx.exec.state.memory import MemoryStore
from inferx.exec.state.store import Delete, Entry, Put, Store

ROOT = Principal("root", (Grant(Level.FULL, EVERY, EVERY),))
REQUEST = KeyRequest(tenant="t1", namespace="n", level="full", label="a key")


def go(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 30))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def a_record(secret: Secret, **changes: Any) -> KeyRecord:
    record = KeyRecord(
        id=secret.id,
        sha256=digest_of(secret.token),
        tenant="t1",
        namespace="n",
        level="full",
        label="",
        issuer="test",
        issued_ns=0,
    )
    return msgspec.structs.replace(record, **changes)


@asynccontextmanager
async def following(
    store: Store, clock: Clock | None = None, *, stale_s: float = 15.0
) -> AsyncGenerator[KeyCache]:
    cache = KeyCache(store, clock or WallClock(), stale_s=stale_s)
    task = asyncio.create_task(cache.run())
    try:
        await cache.wait_listed()
        yield cache
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def soon(condition: Any, *, within_s: float) -> float:
    began_s = time.perf_counter()
    while not condition():
        assert time.perf_counter() < began_s + within_s, f"not so within {within_s} s"
        await asyncio.sleep(0.001)
    return time.perf_counter() - began_s


async def issued(store: Store, request: KeyRequest = REQUEST) -> Secret:
    secret = await KeyDesk(store, WallClock()).issue(ROOT, request)
    assert isinstance(secret, Secret)
    return secret


# -- What a key is ---
def test_a_key_has_256_bits_and_is_no_other_key():
    secrets = [make_secret() for _ in range(100)]
    assert len({one.token[20:] for one in secrets}) == 100
    assert all(len(bytes.fromhex(one.token[20:])) == 32 for one in secrets)
    assert all(id_at(one.token) == one.id for one in secrets)


def test_a_key_does_not_show_itself():
    secret = make_secret()
    assert secret.token not in f"{secret!r} {secret} {[secret]}"


@given(st.text(max_size=100) | st.from_regex(r"ix_[0-9a-f]{15,17}_[0-9a-f]{63,65}\n?"))
def test_only_what_reads_exactly_like_a_key_is_one(token: str):
    if (key_id := id_at(token)) is not None:
        assert len(token) == 84
        assert token.startswith(f"ix_{key_id}_")


def test_a_record_says_nothing_that_opens_anything():
    secret = make_secret()
    assert secret.token[20:].encode() not in write_record(a_record(secret))


def test_a_key_of_another_id_does_not_pass_by_its_hash():
    one, two = make_secret(), make_secret()
    moved = a_record(one, sha256=digest_of(two.token))
    assert verify(moved, one.token, 0) == Denied("unknown key")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"expires_ns": 1_000}, "expired"),
        ({"revoked_ns": 0}, "revoked"),
        ({"revoked_ns": 5_000}, "revoked"),
    ],
)
def test_a_key_that_has_ended_says_so_to_its_holder_alone(changes: dict[str, int], reason: str):
    secret = make_secret()
    record = a_record(secret, **changes)
    denied = verify(record, secret.token, 1_000)
    assert denied is not None
    assert denied.reason == reason
    guess = f"ix_{secret.id}_{'0' * 64}"
    assert verify(record, guess, 1_000) == Denied("unknown key")


# -- Records that are not what they should be ---
WRONG: list[dict[str, Any]] = [
    {"level": "super"},
    {"level": 3},
    {"level": None},
    {"tenant": ""},
    {"tenant": EVERY},
    {"tenant": "system"},
    {"tenant": "t2"},
    {"namespace": ""},
    {"namespace": EVERY},
    {"namespace": "a/b"},
    {"sha256": "00"},
    {"sha256": "Z" * 64},
    {"id": "f" * 16},
    {"expires_ns": "tomorrow"},
    {"only_from": "10.0.0.0/8"},
    {"limits": {"concurrent": 0}},
    {"limits": {"request": None}},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_record_that_is_not_as_it_should_be_opens_nothing(wrong: dict[str, Any]):
    async def work() -> None:
        store = MemoryStore(WallClock())
        secret = make_secret()
        record = a_record(secret)
        key = store_key(record)
        assert read_record(key, write_record(record)) == record
        value = msgspec.json.encode({**msgspec.to_builtins(record), **wrong})
        await store.commit([], [Put(key, value)])
        async with following(store) as cache:
            assert cache.look_up(secret.token) == Denied("malformed record")
            assert cache.malformed == 1
            await store.commit([], [Put(key, write_record(record))])
            await soon(lambda: cache.malformed == 0, within_s=1)
            assert isinstance(cache.look_up(secret.token), Principal)

    go(work())


@given(st.binary(max_size=60))
@example(b'{"\x80":1}')
def test_no_bytes_at_all_are_a_record_by_chance(value: bytes):
    assert read_record(f"{PREFIX}t/n/{'0' * 16}", value) is None


# -- Looking up ---
def test_an_issued_key_opens_its_namespace_and_no_other():
    async def work() -> None:
        store = MemoryStore(WallClock())
        secret = await issued(store)
        async with following(store) as cache:
            who = await Authenticator(cache).authenticate(bearer(secret.token))
            assert isinstance(who, Principal)
            assert who.name == f"key:{secret.id}"
            assert isinstance(authorize(who, "write", "t1", "n", "function"), Allowed)
            assert isinstance(authorize(who, "write", "t1", "m", "function"), Denied)
            assert isinstance(authorize(who, "write", "t10", "n", "function"), Denied)
            for scheme in ("Digest ", "Bearer:", "ix_key "):
                headers = {"Authorization": f"{scheme}{secret.token}"}
                denied = await Authenticator(cache).authenticate(headers)
                assert denied == Denied("malformed credentials")

    go(work())


def test_a_key_brings_its_own_limits():
    async def work() -> None:
        store = MemoryStore(WallClock())
        request = msgspec.structs.replace(REQUEST, limits=Limits(concurrent=3))
        secret = await issued(store, request)
        async with following(store) as cache:
            who = cache.look_up(secret.token)
            assert isinstance(who, Principal)
            assert who.limits == Limits(concurrent=3)

    go(work())


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("", "malformed credentials"),
        ("Bearer", "malformed credentials"),
        ("Bearer ", "malformed credentials"),
        ("Basic YTpi", "malformed credentials"),
        ("Bearer ix_", "malformed credentials"),
        ("Bearer nothing", "malformed credentials"),
        (f"Bearer ix_{'0' * 16}_{'0' * 64}", "unknown key"),
        ("Bearer " + "x" * CREDENTIALS_LIMIT, "malformed credentials"),
    ],
)
def test_bad_credentials_are_refused_and_never_anonymous(header: str, reason: str):
    async def work() -> None:
        async with following(MemoryStore(WallClock())) as cache:
            authenticator = Authenticator(cache, public=("public",))
            who = await authenticator.authenticate({"Authorization": header})
            assert isinstance(who, Denied)
            assert (who.reason, who.kind) == (reason, "unauthenticated")

    go(work())


def test_a_public_tenant_is_everybodys_to_call_only_where_an_operator_says_so():
    async def work() -> None:
        store = MemoryStore(WallClock())
        secret = await issued(store)
        async with following(store) as cache:
            closed = Authenticator(cache)
            assert await closed.authenticate({}) == ANONYMOUS
            opened = Authenticator(cache, public=("public",))
            for headers in ({}, bearer(secret.token)):
                who = await opened.authenticate(headers)
                assert isinstance(who, Principal)
                assert isinstance(authorize(who, "invoke", "public", "n", "function"), Allowed)
                assert isinstance(authorize(who, "read", "public", "n", "function"), Denied)

    go(work())


def test_a_key_runs_out_on_the_nanosecond():
    async def work() -> None:
        clock = HandClock()
        store = MemoryStore(clock)
        clock.advance(1)
        request = msgspec.structs.replace(REQUEST, expires_ns=2 * NS_PER_S)
        secret = await KeyDesk(store, clock).issue(ROOT, request)
        assert isinstance(secret, Secret)
        async with following(store, clock) as cache:
            assert isinstance(cache.look_up(secret.token), Principal)
            clock.advance(1)
            assert cache.look_up(secret.token) == Denied("expired")

    go(work())


# -- The watch ---
def test_a_revoked_key_opens_nothing_within_a_second_everywhere():
    async def work() -> None:
        store = MemoryStore(WallClock())
        secret = await issued(store)
        desk = KeyDesk(store, WallClock())
        async with following(store) as one, following(store) as two:
            caches = (one, two)
            assert all(isinstance(each.look_up(secret.token), Principal) for each in caches)
            await desk.revoke(ROOT, "t1", "n", secret.id)
            revoked = Denied("revoked")
            await soon(
                lambda: all(each.look_up(secret.token) == revoked for each in caches), within_s=1
            )

    go(work())


def test_a_key_that_is_issued_or_deleted_is_so_within_a_second():
    async def work() -> None:
        store = MemoryStore(WallClock())
        async with following(store) as cache:
            secret = await issued(store)
            await soon(lambda: isinstance(cache.look_up(secret.token), Principal), within_s=1)
            await store.commit([], [Delete(f"{PREFIX}t1/n/{secret.id}")])
            unknown = Denied("unknown key")
            await soon(lambda: cache.look_up(secret.token) == unknown, within_s=1)
            assert len(cache) == 0

    go(work())


def test_what_lies_elsewhere_under_a_keys_id_is_not_the_key():
    async def work() -> None:
        store = MemoryStore(WallClock())
        secret = await issued(store)
        key = f"{PREFIX}t1/n/{secret.id}"
        stray = f"{PREFIX}t2/n/{secret.id}"
        entry = await store.get(key)
        assert entry is not None
        async with following(store) as cache:
            await store.commit([], [Put(stray, entry.value)])
            await soon(lambda: cache.malformed == 1, within_s=1)
            assert cache.look_up(secret.token) == Denied("malformed record")
            await store.commit([], [Put(key, entry.value)])
            await soon(lambda: cache.malformed == 0, within_s=1)
            other = await issued(store)
            await soon(lambda: isinstance(cache.look_up(other.token), Principal), within_s=1)
            await store.commit([], [Delete(stray), Delete(f"{PREFIX}t1/n/{other.id}")])
            await soon(lambda: cache.look_up(other.token) == Denied("unknown key"), within_s=1)
            assert isinstance(cache.look_up(secret.token), Principal)

    go(work())


def test_a_copy_that_hears_nothing_opens_nothing():
    async def work() -> None:
        # A store that tells nothing for an hour, as one behind a network that went away.
        store = MemoryStore(WallClock(), bookmark_s=3600)
        secret = await issued(store)
        async with following(store, stale_s=0.3) as cache:
            assert isinstance(cache.look_up(secret.token), Principal)
            await soon(
                lambda: cache.look_up(secret.token) == Denied("keys unavailable"), within_s=2
            )
            assert Denied("keys unavailable").kind == "unavailable"
            # It asks again by itself, and is answered.
            await soon(lambda: isinstance(cache.look_up(secret.token), Principal), within_s=5)

    go(work())


def test_a_copy_whose_store_is_gone_fails_closed_and_not_before_its_bound():
    async def work() -> None:
        store = MemoryStore(WallClock())
        secret = await issued(store)
        async with following(store, stale_s=0.5) as cache:
            await store.close()
            await asyncio.sleep(0.1)
            assert isinstance(cache.look_up(secret.token), Principal)
            waited_s = await soon(
                lambda: cache.look_up(secret.token) == Denied("keys unavailable"), within_s=2
            )
            assert waited_s < 0.6

    go(work())


def test_a_copy_that_does_not_run_yet_opens_nothing():
    async def work() -> None:
        store = MemoryStore(WallClock())
        secret = await issued(store)
        assert KeyCache(store, WallClock()).look_up(secret.token) == Denied("keys unavailable")

    go(work())


# -- Issuing ---
def test_nobody_issues_more_than_they_have():
    async def work() -> None:
        store = MemoryStore(WallClock())
        desk = KeyDesk(store, WallClock())
        tenant_admin = Principal("a", (Grant(Level.FULL, "t1", EVERY),))
        space_admin = Principal("b", (Grant(Level.FULL, "t1", "n"),))
        reader = Principal("c", (Grant(Level.READ, EVERY, EVERY),))
        asked = {
            (tenant, namespace): msgspec.structs.replace(
                REQUEST, tenant=tenant, namespace=namespace
            )
            for tenant, namespace in (("t1", "n"), ("t1", EVERY), ("t10", "n"), (EVERY, EVERY))
        }

        async def may(who: Principal) -> list[tuple[str, str]]:
            answers = {scope: await desk.issue(who, one) for scope, one in asked.items()}
            return [scope for scope, answer in answers.items() if isinstance(answer, Secret)]

        assert await may(ROOT) == list(asked)
        assert await may(tenant_admin) == [("t1", "n"), ("t1", EVERY)]
        assert await may(space_admin) == [("t1", "n")]
        assert await may(reader) == await may(ANONYMOUS) == []

    go(work())


def test_keys_are_listed_and_revoked_by_those_who_may():
    async def work() -> None:
        store = MemoryStore(WallClock())
        desk = KeyDesk(store, WallClock())
        secret = await issued(store)
        await issued(store, msgspec.structs.replace(REQUEST, tenant="t10"))
        other = Principal("b", (Grant(Level.FULL, "t10", EVERY),))
        assert await desk.revoke(other, "t1", "n", secret.id) == Denied("no right")
        assert await desk.records(other, "t1") == Denied("no right")
        records = await desk.records(ROOT, "t1")
        assert isinstance(records, tuple)
        assert [record.id for record in records] == [secret.id]
        first = await desk.revoke(ROOT, "t1", "n", secret.id)
        assert isinstance(first, KeyRecord)
        assert await desk.revoke(ROOT, "t1", "n", secret.id) == first
        with pytest.raises(KeyRequestError, match="no such API key"):
            await desk.revoke(ROOT, "t1", "m", secret.id)

    go(work())


class Overtaken(MemoryStore):
    """A store where somebody changes a record right after it was read, `times` times."""

    times = 1

    async def get(self, key: str) -> Entry | None:
        entry = await super().get(key)
        if entry is not None and self.times:
            self.times -= 1
            record = read_record(key, entry.value)
            assert record is not None
            limits = Limits(concurrent=(record.limits.concurrent or 0) + 1)
            changed = msgspec.structs.replace(record, limits=limits)
            await self.commit([], [Put(key, write_record(changed))])
        return entry


def test_revoking_loses_nothing_that_somebody_else_changed():
    async def work() -> None:
        store = Overtaken(WallClock())
        secret = await issued(store)
        desk = KeyDesk(store, WallClock())
        store.times = 2
        revoked = await desk.revoke(ROOT, "t1", "n", secret.id)
        assert isinstance(revoked, KeyRecord)
        assert revoked.limits == Limits(concurrent=2)
        store.times = 100
        other = await issued(store)
        with pytest.raises(KeyRequestError, match="changed by others 5 times in a row"):
            await desk.revoke(ROOT, "t1", "n", other.id)

    go(work())


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"expires_ns": 1}, "a key's expiry: it is past"),
        ({"tenant": EVERY}, "a key for namespace 'n' of all tenants"),
        ({"tenant": "system"}, "a key's tenant: 'system'"),
        ({"label": "a\nb"}, "a key's label"),
    ],
)
def test_a_key_that_cannot_be_is_refused_in_one_line(changes: dict[str, Any], line: str):
    async def work() -> None:
        desk = KeyDesk(MemoryStore(WallClock()), WallClock())
        with pytest.raises(KeyRequestError, match=line) as caught:
            await desk.issue(ROOT, msgspec.structs.replace(REQUEST, **changes))
        assert "\n" not in str(caught.value)

    go(work())


# -- The first one ---
def test_the_first_key_is_in_a_file_of_its_owner_and_opens_everything(tmp_path: Path):
    async def work() -> None:
        store = MemoryStore(WallClock())
        path = tmp_path / "admin.key"
        key_id = await bootstrap_admin_key(store, WallClock(), path)
        assert path.stat().st_mode & 0o777 == 0o600
        assert list(tmp_path.iterdir()) == [path]
        assert await bootstrap_admin_key(store, WallClock(), path) == key_id
        async with following(store) as cache:
            who = cache.look_up(path.read_text().strip())
            assert isinstance(who, Principal)
            assert isinstance(authorize(who, "write", "t", EVERY, "tenant"), Allowed)

    go(work())


def test_a_start_that_was_stopped_half_way_goes_on_with_its_file(tmp_path: Path):
    async def work() -> None:
        path = tmp_path / "admin.key"
        await bootstrap_admin_key(MemoryStore(WallClock()), WallClock(), path)
        written = path.read_text()
        store = MemoryStore(WallClock())  # Which never got to know of it.
        await bootstrap_admin_key(store, WallClock(), path)
        async with following(store) as cache:
            assert isinstance(cache.look_up(written.strip()), Principal)

    go(work())


def test_those_who_start_at_once_have_one_key(tmp_path: Path):
    def start(path: Path) -> str:
        return asyncio.run(bootstrap_admin_key(MemoryStore(WallClock()), WallClock(), path))

    with ThreadPoolExecutor(max_workers=8) as threads:
        for number in range(10):
            path = tmp_path / f"admin-{number}.key"
            ids = set(threads.map(start, [path] * 8))
            assert ids == {id_at(path.read_text().strip())}
    assert len(list(tmp_path.iterdir())) == 10


def test_a_file_that_is_not_as_it_should_be_is_told_in_one_line(tmp_path: Path):
    async def refused(path: Path, line: str, store: Store | None = None) -> None:
        with pytest.raises(BootstrapError, match=line) as caught:
            await bootstrap_admin_key(store or MemoryStore(WallClock()), WallClock(), path)
        assert "\n" not in str(caught.value)
        assert "ix_0" not in str(caught.value)

    async def work() -> None:
        path = tmp_path / "admin.key"
        path.write_text("ix_0000 is not a key\n")
        path.chmod(0o600)
        await refused(path, r"no API key in it")
        path.chmod(0o644)
        await refused(path, r"mode 644\); expected mode 600")
        await refused(tmp_path / "no" / "folder", r"No such file")
        await refused(tmp_path, r"Is a directory; expected a place for")
        path.unlink()
        store = MemoryStore(WallClock())
        key_id = await bootstrap_admin_key(store, WallClock(), path)
        await KeyDesk(store, WallClock()).revoke(ROOT, EVERY, EVERY, key_id)
        await refused(path, r"revoked; remove the file", store)

    go(work())
