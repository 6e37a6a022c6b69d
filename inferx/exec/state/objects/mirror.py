"""A reader's own copy of a selection, and what a list or a commit changes in it.

A list is compared with what is there, not with revisions: a store that was set back, or another
one at the same address, gives the changes that lead to what it holds.
"""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

import msgspec

from inferx.exec.state.objects.backoff import Backoff
from inferx.exec.state.objects.envelope import DataObject, Key
from inferx.exec.state.objects.results import Batch, Listed
from inferx.exec.state.objects.selector import Selection
from inferx.exec.state.store import TooOldError, UnavailableError

__all__ = ["SILENCE_LIMIT_S", "Changed", "Mirror", "Source", "Synced", "follow"]

SILENCE_LIMIT_S = 30.0
"""After which a watch that says nothing is taken for dead; stores say something every few."""
RELIST_S = 0.05
RELIST_LIMIT_S = 5.0


class Source(Protocol):
    """Where objects are read: `Objects` here, or its client elsewhere."""

    async def list(self, selection: Selection) -> Listed:
        """Return the objects of a selection."""
        ...

    def changes(self, selection: Selection, after: int) -> AsyncGenerator[Batch, None]:
        """Yield what is committed after a revision; `TooOldError` if that is no longer kept."""
        ...


class Changed(msgspec.Struct, frozen=True):
    """What an object was and is: `old` is None where it is new, `new` where it is gone."""

    old: DataObject | None
    new: DataObject | None

    @property
    def key(self) -> Key:
        """What the object is called."""
        one = self.new or self.old
        assert one is not None, "something changed"
        return one.key


class Synced(msgspec.Struct, frozen=True):
    """All that happened up to a revision has been told."""

    revision: int


class Mirror:
    """The objects of a selection as a reader last saw them."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.objects: dict[Key, DataObject] = {}

    def relist(self, listed: Listed) -> list[Changed]:
        """Become what was listed, and return what that changed; what is gone comes first."""
        now = {one.key: one for one in listed.objects}
        changed = [Changed(old, None) for key, old in self.objects.items() if key not in now]
        for key, new in now.items():
            old = self.objects.get(key)
            if old != new:
                changed.append(Changed(old, new))
        self.objects = now
        return changed

    def take(self, batch: Batch) -> list[Changed]:
        """Make the changes of a commit, and return those that concern the selection."""
        changed: list[Changed] = []
        for change in batch.changes:
            key = change if isinstance(change, Key) else change.key
            old = self.objects.pop(key, None)
            # An object whose labels no longer single it out is gone from here, too.
            new = None if isinstance(change, Key) or not self.selection.takes(change) else change
            if new is not None:
                self.objects[key] = new
            if old is not None or new is not None:
                changed.append(Changed(old, new))
        return changed


async def follow(
    source: Source,
    mirror: Mirror,
    *,
    silence_s: float = SILENCE_LIMIT_S,
    rng: random.Random | None = None,
) -> AsyncGenerator[Changed | Synced, None]:
    """Yield what changes in a mirror that follows its source, from what it holds now.

    Where the source no longer keeps what comes next it is listed again, and only the differences
    are told: what has gone meanwhile with its old self.

    Raises:
        UnavailableError: The source cannot be reached, or has been silent for too long.
    """
    pauses = Backoff(RELIST_S, RELIST_LIMIT_S, rng or random.Random())  # noqa: S311 no secret
    while True:
        listed = await source.list(mirror.selection)
        for changed in mirror.relist(listed):
            yield changed
        yield Synced(listed.revision)
        try:
            async with aclosing(source.changes(mirror.selection, listed.revision)) as batches:
                while True:
                    async with asyncio.timeout(silence_s):
                        batch = await anext(batches)
                    for changed in mirror.take(batch):
                        yield changed
                        pauses.reset()
                    yield Synced(batch.revision)
        except TooOldError:
            await asyncio.sleep(pauses.next_s())
        except TimeoutError as error:
            raise UnavailableError(
                f"no word of {mirror.selection.type} in {silence_s} s"
            ) from error
        except StopAsyncIteration as error:
            raise UnavailableError(f"the watch of {mirror.selection.type} has ended") from error
