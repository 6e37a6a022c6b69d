"""Small file operations that are whole or not at all, and their errors as one line.

Laws: a folder is synced after an entry in it is made, renamed or removed, where that must outlast
the machine; locks are the kernel's (`flock`), so they end with their process, however that ends.
"""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Final

from inferx.exec.agent.ports import AgentError
from inferx.exec.files import sync_folder

__all__ = [
    "FileLock",
    "MomentLock",
    "make_folder",
    "plain_files",
    "remove_tree",
    "sync_folder",
    "told",
    "write",
]

_LOCK_TRIES: Final = 6_000
_LOCK_PAUSE_S: Final = 0.005
"""Half a minute in all. What is done under a lock of moments takes milliseconds."""
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_NOT_ALLOWED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


@contextmanager
def told(what: str, *, phase: str) -> Generator[None]:
    """Raise an `AgentError` for an `OSError` in here: what was tried, why not, and where."""
    try:
        yield
    except OSError as error:
        match error.errno:
            case number if number in _NO_ROOM:
                why = "the disk is full"
            case number if number in _NOT_ALLOWED:
                why = f"no permission ({error.strerror})"
            case _:
                why = error.strerror or str(error)
        where = f" at {error.filename}" if error.filename else ""
        raise AgentError(f"{what}: {why}{where}", phase=phase) from error


def make_folder(path: Path) -> None:
    """Make a folder for this user alone, with those above it; there already is fine."""
    if not path.parent.exists():
        make_folder(path.parent)  # `parents=True` would let others read those.
    path.mkdir(mode=0o700, exist_ok=True)


def write(path: Path, content: bytes) -> None:
    """Write a new file for this user alone, and have it on the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def remove_tree(path: Path) -> None:
    """Remove a folder and all in it, or a file; somebody may do the same at the same time."""
    for folder, folders, files in os.walk(path, topdown=False):
        for name in files:
            with suppress(FileNotFoundError):
                Path(folder, name).unlink()
        for name in folders:
            below = Path(folder, name)
            with suppress(FileNotFoundError):
                below.unlink() if below.is_symlink() else below.rmdir()
    with suppress(FileNotFoundError):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def plain_files(folder: Path) -> list[tuple[str, os.stat_result]]:
    """Return all files below a folder, by relative path with slashes, in order of path.

    Raises:
        AgentError: There is something else than files and folders.
        OSError: Something cannot be read.
    """
    found: list[tuple[str, os.stat_result]] = []
    _walk(str(folder), "", found)
    return sorted(found)


def _walk(folder: str, prefix: str, found: list[tuple[str, os.stat_result]]) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            facts = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(facts.st_mode):
                _walk(entry.path, f"{prefix}{entry.name}/", found)
            elif stat.S_ISREG(facts.st_mode):
                found.append((prefix + entry.name, facts))
            else:
                msg = f"{entry.path} is no plain file; a snapshot has files and folders only"
                raise AgentError(msg, phase="commit")


def _require_same(path: Path, descriptor: int) -> None:
    here, there = os.fstat(descriptor), path.stat()
    if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


class FileLock:
    """A lock on an open file: shared or exclusive, among threads and processes alike.

    A file that was removed, or another in its place, is found out: the lock is then on nothing.
    """

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(
        cls, path: Path, *, exclusive: bool, wait: bool, create: bool = False
    ) -> "FileLock | None":
        """Lock a file; None where somebody else has it and this one does not wait.

        Raises:
            FileNotFoundError: There is none, or it went away in the meantime.
            OSError: It cannot be opened.
        """
        access = os.O_RDWR | os.O_CREAT if create else os.O_RDWR
        descriptor = os.open(path, access | os.O_CLOEXEC, 0o600)
        try:
            how = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
            fcntl.flock(descriptor, how if wait else how | fcntl.LOCK_NB)
            _require_same(path, descriptor)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def release(self) -> None:
        """Let go; twice is fine."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            # Not by closing alone: a child between fork and exec may have the file, too. Where it
            # cannot be unlocked, as with a server that is away, closing is what there is.
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


class MomentLock:
    """One at a time, among threads and processes, for as long as names change; not reentrant."""

    __slots__ = ("_guard", "_lock", "_path")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._guard = Lock()
        self._lock: FileLock | None = None

    def __enter__(self) -> None:
        self._guard.acquire()
        try:
            with told(f"cannot lock {self._path}", phase="lock"):
                self._lock = self._take()
        except BaseException:
            self._guard.release()
            raise

    def _take(self) -> FileLock:
        for _ in range(_LOCK_TRIES):
            lock = FileLock.take(self._path, exclusive=True, wait=False, create=True)
            if lock is not None:
                return lock
            time.sleep(_LOCK_PAUSE_S)
        waited_s = _LOCK_TRIES * _LOCK_PAUSE_S
        msg = f"{self._path} has been locked by another process for {waited_s:.0f} s"
        raise AgentError(msg, phase="lock")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        lock, self._lock = self._lock, None
        assert lock is not None, "left without having been entered"
        lock.release()
        self._guard.release()
