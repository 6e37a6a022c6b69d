"""Follows what lies under one prefix of the store, for a process's own copy of it.

Laws:
1. A copy is told everything at first, then every change, in order; and everything again whenever
   changes may have been missed.
2. What a copy holds is fresh for `STALE_S` from the last word of the store, which tells where it
   stands at least every third of that.
3. It goes on, whatever the store does, until it is cancelled.
"""

import asyncio
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import aclosing
from typing import Final

from inferx.exec.state.store import (
    Committed,
    Deleted,
    Entry,
    Store,
    StoreError,
    TooOldError,
)

__all__ = ["STALE_S", "Copy"]

STALE_S: Final = 15.0
"""An election of the store's leader takes a few seconds, a restart some more. What is revoked while
a process is cut off from the store works there for as long as this."""
RETRY_S: Final = 0.5
"""Pause before the store is asked again."""

_log = logging.getLogger(__name__)


class Copy(ABC):
    """What a process knows of a prefix, while `run` runs.

    Args:
        store: Where it lies.
        prefix: Under which; it ends in `/`.
        called: What lies there, for the log.
        stale_s: For how long a word of the store is good.
    """

    __slots__ = (
        "_called",
        "_fresh_until_s",
        "_listed",
        "_loop_time",
        "_prefix",
        "_stale_s",
        "_store",
    )

    def __init__(self, store: Store, prefix: str, *, called: str, stale_s: float) -> None:
        self._store = store
        self._prefix = prefix
        self._called = called
        self._stale_s = stale_s
        self._fresh_until_s = 0.0
        # Until it runs there is no loop to ask, and nothing is fresh.
        self._loop_time: Callable[[], float] = lambda: math.inf
        self._listed = asyncio.Event()

    @abstractmethod
    def take_all(self, entries: tuple[Entry, ...]) -> None:
        """Know these, and no others."""

    @abstractmethod
    def take(self, change: Entry | Deleted) -> None:
        """Know what one key is now."""

    async def wait_listed(self) -> None:
        """Wait until all of it is known for the first time."""
        await self._listed.wait()

    @property
    def is_fresh(self) -> bool:
        """Whether what is known can be relied on: the store has told lately."""
        return self._loop_time() < self._fresh_until_s

    async def run(self) -> None:
        """Follow the store until cancelled, and begin anew whenever that fails."""
        self._loop_time = asyncio.get_running_loop().time
        while True:
            try:
                async with asyncio.timeout(self._stale_s):
                    listing = await self._store.list(self._prefix)
                self.take_all(listing.entries)
                self._heard()
                async with aclosing(self._store.watch(self._prefix, listing.revision)) as news:
                    while True:
                        async with asyncio.timeout(self._stale_s):
                            one = await anext(news, None)
                        if one is None:
                            break
                        if isinstance(one, Committed):
                            for change in one.changes:
                                self.take(change)
                        self._heard()
                _log.warning("the watch on %s ended; it is begun anew", self._called)
            except TooOldError:
                _log.info("%s: the watch fell behind; they are listed again", self._called)
            except StoreError as error:
                _log.warning("%s are not followed: %s", self._called, error)
            except TimeoutError:
                _log.warning("%s: no news from the store for %.3g s", self._called, self._stale_s)
            await asyncio.sleep(min(RETRY_S, self._stale_s / 4))

    def _heard(self) -> None:
        self._fresh_until_s = self._loop_time() + self._stale_s
        self._listed.set()
