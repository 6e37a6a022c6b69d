"""The objects over every kind of store: what memory shows holds of the others, too."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

import pytest
from beds import BEDS
from cluster_objects import function, namespace, node, policy, tenant
from stores import Bed

from inferx.exec.state.objects.actor import ADMIN, SYSTEM, tenant_admin
from inferx.exec.state.objects.admission import version_of
from inferx.exec.state.objects.envelope import DataObject, Key
from inferx.exec.state.objects.errors import ConflictError, LimitError
from inferx.exec.state.objects.mirror import Changed, Mirror, follow
from inferx.exec.state.objects.objects import Objects
from inferx.exec.state.objects.results import Batch, Listed, Outcome
from inferx.exec.state.objects.selector import Selection
from inferx.exec.state.store import TooOldError


class Late:
    """One who goes on from where they were, though that is long past."""

    def __init__(self, objects: Objects, old: Listed) -> None:
        self._objects = objects
        self._old: Listed | None = old
        self.was_late = False

    async def list(self, selection: Selection) -> Listed:
        old, self._old = self._old, None
        return old or await self._objects.list(selection)

    async def changes(self, selection: Selection, after: int) -> AsyncGenerator[Batch, None]:
        try:
            async for batch in self._objects.changes(selection, after):
                yield batch
        except TooOldError:
            self.was_late = True
            raise


@pytest.fixture(scope="module", params=BEDS, ids=lambda bed: bed.name)
def bed(request: pytest.FixtureRequest) -> Iterator[Bed]:
    with request.param.up():
        yield request.param


@pytest.fixture
def owner() -> str:
    """Return a tenant that no other test has: they share a server."""
    return f"t{secrets.token_hex(4)}"


async def test_a_tenants_life(bed: Bed, owner: str) -> None:
    async with bed.open() as store:
        objects, who = Objects(store), tenant_admin(owner)
        await objects.create(tenant(owner), who=ADMIN)
        await objects.create(namespace(owner, "ns"), who=who)
        await objects.create(policy(f"{owner}/system/p", parallel=3), who=who)
        link = {"Link": {"objType": "funcpolicy", "namespace": "system", "name": "p"}}
        first = await objects.create(function(f"{owner}/ns/f", policy=link), who=who)
        assert (await objects.apply(first, who=who)).outcome is Outcome.UNCHANGED
        second = await objects.update(
            function(f"{owner}/ns/f", image="b:1"), who=who, expected=first.revision
        )
        assert version_of(second) > version_of(first)
        with pytest.raises(ConflictError):
            await objects.update(first, who=who, expected=first.revision)
        status = await objects.get(Key("funcstatus", owner, "ns", "f"))
        assert (status.revision, status.object["version"]) == (
            second.revision,
            version_of(second),
        )
        await objects.delete(tenant(owner).key, who=ADMIN, cascade=True)
        for kind in ("function", "funcstatus", "funcpolicy", "namespace"):
            assert (await objects.list(Selection(kind, owner))).objects == ()


async def test_the_last_places_are_given_once(bed: Bed, owner: str) -> None:
    async with bed.open() as store:
        each = [Objects(store) for _ in range(4)]
        await each[0].create(tenant(owner, max_funccount=3), who=ADMIN)
        await each[0].create(namespace(owner, "ns"), who=ADMIN)
        won = await asyncio.gather(
            *(each[n % 4].create(function(f"{owner}/ns/f{n}"), who=ADMIN) for n in range(10)),
            return_exceptions=True,
        )
        assert sum(isinstance(one, DataObject) for one in won) == 3
        assert sum(isinstance(one, LimitError) for one in won) == 7
        assert len((await each[0].list(Selection("function", owner))).objects) == 3


async def test_a_registration_goes_with_its_lease(bed: Bed, owner: str) -> None:
    async with bed.open() as store:
        objects = Objects(store)
        lease = await store.grant(60)
        await objects.create(node(owner), who=SYSTEM, lease=lease)
        mirror = Mirror(Selection("node_info"))
        async with aclosing(follow(objects, mirror)) as events:
            async for event in events:
                if not isinstance(event, Changed) or event.key.name != owner:
                    continue
                if event.new is None:
                    assert event.old is not None
                    assert event.old.object["nodeIp"] == "127.0.0.1"
                    return
                await store.revoke(lease)


async def test_what_was_compacted_away_is_told_as_a_difference(bed: Bed, owner: str) -> None:
    async with bed.open() as store:
        objects, who = Objects(store), tenant_admin(owner)
        await objects.create(tenant(owner), who=ADMIN)
        await objects.create(namespace(owner, "ns"), who=who)
        selection = Selection("function", owner)
        for name in ("gone", "changed", "same"):
            await objects.create(function(f"{owner}/ns/{name}"), who=who)
        mirror = Mirror(selection)
        mirror.relist(old := await objects.list(selection))
        await objects.delete(function(f"{owner}/ns/gone").key, who=who)
        await objects.apply(function(f"{owner}/ns/changed", image="b:1"), who=who)
        await bed.forget(store)

        late = Late(objects, old)
        told: dict[str, Changed] = {}
        async with aclosing(follow(late, mirror)) as events:
            async for event in events:
                if isinstance(event, Changed):
                    told[event.key.name] = event
                if len(told) == 2:
                    break
        assert late.was_late
        assert set(told) == {"gone", "changed"}
        gone, changed = told["gone"], told["changed"]
        assert gone.new is None
        assert gone.old == next(one for one in old.objects if one.name == "gone")
        assert changed.old is not None
        assert changed.new is not None
        assert changed.new == await objects.get(changed.key)
