"""Who uses which snapshot: names within this process; of a folder, locks towards all others."""

from collections.abc import Callable
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Final, Self

from inferx.exec.agent.store.durable import FileLock
from inferx.exec.agent.store.manifest import Manifest

__all__ = ["FolderHold", "Holders", "Holding"]

_ANOTHER_PROCESS: Final = "another process"


class Holders:
    """Names of those in this process that hold a snapshot; the same may do so more than once."""

    __slots__ = ("_lock", "_names")

    def __init__(self) -> None:
        self._lock = Lock()
        self._names: dict[str, list[str]] = {}

    def add(self, snapshot: str, holder: str) -> None:
        """Note one more."""
        with self._lock:
            self._names.setdefault(snapshot, []).append(holder)

    def remove(self, snapshot: str, holder: str) -> None:
        """Note one less."""
        with self._lock:
            names = self._names[snapshot]
            names.remove(holder)
            if not names:
                del self._names[snapshot]

    def here(self, snapshot: str) -> tuple[str, ...]:
        """Return the names."""
        with self._lock:
            return tuple(sorted(set(self._names.get(snapshot, ()))))

    def of(self, snapshot: str) -> tuple[str, ...]:
        """Return the names, or that it is somebody elsewhere, where a lock told so."""
        return self.here(snapshot) or (_ANOTHER_PROCESS,)


class Holding:
    """One name among the holders of a snapshot, until it is released."""

    __slots__ = ("_done", "_guard", "_holder", "_holders", "_snapshot", "_unlock")

    def __init__(
        self,
        holders: Holders,
        snapshot: str,
        holder: str,
        unlock: Callable[[], None] = lambda: None,
    ) -> None:
        """Take note; `unlock` lets go of what others see of it."""
        self._holders = holders
        self._snapshot = snapshot
        self._holder = holder
        self._unlock = unlock
        self._guard = Lock()
        self._done = False
        holders.add(snapshot, holder)

    def release(self) -> None:
        """Let go; twice is fine."""
        with self._guard:
            if self._done:
                return
            self._done = True
        self._unlock()
        self._holders.remove(self._snapshot, self._holder)


class FolderHold:
    """A snapshot in use, by a shared lock on its manifest."""

    __slots__ = ("_holding", "folder", "manifest")

    def __init__(
        self, manifest: Manifest, folder: Path, lock: FileLock, holders: Holders, holder: str
    ) -> None:
        self.manifest = manifest
        self.folder = folder
        self._holding = Holding(holders, manifest.id, holder, lock.release)

    def release(self) -> None:
        """Let go; twice is fine."""
        self._holding.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
