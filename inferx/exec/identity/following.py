"""Follows what lies under one prefix of the store, for a process's own copy of it.

Laws:
1. A copy is told everything at first, then every change, in order; and everything again whenever
   changes may have been missed.
2. A copy is told until when what it holds is fresh: with every word of the store, which tells where
   it stands at least every third of `STALE_S`.
3. It goes on, whatever the store does, until it is cancelled.
"""

import asyncio
import logging
import math
from contextlib import aclosing
from typing import Final, Protocol

from inferx.exec.state.store import (
    Committed,
    Deleted,
    Entry,
    Store,
    StoreError,
    TooOldError,
)

__all__ = ["STALE_S", "Copy", "before_it_runs", "follow"]

STALE_S: Final = 15.0
"""An election of the store's leader takes a few seconds, a restart some more. What is revoked while
a process is cut off from the store works there for as long as this."""
RETRY_S: Final = 0.5
"""Pause before the store is asked again."""

_log = logging.getLogger(__name__)


def before_it_runs() -> float:
    """Return a time after all that is fresh: what a copy has for a clock until it is followed."""
    return math.inf


class Copy(Protocol):
    """What is told."""

    def take_all(self, entries: tuple[Entry, ...]) -> None:
        """Hold these, and nothing of what was held."""
        ...

    def take(self, change: Entry | Deleted) -> None:
        """Hold what one key is now."""
        ...

    def fresh_until(self, until_s: float) -> None:
        """Hold good until then, by the running loop's clock; no answer comes from it after."""
        ...


async def follow(store: Store, prefix: str, copy: Copy, *, called: str, stale_s: float) -> None:
    """Tell a copy what is under a prefix until cancelled, and begin anew whenever it fails.

    Args:
        store: Where it lies.
        prefix: Under which; it ends in `/`.
        copy: Whom to tell.
        called: What lies there, for the log.
        stale_s: For how long a word of the store is good.
    """
    now_s = asyncio.get_running_loop().time
    while True:
        try:
            async with asyncio.timeout(stale_s):
                listing = await store.list(prefix)
            copy.take_all(listing.entries)
            copy.fresh_until(now_s() + stale_s)
            async with aclosing(store.watch(prefix, listing.revision)) as news:
                while True:
                    async with asyncio.timeout(stale_s):
                        one = await anext(news, None)
                    if one is None:
                        break
                    if isinstance(one, Committed):
                        for change in one.changes:
                            copy.take(change)
                    copy.fresh_until(now_s() + stale_s)
            _log.warning("the watch on %s ended; it is begun anew", called)
        except TooOldError:
            _log.info("%s: the watch fell behind; they are listed again", called)
        except StoreError as error:
            _log.warning("%s are not followed: %s", called, error)
        except TimeoutError:
            _log.warning("%s: no news from the store for %.3g s", called, stale_s)
        await asyncio.sleep(min(RETRY_S, stale_s / 4))
