"""Roles that are granted by name: what is kept, who may grant, and what a process's copy knows."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferx.exec.clock import WallClock
from inferx.exec.identity.oidc import grants_of
from inferx.exec.identity.principal import ANONYMOUS, EVERY, Denied, Grant, Level, Principal, User
from inferx.exec.identity.role_copy import RoleCopy
from inferx.exec.identity.role_desk import TRIES, RoleDesk, RoleRequest, RoleRequestError
from inferx.exec.identity.roles import (
    PREFIX,
    RoleRecord,
    is_user_name,
    read_record,
    store_key,
    write_record,
)
from inferx.exec.state.memory import MemoryStore
from inferx.exec.state.store import Delete, Deleted, Entry, Put, Store

ROOT = Principal("root", (Grant(Level.FULL, EVERY, EVERY),))
HERE, THERE = "https://id.test/a", "https://id.test/b"
ADA = Principal("oidc:ada", user=User(HERE, "ada"))
REQUEST = RoleRequest(role="user", username="ada", tenant="t1", namespace="n")
READS = Grant(Level.READ, "t1", "n")


def go(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 30))


def record(**changes: Any) -> RoleRecord:
    one = RoleRecord(
        issuer=HERE,
        username="ada",
        role="user",
        tenant="t1",
        namespace="n",
        by="root",
        granted_ns=1,
    )
    return msgspec.structs.replace(one, **changes)


@asynccontextmanager
async def following(store: Store, *, stale_s: float = 15.0) -> AsyncGenerator[RoleCopy]:
    copy = RoleCopy(store, stale_s=stale_s)
    task = asyncio.create_task(copy.run())
    try:
        await copy.wait_listed()
        yield copy
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def soon(condition: Callable[[], object], *, within_s: float = 10.0) -> None:
    end_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s, f"not so within {within_s} s"
        await asyncio.sleep(0.001)


def desk(store: Store, *issuers: str) -> RoleDesk:
    return RoleDesk(store, WallClock(), issuers or (HERE,))


async def granted(store: Store, request: RoleRequest = REQUEST) -> RoleRecord:
    at = desk(store)
    kept = await at.grant(ROOT, at.meant(ROOT, request, new=True))
    assert isinstance(kept, RoleRecord)
    return kept


async def revoked(store: Store, request: RoleRequest = REQUEST) -> bool:
    at = desk(store)
    gone = await at.revoke(ROOT, at.meant(ROOT, request, new=False))
    assert not isinstance(gone, Denied)
    return gone


# -- what is kept ---
words = st.text(max_size=20)
names = st.from_regex(r"[a-z0-9_-][a-z0-9_.-]{0,8}", fullmatch=True)


@given(words, words, st.sampled_from(["admin", "user"]), names, names | st.just(EVERY))
def test_a_role_by_name_means_what_the_same_role_in_a_token_does(
    issuer: str, username: str, role: str, tenant: str, namespace: str
):
    fields = {"issuer": issuer, "username": username, "role": role, "by": "", "granted_ns": 0}
    try:
        one = msgspec.convert(fields | {"tenant": tenant, "namespace": namespace}, RoleRecord)
    except msgspec.ValidationError:
        assert not (is_user_name(username) and issuer and issuer.isprintable())
        return
    assert read_record(store_key(one), write_record(one)) == one
    in_token = (
        f"/tenant/{role}/{tenant}"
        if namespace == EVERY
        else f"/namespace/{role}/{tenant}/{namespace}"
    )
    assert grants_of([in_token]) == (one.grant,)


@given(words, words, words, words)
def test_two_users_never_share_a_place(issuer: str, username: str, other: str, another: str):
    one, two = User(issuer, username), User(other, another)
    usable = all(part and part.isprintable() for part in (*one, *two))
    if usable and one != two:
        places = {store_key(record(issuer=user.issuer, username=user.name)) for user in (one, two)}
        assert len(places) == 2


@pytest.mark.parametrize(
    "name", ["", "a\nb", "\x00", "a" * 257, "\ud800", None, 7, ["ada"]], ids=repr
)
def test_what_cannot_be_a_name_is_nobodys(name: object):
    assert not is_user_name(name)


WRONG: list[dict[str, Any]] = [
    {"role": "owner"},
    {"role": None},
    {"tenant": ""},
    {"tenant": EVERY},
    {"tenant": "system"},
    {"tenant": "t2"},
    {"namespace": ""},
    {"namespace": EVERY},
    {"namespace": "a/b"},
    {"username": ""},
    {"username": "bob"},
    {"username": "ada\n"},
    {"issuer": ""},
    {"issuer": THERE},
    {"granted_ns": "today"},
    {"granted_ns": 1.0},
    {"until_ns": 5},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_record_that_is_not_as_it_should_be_grants_nothing(wrong: dict[str, Any]):
    async def work() -> None:
        store = MemoryStore(WallClock())
        key = store_key(record())
        value = msgspec.json.encode({**msgspec.to_builtins(record()), **wrong})
        await store.commit([], [Put(key, value)])
        async with following(store) as copy:
            assert copy.malformed == {key}
            for user in (ADA.user, User(HERE, "bob"), User(THERE, "ada")):
                who = msgspec.structs.replace(ADA, user=user)
                assert copy.widen(who) is who
            assert await desk(store).holders(ROOT, "user", "t1", "n") == ()
            # It is in nobody's way: it can be granted over, and be revoked.
            await granted(store)
            await soon(lambda: copy.widen(ADA).grants == (READS,))
            assert not copy.malformed
            await store.commit([], [Put(key, value)])
            await soon(lambda: copy.widen(ADA) is ADA)
            assert await revoked(store)
            await soon(lambda: not copy.malformed)

    go(work())


@given(st.binary(max_size=60), st.integers(min_value=0), st.binary(min_size=1, max_size=3))
def test_no_other_bytes_are_a_record(value: bytes, place: int, more: bytes):
    key, good = store_key(record()), write_record(record())
    assert read_record(key, value) is None
    at = place % (len(good) + 1)
    sent = good[:at] + more + good[at:]
    found = read_record(key, sent)
    # What is left is another one's word, or another moment: whose it is and what it grants is not.
    assert found is None or (write_record(found) == sent and store_key(found) == key)
    assert found is None or (found.user, found.grant) == (record().user, record().grant)


def test_a_field_that_is_told_twice_is_told_by_nobody():
    key, good = store_key(record()), write_record(record())
    assert read_record(key, good[:-1] + b',"role":"user"}') is None


# -- a process's copy ---
def test_somebody_has_what_their_token_says_and_what_they_were_granted():
    async def work() -> None:
        store = MemoryStore(WallClock())
        own = Grant(Level.FULL, "t9", EVERY)
        ada = msgspec.structs.replace(ADA, grants=(own,))
        strangers = [
            msgspec.structs.replace(ADA, user=user)
            for user in (None, User(THERE, "ada"), User(HERE, "Ada"), User(HERE, "ada "))
        ]
        async with following(store) as copy:
            assert copy.widen(ada) is ada
            await granted(store)
            await soon(lambda: copy.widen(ada).grants == (own, READS))
            # The same object each time, so that others know it again.
            assert copy.widen(ada) is copy.widen(ada)
            assert ada.grants == (own,)
            assert all(copy.widen(each) is each for each in strangers)
            await granted(store, msgspec.structs.replace(REQUEST, role="admin", namespace=EVERY))
            await soon(lambda: len(copy.widen(ada).grants) == 3)
            assert await revoked(store)
            await soon(lambda: copy.widen(ada).grants == (own, Grant(Level.FULL, "t1", EVERY)))
            await store.commit([], [Delete(store_key(record(role="admin", namespace=EVERY)))])
            await soon(lambda: copy.widen(ada) is ada)

    go(work())


def test_a_copy_that_hears_nothing_grants_nothing_until_it_does():
    async def work() -> None:
        # A store that tells nothing for an hour, as one behind a network that went away.
        store = MemoryStore(WallClock(), bookmark_s=3600)
        await granted(store)
        assert RoleCopy(store).widen(ADA) is ADA
        async with following(store, stale_s=0.3) as copy:
            assert copy.widen(ADA).grants == (READS,)
            await soon(lambda: copy.widen(ADA) is ADA)
            await soon(lambda: copy.widen(ADA).grants == (READS,))

    go(work())


changes = st.tuples(
    st.sampled_from(["put", "delete", "bad"]),
    st.sampled_from([record(), record(role="admin"), record(username="bob"), record(issuer=THERE)]),
)


@given(st.lists(changes, max_size=12), st.booleans())
def test_a_copy_knows_what_is_there_however_it_came_about(
    told: list[tuple[str, RoleRecord]], again: bool
):
    """The oracle: who holds what, by reading all that is left."""

    async def work() -> None:
        copy = RoleCopy(MemoryStore(WallClock()))
        copy._loop_time = asyncio.get_running_loop().time
        copy._heard()
        left: dict[str, Entry] = {}
        for what, one in told:
            key = store_key(one)
            if what == "delete":
                left.pop(key, None)
                copy.take(Deleted(key))
                continue
            left[key] = Entry(key, write_record(one) if what == "put" else b"{}", 1)
            copy.take(left[key])
        if again:
            copy.take_all(tuple(left.values()))
        for issuer, name in ((HERE, "ada"), (HERE, "bob"), (THERE, "ada")):
            who = Principal("p", user=User(issuer, name))
            found = (read_record(entry.key, entry.value) for entry in left.values())
            expected = {one.grant for one in found if one is not None and one.user == who.user}
            assert set(copy.widen(who).grants) == expected
        assert copy.malformed == {key for key, entry in left.items() if entry.value == b"{}"}

    asyncio.run(work())


# -- the desk ---
def test_nobody_grants_lists_or_revokes_more_than_they_have():
    async def work() -> None:
        store = MemoryStore(WallClock())
        at = desk(store)
        whole = Principal("a", (Grant(Level.FULL, "t1", EVERY),))
        space = Principal("b", (Grant(Level.FULL, "t1", "n"),))
        reader = Principal("c", (Grant(Level.READ, EVERY, EVERY),))
        scopes = [("t1", "n"), ("t1", EVERY), ("t10", "n"), ("t10", EVERY)]

        async def may(who: Principal, what: str) -> list[tuple[str, str]]:
            found: list[tuple[str, str]] = []
            for tenant, namespace in scopes:
                answer: object
                one = record(tenant=tenant, namespace=namespace)
                if what == "grant":
                    answer = await at.grant(who, one)
                elif what == "list":
                    answer = await at.holders(who, "user", tenant, namespace)
                else:
                    answer = await at.revoke(who, one)
                if not isinstance(answer, Denied):
                    found.append((tenant, namespace))
            return found

        for what in ("grant", "list", "revoke"):
            assert await may(ROOT, what) == scopes
            assert await may(whole, what) == scopes[:2]
            assert await may(space, what) == scopes[:1]
            assert await may(reader, what) == await may(ANONYMOUS, what) == []

    go(work())


def test_a_role_is_granted_once_and_stays_as_it_was():
    async def work() -> None:
        store = MemoryStore(WallClock())
        at = desk(store)
        first = await granted(store)
        other = Principal("other", ROOT.grants)
        assert await at.grant(other, at.meant(other, REQUEST, new=True)) == first
        assert await at.holders(ROOT, "user", "t1", "n") == (first,)
        asked = msgspec.structs.replace(REQUEST, username="Zoe")
        second = await granted(store, asked)
        assert await at.holders(ROOT, "user", "t1", "n") == (second, first)
        assert await revoked(store, asked)
        # A role over a whole tenant is another one.
        assert await at.holders(ROOT, "user", "t1", EVERY) == ()
        assert await at.holders(ROOT, "admin", "t1", "n") == ()
        assert await revoked(store)
        assert not await revoked(store)
        assert not (await store.list(PREFIX)).entries

    go(work())


@pytest.mark.parametrize(
    ("issuers", "asked", "says"),
    [
        ((), {}, "takes no tokens"),
        ((), {"issuer": HERE}, "takes no tokens"),
        ((HERE, THERE), {}, "not named; expected https://id.test/a or https://id.test/b"),
        ((HERE,), {"issuer": THERE}, "not taken; expected https://id.test/a"),
        (("https://" + "i" * 505,), {}, "at most 512 characters"),
        ((HERE,), {"tenant": EVERY}, "expected a tenant's name"),
        ((HERE,), {"tenant": "system"}, "expected a tenant's name"),
        ((HERE,), {"namespace": ""}, "expected a name"),
        ((HERE,), {"username": ""}, "1 to 256 printable"),
        ((HERE,), {"username": "a\nb"}, "1 to 256 printable"),
        ((HERE,), {"username": "a" * 257}, "1 to 256 printable"),
    ],
    ids=str,
)
def test_what_cannot_be_granted_is_told_in_one_line(
    issuers: tuple[str, ...], asked: dict[str, Any], says: str
):
    at = RoleDesk(MemoryStore(WallClock()), WallClock(), issuers)
    with pytest.raises(RoleRequestError, match=says) as caught:
        at.meant(ROOT, msgspec.structs.replace(REQUEST, **asked), new=True)
    assert "\n" not in str(caught.value)


def test_who_was_granted_a_role_at_an_issuer_that_is_gone_loses_it():
    async def work() -> None:
        store = MemoryStore(WallClock())
        await granted(store)
        at = desk(store, THERE)
        asked = msgspec.structs.replace(REQUEST, issuer=HERE)
        assert await at.revoke(ROOT, at.meant(ROOT, asked, new=False)) is True

    go(work())


class Overtaken(MemoryStore):
    """A store where somebody changes a key right after it was read, `times` times."""

    times = 0

    async def get(self, key: str) -> Entry | None:
        entry = await super().get(key)
        if self.times:
            self.times -= 1
            await self.commit([], [Put(key, b"something else")])
        return entry


def test_who_is_overtaken_tries_again_and_not_for_ever():
    async def work() -> None:
        store = Overtaken(WallClock())
        store.times = 2
        await granted(store)
        store.times = 2
        assert await revoked(store)
        store.times = TRIES
        with pytest.raises(RoleRequestError, match="changed by others"):
            await granted(store)
        store.times = TRIES
        with pytest.raises(RoleRequestError, match="changed by others"):
            await revoked(store)

    go(work())
