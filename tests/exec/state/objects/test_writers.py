"""Writers of several processes at once: limits hold in every commit, and no update is lost."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest
from cluster_objects import function, in_loop, namespace, node, policy, tenant
from hypothesis import example, given
from hypothesis import strategies as st

from inferx.exec.clock import WallClock
from inferx.exec.state.memory import MemoryStore
from inferx.exec.state.objects import objects as objects_module
from inferx.exec.state.objects.actor import ADMIN, SYSTEM, tenant_admin
from inferx.exec.state.objects.admission import version_of
from inferx.exec.state.objects.envelope import DataObject, Key, decode, key_of_store
from inferx.exec.state.objects.errors import (
    AdmissionError,
    BusyError,
    ConflictError,
    ExistsError,
    NotFoundError,
    ObjectsError,
)
from inferx.exec.state.objects.ledger import Ledger
from inferx.exec.state.objects.objects import Objects
from inferx.exec.state.objects.results import ANY_REVISION
from inferx.exec.state.objects.selector import Selection
from inferx.exec.state.objects.stated import link_of
from inferx.exec.state.store import (
    Bookmark,
    Change,
    Committed,
    Deleted,
    Expect,
    Listing,
    Store,
    StoreLeaseId,
)


class Wire:
    """A store as it is at the end of a wire: each call takes a while, by chance."""

    def __init__(self, store: Store, rng: random.Random) -> None:
        self._store = store
        self._rng = rng

    async def _travel(self) -> None:
        for _ in range(self._rng.randrange(4)):
            await asyncio.sleep(0)

    async def get(self, key: str) -> Any:
        await self._travel()
        return await self._store.get(key)

    async def list(self, prefix: str) -> Listing:
        await self._travel()
        return await self._store.list(prefix)

    async def commit(self, expects: Sequence[Expect], changes: Sequence[Change]) -> int | None:
        await self._travel()
        revision = await self._store.commit(expects, changes)
        await self._travel()
        return revision

    async def grant(self, ttl_s: float) -> StoreLeaseId:
        return await self._store.grant(ttl_s)

    async def keep_alive(self, lease: StoreLeaseId) -> None:
        await self._store.keep_alive(lease)

    async def revoke(self, lease: StoreLeaseId) -> None:
        await self._store.revoke(lease)

    def watch(self, prefix: str, after: int) -> AsyncGenerator[Committed | Bookmark, None]:
        return self._store.watch(prefix, after)

    async def close(self) -> None:
        await self._store.close()


class History:
    """Holds every commit of a store to what is promised of it."""

    def __init__(self) -> None:
        self.objects: dict[Key, DataObject] = {}
        self.ledgers: dict[str, Ledger] = {}
        self.versions: dict[Key, int] = {}
        self.owners: dict[int, Key] = {}

    def take(self, commit: Committed) -> None:
        before = {owner: self._functions(owner) for owner in ("t1", "t10")}
        for change in commit.changes:
            key = key_of_store(change.key)
            if key is None:
                self._take_ledger(change)
            elif isinstance(change, Deleted):
                del self.objects[key]
            else:
                self.objects[key] = decode(change)
        for owner in ("t1", "t10"):
            self._check(owner, before[owner])

    def _take_ledger(self, change: Any) -> None:
        kind, _, tenant = change.key.removeprefix("/registry/").partition("/")
        if kind == "ledger" and isinstance(change, Deleted):
            del self.ledgers[tenant]
        elif kind == "ledger":
            namespaces = msgspec.json.decode(change.value, type=dict[str, Any])
            self.ledgers[tenant] = Ledger(tenant, change.modified, namespaces)

    def _functions(self, tenant: str) -> int:
        return sum(1 for key in self.objects if (key.type, key.tenant) == ("function", tenant))

    def _check(self, tenant: str, before: int) -> None:
        owner = self.objects.get(Key("tenant", "system", "system", tenant))
        assert (owner is None) == (tenant not in self.ledgers)
        own = [one for one in self.objects.values() if one.tenant == tenant]
        if owner is None:
            assert own == []
            return
        limit: Any = owner.object["spec"]
        if self._functions(tenant) > before:
            assert self._functions(tenant) <= limit["limit"]["max_funccount"]
        counted = self.ledgers[tenant].namespaces
        there = {one.name for one in own if one.type == "namespace"}
        assert {name for name in counted if name != "system"} == there
        for kind, field in (("function", "functions"), ("funcpolicy", "policies")):
            told = {name: counts.get(field, 0) for name, counts in counted.items()}  # type: ignore[attr-defined]
            for one in own:
                if one.type == kind:
                    told[one.namespace] -= 1
            assert not any(told.values())
        for one in own:
            if one.type == "function":
                self._check_function(one)
        statuses = {one.key for one in own if one.type == "funcstatus"}
        functions = {one.key for one in own if one.type == "function"}
        assert {msgspec.structs.replace(key, type="function") for key in statuses} == functions

    def _check_function(self, one: DataObject) -> None:
        status = self.objects[msgspec.structs.replace(one.key, type="funcstatus")]
        assert status.object["version"] == version_of(one)
        assert version_of(one) >= self.versions.get(one.key, 1)
        self.versions[one.key] = version_of(one)
        assert self.owners.setdefault(version_of(one), one.key) == one.key
        link = link_of(one)
        assert link is None or link in self.objects


_LINK = {"Link": {"objType": "funcpolicy", "namespace": "system", "name": "p"}}
_STEPS = st.tuples(
    st.sampled_from(["create", "delete", "relink", "policy", "unpolicy", "space", "drop", "limit"]),
    st.sampled_from(["t1", "t10"]),
    st.integers(0, 3),
)


async def _step(objects: Objects, step: tuple[str, str, int]) -> None:
    what, owner, number = step
    space = f"ns{number % 2}"
    who = tenant_admin(owner)
    place = f"{owner}/{space}/f{number}"
    try:
        match what:
            case "create":
                await objects.create(function(place, policy=_LINK if number else {}), who=who)
            case "relink":
                await objects.apply(function(place, policy={} if number else _LINK), who=who)
            case "delete":
                await objects.delete(function(place).key, who=who)
            case "policy":
                await objects.apply(policy(f"{owner}/system/p", parallel=number + 1), who=who)
            case "unpolicy":
                await objects.delete(policy(f"{owner}/system/p").key, who=who)
            case "space":
                await objects.apply(namespace(owner, space), who=who)
            case "drop":
                await objects.delete(namespace(owner, space).key, who=who, cascade=number > 1)
            case "limit":
                await objects.apply(tenant(owner, max_funccount=number), who=ADMIN)
            case _:
                raise AssertionError(what)
    except (AdmissionError, ExistsError, NotFoundError, ConflictError):
        pass


@given(writers=st.lists(st.lists(_STEPS, max_size=12), min_size=2, max_size=5), seed=st.integers())
@example(  # A policy that is deleted by who began before it was made.
    writers=[
        [("create", "t1", 0)],
        [("create", "t1", 0)],
        [("policy", "t1", 0)],
        [("unpolicy", "t1", 0)],
    ],
    seed=1606,
)
def test_every_commit_of_many_writers_keeps_what_is_promised(
    writers: list[list[tuple[str, str, int]]], seed: int
) -> None:
    async def body() -> None:
        store = MemoryStore(WallClock())
        rng = random.Random(seed)
        beginning = (await store.list("/registry/")).revision
        first = Objects(store)
        for owner in ("t1", "t10"):
            await first.create(tenant(owner, max_funccount=2), who=ADMIN)
            for number in range(2):
                await first.create(namespace(owner, f"ns{number}"), who=ADMIN)

        async def write(steps: list[tuple[str, str, int]]) -> None:
            objects = Objects(Wire(store, rng), rng=rng)
            for step in steps:
                await _step(objects, step)

        await asyncio.gather(*map(write, writers))
        await _check_all(store, beginning)

    in_loop(body())


async def _check_all(store: Store, beginning: int) -> History:
    end = (await store.list("/registry/")).revision
    history, watch = History(), store.watch("/registry/", beginning)
    async for commit in watch:
        if isinstance(commit, Committed):
            history.take(commit)
        if commit.revision >= end:
            break
    await watch.aclose()
    return history


@pytest.mark.parametrize("processes", [1, 8])
async def test_of_writers_who_race_for_the_last_places_as_many_win_as_there_are(
    processes: int,
) -> None:
    store = MemoryStore(WallClock())
    beginning = (await store.list("/registry/")).revision
    rng = random.Random(7)
    each = [Objects(Wire(store, rng), rng=rng) for _ in range(processes)]
    await each[0].create(tenant("t1", max_funccount=5), who=ADMIN)
    await each[0].create(namespace("t1", "ns"), who=ADMIN)
    won = await asyncio.gather(
        *(each[n % processes].create(function(f"t1/ns/f{n}"), who=ADMIN) for n in range(24)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, DataObject) for one in won) == 5
    assert all(isinstance(one, DataObject | AdmissionError) for one in won)
    assert len((await _check_all(store, beginning)).objects) == 2 + 2 * 5


async def test_no_update_is_lost_to_writers_who_read_before_they_write() -> None:
    store = MemoryStore(WallClock())
    rng = random.Random(3)
    first = Objects(store)
    await first.create(tenant("t1"), who=ADMIN)
    key = tenant("t1").key

    async def count(times: int) -> int:
        objects, overtaken = Objects(Wire(store, rng), rng=rng), 0
        while times:
            now = await objects.get(key)
            counted = {"count": str(int(now.annotations.get("count", "0")) + 1)}
            more = msgspec.structs.replace(now, annotations=counted)
            try:
                await objects.update(more, who=tenant_admin("t1"), expected=now.revision)
                times -= 1
            except ConflictError:
                overtaken += 1
        return overtaken

    overtaken = await asyncio.gather(*(count(20) for _ in range(5)))
    assert sum(overtaken) > 0, "they did meet"
    assert (await first.get(key)).annotations == {"count": "100"}


async def test_a_cascade_goes_on_where_another_deletes_as_well() -> None:
    store = MemoryStore(WallClock())
    rng = random.Random(5)
    each = [Objects(Wire(store, rng), rng=rng) for _ in range(2)]
    await each[0].create(tenant("t1"), who=ADMIN)
    for name in ("a", "b"):
        await each[0].create(namespace("t1", name), who=tenant_admin("t1"))
        for number in range(3):
            await each[0].create(function(f"t1/{name}/f{number}"), who=tenant_admin("t1"))
    key = tenant("t1").key
    both = (one.delete(key, who=ADMIN, cascade=True) for one in each)
    ended = await asyncio.gather(*both, return_exceptions=True)
    assert {type(one) for one in ended} <= {DataObject, NotFoundError, ConflictError}
    assert DataObject in {type(one) for one in ended}
    assert (await store.list("/registry/")).entries == ()


class Interrupted(Wire):
    """A store where something else happens just before the first commit of an object."""

    def __init__(self, store: Store, first: Callable[[], Awaitable[object]]) -> None:
        super().__init__(store, random.Random(1))
        self._first: Callable[[], Awaitable[object]] | None = first

    async def commit(self, expects: Sequence[Expect], changes: Sequence[Change]) -> int | None:
        first = self._first
        if expects and first is not None:
            self._first = None
            await first()
        return await super().commit(expects, changes)


async def test_what_services_write_is_not_written_over_either() -> None:
    store = MemoryStore(WallClock())
    objects = Objects(store)
    made = await objects.create(node("n", nodeIp="1"), who=SYSTEM)

    async def first() -> None:
        await objects.apply(node("n", nodeIp="2"), who=SYSTEM)

    late = Objects(Interrupted(store, first))
    with pytest.raises(ConflictError):
        await late.update(node("n", nodeIp="3"), who=SYSTEM, expected=made.revision)
    assert (await objects.get(made.key)).object["nodeIp"] == "2"


async def test_a_new_version_keeps_what_was_just_published_and_an_old_ones_news_is_refused() -> (
    None
):
    store = MemoryStore(WallClock())
    objects = Objects(store)
    await objects.create(tenant("t1"), who=ADMIN)
    await objects.create(namespace("t1", "ns"), who=ADMIN)
    await objects.create(function("t1/ns/f"), who=ADMIN)
    key = Key("funcstatus", "t1", "ns", "f")
    status = await objects.get(key)
    published = msgspec.structs.replace(status, object={**status.object, "published": True})

    async def publish() -> None:
        await objects.update(published, who=SYSTEM, expected=status.revision)

    late = Objects(Interrupted(store, publish))
    await late.apply(function("t1/ns/f", image="b:1"), who=ADMIN)
    status = await objects.get(key)
    assert status.object["published"] is True
    failed = msgspec.structs.replace(status, object={**status.object, "state": "Fail"})

    async def replace() -> None:
        await objects.apply(function("t1/ns/f", image="c:1"), who=ADMIN)

    late = Objects(Interrupted(store, replace))
    with pytest.raises(AdmissionError, match="of the function; it is at"):
        await late.update(failed, who=SYSTEM, expected=ANY_REVISION)
    assert (await objects.get(key)).object["state"] == "Normal"


async def test_who_was_overtaken_is_not_refused_by_what_was() -> None:
    store = MemoryStore(WallClock())
    objects = Objects(store)
    await objects.create(tenant("t1", max_funccount=1), who=ADMIN)
    await objects.create(namespace("t1", "ns"), who=ADMIN)
    await objects.create(function("t1/ns/f"), who=ADMIN)
    key = tenant("t1").key

    class Slow(Wire):
        async def get(self, key_: str) -> Any:
            if key_ == key.path:
                gone = objects.delete(function("t1/ns/f").key, who=ADMIN)
                await asyncio.gather(gone, return_exceptions=True)
            return await super().get(key_)

    await Objects(Slow(store, random.Random(1))).create(function("t1/ns/g"), who=ADMIN)
    left = (await objects.list(Selection("function"))).objects
    assert [one.name for one in left] == ["g"]


async def test_a_writer_who_is_always_overtaken_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects_module, "PAUSE_S", 0.0)
    store = MemoryStore(WallClock())
    quick = Objects(store)
    await quick.create(tenant("t1"), who=ADMIN)

    class Overtaken(Wire):
        async def commit(self, expects: Sequence[Expect], changes: Sequence[Change]) -> int | None:
            count = len((await store.list("/registry/")).entries)
            await quick.create(namespace("t1", f"n{count}"), who=ADMIN)
            return await super().commit(expects, changes)

    slow = Objects(Overtaken(store, random.Random(1)))
    with pytest.raises(BusyError, match="others wrote 64 times in between"):
        await slow.create(namespace("t1", "mine"), who=ADMIN)
    assert issubclass(BusyError, ObjectsError)
