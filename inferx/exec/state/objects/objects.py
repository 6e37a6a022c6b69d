"""The objects: get, list, create, update, apply, delete, and what changes.

Whatever is written has been read by its type's reader and admitted in the commit that writes it. A
write that ends in `UnavailableError` may be done or not: apply again, or read.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import cast
from weakref import WeakValueDictionary

import msgspec

from inferx.core.errors import DescriptionError
from inferx.exec.state.objects.actor import Actor
from inferx.exec.state.objects.admission import Turn, admit, turn_of
from inferx.exec.state.objects.backoff import Backoff
from inferx.exec.state.objects.envelope import (
    REGISTRY,
    Body,
    DataObject,
    Key,
    decode,
    key_of_store,
)
from inferx.exec.state.objects.errors import (
    AdmissionError,
    BusyError,
    ConflictError,
    ExistsError,
    NotFoundError,
)
from inferx.exec.state.objects.kinds import KINDS, check_place, checked
from inferx.exec.state.objects.ledger import Ledger
from inferx.exec.state.objects.results import ANY_REVISION, Applied, Batch, Listed, Outcome
from inferx.exec.state.objects.rights import check_rights
from inferx.exec.state.objects.selector import Selection
from inferx.exec.state.store import (
    NO_LEASE,
    Bookmark,
    Deleted,
    Entry,
    Put,
    Store,
    StoreLeaseId,
)

__all__ = ["Objects"]

TURNS_LIMIT = 64
"""How often a write is tried that others keep overtaking."""
PAUSE_S = 0.002
PAUSE_LIMIT_S = 0.25


class Objects:
    """The objects of a cluster, over a store. Safe to share between tasks.

    Args:
        store: What keeps them; others may write there at the same time.
        rng: Of the pauses between tries.
    """

    def __init__(self, store: Store, *, rng: random.Random | None = None) -> None:
        self._store = store
        self._rng = rng or random.Random()  # noqa: S311 pauses are no secret
        # Writers of one process wait for each other, which is cheaper than to overtake.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def uid(self) -> int:
        """Return a number above all that were returned before, in the whole cluster."""
        revision = await self._store.commit((), (Put(f"{REGISTRY}uid", b""),))
        assert revision is not None, "it has no condition"
        return revision

    # -- reading ---
    async def get(self, key: Key) -> DataObject:
        """Return an object.

        Raises:
            NotFoundError: It is not there.
        """
        check_place(key.type, key.tenant, key.namespace, key.name)
        found = await self._find(key)
        if found is None:
            raise NotFoundError(f"{key}: not there")
        return found

    async def list(self, selection: Selection) -> Listed:
        """Return the objects of a selection."""
        check_place(selection.type, *filter(None, (selection.tenant, selection.namespace)))
        listing = await self._store.list(selection.prefix)
        objects = map(decode, listing.entries)
        return Listed(tuple(one for one in objects if selection.takes(one)), listing.revision)

    async def changes(self, selection: Selection, after: int) -> AsyncGenerator[Batch, None]:
        """Yield what is committed after a revision, whatever its labels, until closed.

        Raises:
            TooOldError: That is no longer kept; list again.
        """
        check_place(selection.type, *filter(None, (selection.tenant, selection.namespace)))
        async with aclosing(self._store.watch(selection.prefix, after)) as commits:
            async for commit in commits:
                if isinstance(commit, Bookmark):
                    yield Batch(commit.revision)
                else:
                    yield Batch(commit.revision, tuple(map(_change, commit.changes)))

    # -- writing ---
    async def create(
        self, one: DataObject, *, who: Actor, lease: StoreLeaseId = NO_LEASE
    ) -> DataObject:
        """Write an object that is not there, and return it as it is now.

        Raises:
            DescriptionError: It is not what its type asks for.
            ExistsError: It is there.
            ObjectsError: Rights, limits or other objects are against it; see `admission`.
        """
        new = checked(one)

        def decide(old: DataObject | None) -> DataObject:
            if old is not None:
                raise ExistsError(f"{new.key}: is there already, at revision {old.revision}")
            return new

        _, written = await self._write(new.key, who, decide, lease)
        assert written is not None
        return written

    async def update(
        self, one: DataObject, *, who: Actor, expected: int, lease: StoreLeaseId = NO_LEASE
    ) -> DataObject:
        """Replace an object that is still as it was read, and return it as it is now.

        Args:
            one: What to write.
            who: On whose behalf.
            expected: The revision that the object was read at, or `ANY_REVISION`.
            lease: What it is put under; only for what services write.

        Raises:
            DescriptionError: It is not what its type asks for.
            NotFoundError: It is not there.
            ConflictError: It is no longer as it was.
            ObjectsError: Rights, limits or other objects are against it; see `admission`.
        """
        new = checked(one)

        def decide(old: DataObject | None) -> DataObject:
            _expect(new.key, old, expected)
            return new

        _, written = await self._write(new.key, who, decide, lease)
        assert written is not None
        return written

    async def apply(
        self, one: DataObject, *, who: Actor, lease: StoreLeaseId = NO_LEASE
    ) -> Applied:
        """Make an object be what is said of it; the same twice changes nothing the second time.

        Raises:
            DescriptionError: It is not what its type asks for.
            ObjectsError: Rights, limits or other objects are against it; see `admission`.
        """
        new = checked(one)
        old, written = await self._write(new.key, who, lambda _: new, lease)
        assert written is not None
        if old is None:
            return Applied(written, Outcome.CREATED)
        unchanged = old.revision == written.revision
        return Applied(written, Outcome.UNCHANGED if unchanged else Outcome.UPDATED)

    async def delete(
        self, key: Key, *, who: Actor, expected: int = ANY_REVISION, cascade: bool = False
    ) -> DataObject:
        """Remove an object, and return what it was.

        Args:
            key: What it is called.
            who: On whose behalf.
            expected: The revision that the object was read at, or `ANY_REVISION`.
            cascade: Remove what is in a tenant or a namespace first. It is disabled before, and
                stays so if it cannot be ended: then what is left can be deleted again.

        Raises:
            NotFoundError: It is not there.
            ConflictError: It is no longer as it was.
            ObjectsError: Rights, or children are against it; see `admission`.
        """
        check_place(key.type, key.tenant, key.namespace, key.name)
        check_rights(who, key, ends=True)
        if cascade and key.type in {"tenant", "namespace"}:
            disabled = await self._disable(key, who, expected)
            await self._delete_children(key, who)
            expected = disabled.revision

        def decide(old: DataObject | None) -> None:
            _expect(key, old, expected)

        old, _ = await self._write(key, who, decide, NO_LEASE)
        assert old is not None
        return old

    async def _disable(self, key: Key, who: Actor, expected: int) -> DataObject:
        def decide(old: DataObject | None) -> DataObject:
            found = _expect(key, old, expected)
            status = cast("Body", found.object["status"])
            body = {**found.object, "status": {**status, "disable": True}}
            return msgspec.structs.replace(found, object=body)

        _, written = await self._write(key, who, decide, NO_LEASE)
        assert written is not None
        return written

    async def _delete_children(self, key: Key, who: Actor) -> None:
        is_tenant = key.type == "tenant"
        tenant, namespace = (key.name, "") if is_tenant else (key.tenant, key.name)
        # Functions before the policies that they may link to, and both before what they are in.
        for kind in ("function", "funcpolicy", *(("namespace",) if is_tenant else ())):
            for child in (await self.list(Selection(kind, tenant, namespace))).objects:
                try:
                    await self.delete(child.key, who=who)
                except NotFoundError:
                    continue

    async def _write(
        self,
        key: Key,
        who: Actor,
        decide: Callable[[DataObject | None], DataObject | None],
        lease: StoreLeaseId,
    ) -> tuple[DataObject | None, DataObject | None]:
        """Read, decide, admit and commit, until nobody came in between.

        Returns:
            The object before and after.
        """
        check_rights(who, key)
        if lease != NO_LEASE and not KINDS[key.type].is_services:
            raise DescriptionError(f"{key}: a lease; expected one only for what services write")
        tenant = turn_of(key)
        name = str(key) if tenant is None else tenant
        lock = self._locks.setdefault(name, asyncio.Lock())
        pauses = Backoff(PAUSE_S, PAUSE_LIMIT_S, self._rng)
        async with lock:
            for _ in range(TURNS_LIMIT):
                # The ledger first: what is read after it holds until the commit.
                ledger = None if tenant is None else await Ledger.read(self._store, tenant)
                turn = Turn(self._store, ledger, lease)
                old = await self._find(key)
                try:
                    plan = await admit(turn, who, old, decide(old))
                except AdmissionError:
                    # What was read is of several moments where the turn was overtaken.
                    if ledger is None or ledger == await Ledger.read(self._store, ledger.tenant):
                        raise
                else:
                    if not plan.changes:
                        return old, old
                    revision = await self._store.commit(plan.expects, plan.changes)
                    if revision is not None:
                        return old, _written(plan.changes[0], revision)
                await asyncio.sleep(pauses.next_s())
        raise BusyError(f"{key}: others wrote {TURNS_LIMIT} times in between; expected a pause")

    async def _find(self, key: Key) -> DataObject | None:
        entry = await self._store.get(key.path)
        return None if entry is None else decode(entry)


def _expect(key: Key, old: DataObject | None, expected: int) -> DataObject:
    if old is None:
        raise NotFoundError(f"{key}: not there")
    if expected not in {ANY_REVISION, old.revision}:
        raise ConflictError(f"{key}: at revision {old.revision}; expected {expected}")
    return old


def _written(change: object, revision: int) -> DataObject | None:
    """Return the object that a plan's first change wrote."""
    if isinstance(change, Put):
        return decode(Entry(change.key, change.value, revision, change.lease))
    return None


def _change(change: Entry | Deleted) -> DataObject | Key:
    if isinstance(change, Entry):
        return decode(change)
    key = key_of_store(change.key)
    assert key is not None, f"{change.key}: no object's key"
    return key
