"""A kind of store, as the conformance suite opens it, and a naive model of what it is to do."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, aclosing
from dataclasses import dataclass, field
from typing import Protocol

from inferx.exec.state.store import (
    Bookmark,
    Committed,
    Delete,
    Deleted,
    Entry,
    Expect,
    Put,
    Store,
)

__all__ = ["Bed", "Model", "commits", "put", "take"]


class Bed(Protocol):
    """Where stores of one kind are opened.

    Attributes:
        name: Of the kind.
        ttl_s: The shortest lease that is worth waiting for.
    """

    name: str
    ttl_s: float

    def up(self) -> AbstractContextManager[None]:
        """Run what the stores need, as a server of etcd; or skip the test, and say why."""
        ...

    def open(self) -> AbstractAsyncContextManager[Store]:
        """Open a store; it may hold what others left under other prefixes."""
        ...

    async def forget(self, store: Store) -> None:
        """Let the store's history be forgotten up to its present revision."""
        ...


async def put(store: Store, key: str, value: bytes) -> int:
    revision = await store.commit([], [Put(key, value)])
    assert revision is not None
    return revision


async def take(watch: AsyncGenerator[Committed | Bookmark, None], count: int) -> list[Committed]:
    """Return the next commits of a watch."""
    found: list[Committed] = []
    while len(found) < count:
        item = await anext(watch)
        if isinstance(item, Committed):
            found.append(item)
    return found


async def commits(store: Store, prefix: str, after: int, until: int) -> list[Committed]:
    """Return what a new watch gives after a revision up to another, which touches the prefix."""
    found: list[Committed] = []
    async with aclosing(store.watch(prefix, after)) as watch:
        async for item in watch:
            if isinstance(item, Committed):
                found.append(item)
                if item.revision >= until:
                    break
    return found


@dataclass
class Model:
    """What a store of one user is to answer, in the plainest words."""

    entries: dict[str, Entry] = field(default_factory=dict)
    done: list[Committed] = field(default_factory=list)

    def holds(self, expects: list[Expect]) -> bool:
        return all(
            (self.entries[each.key].modified if each.key in self.entries else 0) == each.modified
            for each in expects
        )

    def commit(self, revision: int, changes: list[Put | Delete]) -> None:
        """Do what a commit did that got this revision."""
        seen: dict[str, Entry | Deleted] = {}
        for each in changes:
            if isinstance(each, Put):
                entry = Entry(each.key, each.value, revision, each.lease)
                self.entries[each.key] = seen[each.key] = entry
            elif self.entries.pop(each.key, None):
                seen[each.key] = Deleted(each.key)
        if seen:
            self.done.append(Committed(revision, tuple(seen[key] for key in sorted(seen))))

    def under(self, prefix: str) -> tuple[Entry, ...]:
        return tuple(self.entries[key] for key in sorted(self.entries) if key.startswith(prefix))

    def since(self, prefix: str, after: int) -> list[Committed]:
        found = []
        for each in self.done:
            changes = tuple(change for change in each.changes if change.key.startswith(prefix))
            if each.revision > after and changes:
                found.append(Committed(each.revision, changes))
        return found
