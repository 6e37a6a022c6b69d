"""Commits to a SQLite store, many at once, and says which are done; ended by SIGKILL only."""

import asyncio
import itertools
import sys
from pathlib import Path

from inferx.exec.clock import WallClock
from inferx.exec.state.sqlite import open_sqlite
from inferx.exec.state.store import Put

WRITERS = 8


async def main() -> None:
    store = await open_sqlite(Path(sys.argv[1]), WallClock(), history_commits=1_000)

    async def write(number: int) -> None:
        for turn in itertools.count():
            value = f"{turn}".encode()
            keys = [f"/{number}/{half}" for half in "ab"]
            revision = await store.commit([], [Put(key, value) for key in keys])
            sys.stdout.write(f"{number} {turn} {revision}\n")
            sys.stdout.flush()

    await asyncio.gather(*(write(number) for number in range(WRITERS)))


asyncio.run(main())
