"""A store in one SQLite file: the embedded default, for one process at a time, on a local disk.

All of it is in memory as well, see `memory`; the file is read once, when it is opened. It has a
write-ahead log with `synchronous=FULL`, one fsync for each batch of commits: with `NORMAL` the
latest of them would go with the power. On a virtual disk of 4 ms a flush, a bare loop over SQLite
makes 250 commits a second, and so does one writer here; 8 writers make 2,000, 64 make 12,000.
"""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import msgspec

from inferx.exec.clock import Clock
from inferx.exec.state.history import HISTORY_COMMITS, History
from inferx.exec.state.journal import Batch
from inferx.exec.state.memory import BOOKMARK_S, Contents, MemoryStore
from inferx.exec.state.store import (
    Committed,
    Deleted,
    Entry,
    StoreError,
    StoreLeaseId,
    UnavailableError,
)
from inferx.exec.state.table import Table

__all__ = ["open_sqlite"]

APPLICATION_ID = 0x496E6658
"""In the file's head: it is ours."""
FORMAT = 1
"""In the file's head: how it is laid out."""
WAL_BYTES = 64 << 20
"""What is left of a log that once was longer."""

LAYOUT = (
    """CREATE TABLE entry (
  key TEXT PRIMARY KEY, value BLOB NOT NULL, modified INTEGER NOT NULL, lease INTEGER NOT NULL
) STRICT""",
    "CREATE TABLE lease (id INTEGER PRIMARY KEY, ttl_ns INTEGER NOT NULL) STRICT",
    # Commits of consecutive revisions, the last of which is the store's.
    "CREATE TABLE history (revision INTEGER PRIMARY KEY, changes BLOB NOT NULL) STRICT",
    "INSERT INTO history VALUES (0, x'90')",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {FORMAT}",
)

Changes = tuple[tuple[str, bytes | None, int], ...]
"""A commit as the file has it: keys, values or None where deleted, leases."""

DECODER = msgspec.msgpack.Decoder(Changes)


async def open_sqlite(
    path: Path,
    clock: Clock,
    *,
    history_commits: int = HISTORY_COMMITS,
    bookmark_s: float = BOOKMARK_S,
) -> MemoryStore:
    """Open the store in a file, which is made if it is not there.

    Leases that were there begin their time anew: nobody could keep them alive meanwhile.

    Raises:
        UnavailableError: Another process has it open, or it cannot be reached.
        StoreError: It is not ours, of another format, or damaged.
    """
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
    file = File(path)
    loop = asyncio.get_running_loop()
    try:
        contents = await loop.run_in_executor(thread, file.open, history_commits)
    except BaseException:
        await loop.run_in_executor(thread, file.close)
        thread.shutdown()
        raise
    journal = SqliteJournal(file, thread, contents.history)
    return MemoryStore(clock, contents=contents, journal=journal, bookmark_s=bookmark_s)


class SqliteJournal:
    """A file, used from one thread of its own; it keeps the history that memory keeps."""

    def __init__(self, file: "File", thread: ThreadPoolExecutor, history: History) -> None:
        self._file = file
        self._thread = thread
        self._history = history

    async def write(self, batch: Batch) -> None:
        """Write a batch in one transaction."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._file.write, batch, self._history.floor)

    async def close(self) -> None:
        """Close the file when what is being written is, and end the thread."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._file.close)
        self._thread.shutdown()


class File:
    """The file itself: blocking, for one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: int | None = None
        self._connection: sqlite3.Connection | None = None

    def open(self, history_commits: int) -> Contents:
        """Lock the file, lay it out if it is empty, and read all of it."""
        try:
            # SQLite would let everybody read it, and there may be keys of users in it.
            self._lock = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            # SQLite's own locks are the process's: any file of ours that is closed undoes them.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Transactions are begun and ended by us; a file that is in use is not waited for.
            connection = sqlite3.connect(self._path, isolation_level=None, timeout=0)
            self._connection = connection
            self._lay_out(connection)
            return self._read(connection, history_commits)
        except BlockingIOError as error:
            raise UnavailableError(self._in_use()) from error
        except OSError as error:
            raise UnavailableError(f"{self._path} cannot be opened: {error.strerror}") from error
        except sqlite3.Error as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise UnavailableError(self._in_use()) from error
            raise StoreError(f"{self._path} cannot be used as a store: {error}") from error
        except msgspec.MsgspecError as error:
            raise StoreError(f"{self._path} is damaged, in its history: {error}") from error

    def close(self) -> None:
        """Close the file, and so unlock it."""
        if self._connection:
            self._connection.close()
            self._connection = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _in_use(self) -> str:
        return f"{self._path} is open in another process: expected to be its only user"

    def _lay_out(self, connection: sqlite3.Connection) -> None:
        """Take the file for as long as it is open, see that it is ours, or make it so."""
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        [application] = connection.execute("PRAGMA application_id").fetchone()
        [layout] = connection.execute("PRAGMA user_version").fetchone()
        [tables] = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if (application, layout, tables) == (0, 0, 0):
            for statement in LAYOUT:
                connection.execute(statement)
        elif application != APPLICATION_ID:
            raise StoreError(f"{self._path} is another program's database: expected a store's")
        elif layout != FORMAT:
            raise StoreError(f"{self._path} is a store of format {layout}: expected {FORMAT}")
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")

    def _read(self, connection: sqlite3.Connection, history_commits: int) -> Contents:
        entries = [
            Entry(key, value, modified, StoreLeaseId(lease))
            for key, value, modified, lease in connection.execute(
                "SELECT key, value, modified, lease FROM entry"
            )
        ]
        commits = [
            committed(revision, DECODER.decode(changes))
            for revision, changes in connection.execute(
                "SELECT revision, changes FROM history ORDER BY revision"
            )
        ]
        if not commits or commits[-1].revision - commits[0].revision != len(commits) - 1:
            raise StoreError(f"{self._path} is damaged: its history has holes")
        history = History(commits[0].revision - 1, commits, most=history_commits)
        ttls_ns = {
            StoreLeaseId(lease): ttl_ns
            for lease, ttl_ns in connection.execute("SELECT id, ttl_ns FROM lease")
        }
        return Contents(Table(history.revision, entries), history, ttls_ns)

    def write(self, batch: Batch, floor: int) -> None:
        """Write a batch in one transaction, and forget the history up to a revision.

        Raises:
            UnavailableError: It is not written.
        """
        connection = self._connection
        assert connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            fill(connection, batch, floor)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise UnavailableError(f"{self._path} cannot be written: {error}") from error


def fill(connection: sqlite3.Connection, batch: Batch, floor: int) -> None:
    """Make a transaction's changes."""
    connection.executemany("INSERT INTO lease VALUES (?, ?)", batch.granted.items())
    # Of a key that several commits of the batch changed, only the last is there.
    last = {change.key: change for each in batch.commits for change in each.changes}
    connection.executemany(
        "INSERT INTO entry VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "value = excluded.value, modified = excluded.modified, lease = excluded.lease",
        [
            (each.key, each.value, each.modified, each.lease)
            for each in last.values()
            if isinstance(each, Entry)
        ],
    )
    connection.executemany(
        "DELETE FROM entry WHERE key = ?",
        [(each.key,) for each in last.values() if isinstance(each, Deleted)],
    )
    connection.executemany(
        "INSERT INTO history VALUES (?, ?)",
        [(each.revision, encoded(each.changes)) for each in batch.commits],
    )
    connection.execute("DELETE FROM history WHERE revision <= ?", (floor,))
    connection.executemany("DELETE FROM lease WHERE id = ?", [(each,) for each in batch.ended])


def encoded(changes: Sequence[Entry | Deleted]) -> bytes:
    """Return a commit's changes as the file has them."""
    return msgspec.msgpack.encode(
        [
            (each.key, each.value, each.lease) if isinstance(each, Entry) else (each.key, None, 0)
            for each in changes
        ]
    )


def committed(revision: int, changes: Changes) -> Committed:
    """Return a commit as the file has it."""
    return Committed(
        revision,
        tuple(
            Deleted(key) if value is None else Entry(key, value, revision, StoreLeaseId(lease))
            for key, value, lease in changes
        ),
    )
