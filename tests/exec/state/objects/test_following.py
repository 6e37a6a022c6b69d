"""Readers' own copies: what changes, what was, and what they missed while they were away."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

import pytest
from cluster_objects import function, in_loop, namespace, node, tenant, with_tenants
from hypothesis import given
from hypothesis import strategies as st

from inferx.exec.clock import WallClock
from inferx.exec.state.memory import MemoryStore
from inferx.exec.state.objects import informer as informer_module
from inferx.exec.state.objects.actor import ADMIN, SYSTEM
from inferx.exec.state.objects.envelope import DataObject, Key
from inferx.exec.state.objects.informer import Informer, Reader
from inferx.exec.state.objects.mirror import Changed, Mirror, Synced, follow
from inferx.exec.state.objects.objects import Objects
from inferx.exec.state.objects.results import Batch, Listed
from inferx.exec.state.objects.selector import Selection, parse_labels
from inferx.exec.state.store import TooOldError, UnavailableError

NODES = Selection("node_info")


class Line:
    """A source whose line to it can be cut, led elsewhere, and left without what came next."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.is_up = True
        self.forgets = False
        self.lists = 0
        self._cut = asyncio.Event()

    def cut(self) -> None:
        self.is_up = False
        self._cut.set()

    def lead(self, objects: Objects) -> None:
        self.objects, self.is_up, self._cut = objects, True, asyncio.Event()

    async def list(self, selection: Selection) -> Listed:
        if not self.is_up:
            raise UnavailableError("the line is cut")
        self.lists += 1
        return await self.objects.list(selection)

    async def changes(self, selection: Selection, after: int) -> AsyncGenerator[Batch, None]:
        cut = self._cut
        async with aclosing(self.objects.changes(selection, after)) as batches:
            while True:
                ending = asyncio.ensure_future(cut.wait())
                coming = asyncio.ensure_future(anext(batches))
                await asyncio.wait({ending, coming}, return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    coming.cancel()
                    await asyncio.gather(coming, return_exceptions=True)
                    raise UnavailableError("the line is cut")
                ending.cancel()
                batch = coming.result()
                if batch.changes and self.forgets:
                    self.forgets = False
                    raise TooOldError("forgotten")
                yield batch


@asynccontextmanager
async def _running(informer: Informer) -> AsyncIterator[Informer]:
    task = asyncio.create_task(informer.run())
    await informer.synced()
    try:
        yield informer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _next(changes: AsyncIterator[Changed]) -> tuple[str | None, str | None]:
    """Return the addresses that the next change tells of: what was, what is."""
    changed = await anext(changes)
    return _ip(changed.old), _ip(changed.new)


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 it is the world's state that is waited for
        await asyncio.sleep(0.001)


def _ip(one: DataObject | None) -> str | None:
    return None if one is None else str(one.object["nodeIp"])


async def test_changes_are_told_with_what_was() -> None:
    objects = await with_tenants()
    await objects.create(node("a", nodeIp="1"), who=SYSTEM)
    async with aclosing(follow(objects, Mirror(NODES))) as events:
        first = await anext(events)
        assert isinstance(first, Changed)
        assert (_ip(first.old), _ip(first.new)) == (None, "1")
        assert isinstance(await anext(events), Synced)
        await objects.apply(node("a", nodeIp="2"), who=SYSTEM)
        await objects.delete(node("a").key, who=SYSTEM)
        told = []
        while len(told) < 2:
            event = await anext(events)
            if isinstance(event, Changed):
                told.append((_ip(event.old), _ip(event.new)))
        assert told == [("1", "2"), ("2", None)]
        last = await anext(events)
        assert isinstance(last, Synced)
        assert last.revision == (await objects.list(NODES)).revision


async def test_an_object_whose_labels_change_comes_and_goes() -> None:
    objects = await with_tenants("t1", "t10")
    selection = Selection("function", "t1", labels=parse_labels("team=x"))
    mirror = Mirror(selection)
    async with aclosing(follow(objects, mirror)) as events:
        await anext(events)
        for team in ("y", "x", "x", "y"):
            one = function("t1/ns/f", labels={"team": team})
            await objects.apply(one, who=ADMIN)
            await objects.apply(function("t10/ns/f", labels={"team": "x"}), who=ADMIN)
        told: list[tuple[bool, bool]] = []
        while len(told) < 2:
            event = await anext(events)
            if isinstance(event, Changed):
                assert event.key.tenant == "t1"
                told.append((event.old is not None, event.new is not None))
        assert told == [(False, True), (True, False)]
        assert mirror.objects == {}


async def test_what_went_while_history_was_lost_is_told_with_what_it_was() -> None:
    objects = await with_tenants()
    line = Line(objects)
    await objects.create(node("a", nodeIp="1"), who=SYSTEM)
    await objects.create(node("b", nodeIp="1"), who=SYSTEM)
    async with aclosing(follow(line, Mirror(NODES))) as events:
        for _ in range(3):
            await anext(events)
        line.forgets = True
        await objects.delete(node("a").key, who=SYSTEM)
        await objects.apply(node("b", nodeIp="2"), who=SYSTEM)
        told = [event async for event in _changes(events, 2)]
        assert [(_ip(one.old), _ip(one.new)) for one in told] == [("1", None), ("1", "2")]
        assert line.lists == 2


async def _changes(events: AsyncIterator[Changed | Synced], count: int) -> AsyncIterator[Changed]:
    async for event in events:
        if isinstance(event, Changed):
            yield event
            count -= 1
        if not count:
            return


async def test_real_compaction_is_survived() -> None:
    store = MemoryStore(WallClock())
    objects = Objects(store)
    old = (await objects.list(NODES)).revision - 1
    with pytest.raises(TooOldError):
        await anext(objects.changes(NODES, old))
    with pytest.raises(TooOldError):
        await anext(objects.changes(NODES, old + 10_000))


async def test_an_informer_keeps_several_types_and_tells_what_is_there_first() -> None:
    objects = await with_tenants("t1", "t10")
    await objects.create(function("t1/ns/f"), who=ADMIN)
    kinds = Informer(objects, Selection("tenant"), Selection("function", "t1"))
    async with _running(kinds):
        assert kinds.is_current
        assert [one.name for one in kinds.all("tenant")] == ["t1", "t10"]
        changes = kinds.changes()
        there = {(await anext(changes)).key.type for _ in range(3)}
        assert there == {"tenant", "function"}
        await objects.create(function("t10/ns/f"), who=ADMIN)
        await objects.create(function("t1/ns/g"), who=ADMIN)
        new = await anext(changes)
        assert (new.old, new.key) == (None, Key("function", "t1", "ns", "g"))
        assert kinds.get(new.key) == new.new
        assert kinds.get(Key("function", "t10", "ns", "f")) is None


async def test_an_informer_whose_line_is_cut_comes_back_and_tells_the_difference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(informer_module, "RETRY_S", 0.001)
    objects = await with_tenants()
    line = Line(objects)
    for name in ("gone", "same", "new"):
        await objects.create(node(name, nodeIp="1"), who=SYSTEM)
    async with _running(Informer(line, NODES)) as informer:
        changes = informer.changes()
        for _ in range(3):
            await anext(changes)
        line.cut()
        await _until(lambda: not informer.is_current)
        await objects.delete(node("gone").key, who=SYSTEM)
        await objects.apply(node("new", nodeIp="2"), who=SYSTEM)
        assert informer.get(node("gone").key) is not None, "the copy is kept meanwhile"
        line.lead(objects)
        assert {await _next(changes), await _next(changes)} == {("1", None), ("1", "2")}
        await _until(lambda: informer.is_current)


async def test_an_informer_led_to_another_store_holds_what_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its revisions may be lower, and mean nothing beside the old ones."""
    monkeypatch.setattr(informer_module, "RETRY_S", 0.001)

    class Behind(WallClock):
        """A store's revisions begin at its clock."""

        def now_ns(self) -> int:
            return 1_000_000_000

    objects = await with_tenants()
    line = Line(objects)
    for name in ("a", "b"):
        await objects.create(node(name, nodeIp="1"), who=SYSTEM)
    other = Objects(MemoryStore(Behind()))
    await other.create(node("a", nodeIp="2"), who=SYSTEM)
    assert (await other.list(NODES)).revision < (await objects.list(NODES)).revision
    async with _running(Informer(line, NODES)) as informer:
        changes = informer.changes()
        assert {await _next(changes), await _next(changes)} == {(None, "1")}
        line.cut()
        await _until(lambda: not informer.is_current)
        line.lead(other)
        assert {await _next(changes), await _next(changes)} == {("1", None), ("1", "2")}
        await other.apply(node("a", nodeIp="3"), who=SYSTEM)
        assert await _next(changes) == ("2", "3")


async def test_a_watch_that_falls_silent_is_begun_again() -> None:
    class Silent(Line):
        async def changes(self, selection: Selection, after: int) -> AsyncGenerator[Batch, None]:
            if self.lists > 1:
                async for batch in self.objects.changes(selection, after):
                    yield batch
            await asyncio.Event().wait()

    objects = await with_tenants()
    line = Silent(objects)
    async with _running(Informer(line, NODES, silence_s=0.01)) as informer:
        await objects.create(node("a", nodeIp="1"), who=SYSTEM)
        assert await _next(informer.changes()) == (None, "1")
        assert line.lists > 1


@given(
    writes=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=40),
    looks=st.lists(st.integers(0, 4), min_size=40, max_size=40),
)
def test_a_slow_reader_is_told_little_and_ends_up_right(
    writes: list[tuple[int, int]], looks: list[int]
) -> None:
    async def body() -> None:
        now: dict[Key, DataObject] = {}
        told: dict[Key, DataObject] = {}
        reader = Reader([])

        async def look() -> bool:
            try:
                async with asyncio.timeout(0):
                    changed = await anext(reader)
            except TimeoutError:
                return False
            assert told.get(changed.key) == changed.old != changed.new
            if changed.new is None:
                del told[changed.key]
            else:
                told[changed.key] = changed.new
            return True

        for (which, ip), count in zip(writes, looks, strict=False):
            one = node(f"n{which}", nodeIp=str(ip))
            old = now.pop(one.key, None)
            if ip:
                now[one.key] = one
            if old is not None or ip:
                reader.post(Changed(old, one if ip else None))
            for _ in range(count):
                await look()
        for _ in range(5):
            await look()
        assert told == now

    in_loop(body())


async def test_lost_watches_under_load_leave_every_copy_as_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(informer_module, "RETRY_S", 0.001)
    rng = random.Random(11)
    objects = await with_tenants("t1", max_funccount=100)
    await objects.create(tenant("t10"), who=ADMIN)
    await objects.create(namespace("t10", "ns"), who=ADMIN)
    line = Line(objects)
    selection = Selection("function", "t1")
    async with _running(Informer(line, selection, rng=rng)) as informer:
        for number in range(200):
            name = f"t1/ns/f{rng.randrange(10)}"
            if rng.random() < 0.3 and informer.get(function(name).key):
                await asyncio.gather(
                    objects.delete(function(name).key, who=ADMIN), return_exceptions=True
                )
            else:
                await objects.apply(function(name, image=f"i:{number}"), who=ADMIN)
            match rng.randrange(20):
                case 0:
                    line.cut()
                    line.lead(objects)
                case 1:
                    line.forgets = True
                case _:
                    await asyncio.sleep(0)
        line.forgets = False
        there = (await objects.list(selection)).objects
        await _until(
            lambda: tuple(sorted(informer.all("function"), key=lambda one: one.key)) == there
        )
