"""Writing behind a store in memory: what was made while one write went on is the next, as one."""

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec

from inferx.exec.state.store import Committed, StoreLeaseId, UnavailableError

__all__ = ["Batch", "Journal", "WriteBehind"]


class Batch(msgspec.Struct):
    """What is written together, all or nothing, in the order of the fields."""

    granted: dict[StoreLeaseId, int] = msgspec.field(default_factory=dict[StoreLeaseId, int])
    """Leases and their times, in nanoseconds."""
    commits: list[Committed] = msgspec.field(default_factory=list[Committed])
    ended: list[StoreLeaseId] = msgspec.field(default_factory=list[StoreLeaseId])
    over: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    """Written, or given up."""


class Journal(Protocol):
    """Where a store's commits are kept when its process is not there."""

    async def write(self, batch: Batch) -> None:
        """Write a batch; it is there for good on return.

        Raises:
            UnavailableError: It may not be, and why, in one line.
        """
        ...

    async def close(self) -> None:
        """Let go of the file."""
        ...


class WriteBehind:
    """One batch on its way into a journal, and the next, which grows meanwhile.

    Attributes:
        fault: Why a batch was not written. The store in memory is then ahead of its journal for
            good, and what was asked of it is not answered.
    """

    __slots__ = ("_journal", "_next", "_now", "_task", "_wrote", "fault")

    def __init__(self, journal: Journal, wrote: Callable[[Batch], None]) -> None:
        """Call `wrote` with each batch that is written."""
        self._journal = journal
        self._wrote = wrote
        self._now: Batch | None = None
        self._next: Batch | None = None
        self._task: asyncio.Task[None] | None = None
        self.fault: UnavailableError | None = None

    @property
    def waiting(self) -> int:
        """How many commits wait for their turn."""
        return len(self._next.commits) if self._next else 0

    def next(self) -> Batch:
        """Return the batch to add to now."""
        if self._next is None:
            self._next = Batch()
        if self._task is None:
            self._task = asyncio.create_task(self._write())
        return self._next

    async def written(self) -> None:
        """Wait until all that was added so far is written."""
        if batch := self._next or self._now:
            await batch.over.wait()
        if self.fault:
            raise self.fault

    async def close(self) -> None:
        """Write what is left, and let go of the journal."""
        try:
            await self.written()
        finally:
            await self._journal.close()

    async def _write(self) -> None:
        while batch := self._next:
            self._now, self._next = batch, None
            try:
                if self.fault is None:
                    await self._journal.write(batch)
                    self._wrote(batch)
            except UnavailableError as error:
                self.fault = error
            except BaseException:
                # Whatever ended it: nobody is told that this was written.
                self.fault = UnavailableError("the store stopped while it wrote")
                raise
            finally:
                batch.over.set()
        self._now = self._task = None
