"""A service's local copy of objects, kept by list and watch for as long as it runs.

Each reader is told what changed since it last looked: changes of one object that come before it
looks are one change. So a slow reader costs no more than the objects there are, and loses nothing
but what was already past.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import aclosing
from typing import Self

from inferx.exec.state.objects.backoff import Backoff
from inferx.exec.state.objects.envelope import DataObject, Key
from inferx.exec.state.objects.errors import ObjectsError
from inferx.exec.state.objects.mirror import (
    SILENCE_LIMIT_S,
    Changed,
    Mirror,
    Source,
    Synced,
    follow,
)
from inferx.exec.state.objects.selector import Selection
from inferx.exec.state.store import StoreError

__all__ = ["Informer", "Reader"]

RETRY_S = 0.1
RETRY_LIMIT_S = 10.0

_log = logging.getLogger(__name__)


class Reader(AsyncIterator[Changed]):
    """One reader's view of an informer; it begins with all that is there."""

    def __init__(self, objects: Iterable[DataObject]) -> None:
        self._told: dict[Key, DataObject] = {}
        self._latest: dict[Key, DataObject | None] = {one.key: one for one in objects}
        """What is now of what the reader has not been told, oldest news first."""
        self._news = asyncio.Event()
        if self._latest:
            self._news.set()

    def post(self, changed: Changed) -> None:
        """Take note of a change."""
        self._latest[changed.key] = changed.new
        self._news.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Changed:
        while True:
            while self._latest:
                key = next(iter(self._latest))
                new = self._latest.pop(key)
                old = self._told.pop(key, None)
                if new is not None:
                    self._told[key] = new
                if old != new:
                    return Changed(old, new)
            self._news.clear()
            await self._news.wait()


class Informer:
    """Copies of some selections, each of another type.

    Args:
        source: Where the objects are.
        selections: What is kept.
        silence_s: After which a watch that says nothing is begun again.
        rng: Of the waits before it is tried again.
    """

    def __init__(
        self,
        source: Source,
        *selections: Selection,
        silence_s: float = SILENCE_LIMIT_S,
        rng: random.Random | None = None,
    ) -> None:
        self._source = source
        self._silence_s = silence_s
        self._rng = rng or random.Random()  # noqa: S311 waits are no secret
        self._mirrors = {selection.type: Mirror(selection) for selection in selections}
        assert len(self._mirrors) == len(selections), "each selection is of another type"
        self._unlisted = set(self._mirrors)
        self._lost = set(self._mirrors)
        self._synced = asyncio.Event()
        self._readers: set[Reader] = set()

    @property
    def is_current(self) -> bool:
        """Whether every watch stands, as far as is known; a copy that has lost one may be old."""
        return not self._lost

    async def synced(self) -> None:
        """Wait until everything has been listed once."""
        await self._synced.wait()

    def get(self, key: Key) -> DataObject | None:
        """Return an object as it was last seen."""
        return self._mirrors[key.type].objects.get(key)

    def all(self, kind: str) -> Iterator[DataObject]:
        """Return the objects of a type as they were last seen."""
        return iter(tuple(self._mirrors[kind].objects.values()))

    async def changes(self) -> AsyncIterator[Changed]:
        """Yield what is there, then what changes, until closed."""
        reader = Reader(one for mirror in self._mirrors.values() for one in mirror.objects.values())
        self._readers.add(reader)
        try:
            async for changed in reader:
                yield changed
        finally:
            self._readers.discard(reader)

    async def run(self) -> None:
        """Keep the copies until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for kind, mirror in self._mirrors.items():
                tasks.create_task(self._keep(mirror), name=f"informer of {kind}")

    async def _keep(self, mirror: Mirror) -> None:
        kind = mirror.selection.type
        pauses = Backoff(RETRY_S, RETRY_LIMIT_S, self._rng)
        while True:
            events = follow(self._source, mirror, silence_s=self._silence_s, rng=self._rng)
            try:
                async with aclosing(events) as events:
                    async for event in events:
                        if isinstance(event, Synced):
                            self._is_synced(kind)
                            pauses.reset()
                            continue
                        for reader in self._readers:
                            reader.post(event)
            except (StoreError, ObjectsError) as error:
                self._lost.add(kind)
                wait_s = pauses.next_s()
                _log.warning("%s: %s; again in %.1f s", kind, error, wait_s)
                await asyncio.sleep(wait_s)

    def _is_synced(self, kind: str) -> None:
        self._lost.discard(kind)
        self._unlisted.discard(kind)
        if not self._unlisted:
            self._synced.set()
