"""How many bytes a tier has left: of its budget, of its file system, and of the host's memory."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from inferx.core.units import MIB
from inferx.exec.agent.host_memory import available_bytes
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store.durable import told
from inferx.exec.agent.store.manifest import MANIFEST, read_manifest
from inferx.exec.agent.store.staging import RESERVED

__all__ = ["Room"]

_HOST_SPARE_BYTES: Final = 256 * MIB
"""What a tier in memory leaves to the rest of the host, whatever its budget."""


class Room:
    """Counts what snapshots and reservations take, each time anew: others write there, too.

    Args:
        title: What errors call the tier.
        snapshots: The folder of whole snapshots.
        staging: The folder of those that are being written.
        budget_bytes: What all of them may take.
        in_memory: Whether they take the host's memory.

    Attributes:
        promised_bytes: Of the host's memory, what others have been promised and have not yet taken;
            for a tier in memory.
    """

    def __init__(
        self, title: str, snapshots: Path, staging: Path, *, budget_bytes: int, in_memory: bool
    ) -> None:
        self._title = title
        self._snapshots = snapshots
        self._staging = staging
        self._budget_bytes = budget_bytes
        self._in_memory = in_memory
        self.promised_bytes: Callable[[], int] = lambda: 0

    def used_bytes(self) -> int:
        """Bytes of all snapshots and reservations."""
        with told(f"{self._title}: cannot be read", phase="room"):
            kept = sum(_kept_bytes(home) for home in sorted(self._snapshots.iterdir()))
            return kept + sum(reserved for _, reserved in self._reservations())

    def require_budget(self, size_bytes: int, *, freed_bytes: int) -> None:
        """Raise where so many bytes are beyond the budget, after others have been freed."""
        used_bytes = self.used_bytes() - freed_bytes
        if used_bytes + size_bytes > self._budget_bytes:
            msg = (
                f"{self._title}: {size_bytes:,} bytes do not fit: {used_bytes:,} of the budget of "
                f"{self._budget_bytes:,} are used"
            )
            raise AgentError(msg, phase="room")

    def require_free(self, size_bytes: int, *, freed_bytes: int) -> None:
        """Raise where there is less free than this and all that is reserved and not yet written."""
        with told(f"{self._title}: cannot be read", phase="room"):
            free = self._free_bytes() - self._unwritten_bytes() + freed_bytes
        if size_bytes > free:
            msg = f"{self._title}: {size_bytes:,} bytes do not fit: {max(free, 0):,} are free"
            raise AgentError(msg, phase="room")

    def unwritten_bytes(self) -> int:
        """Bytes that are reserved and not yet written."""
        with told(f"{self._title}: cannot be read", phase="room"):
            return self._unwritten_bytes()

    def _unwritten_bytes(self) -> int:
        return sum(max(reserved - _tree_bytes(home), 0) for home, reserved in self._reservations())

    def _free_bytes(self) -> int:
        """Return how much can be written to a file system, be it a disk or the host's memory."""
        facts = os.statvfs(self._staging)
        free = facts.f_bavail * facts.f_frsize
        if not self._in_memory:
            return free
        spare = available_bytes() - _HOST_SPARE_BYTES - self.promised_bytes()
        return min(free, max(spare, 0))

    def _reservations(self) -> list[tuple[Path, int]]:
        homes = sorted(self._staging.iterdir())
        return [(home, _reserved_bytes(home / RESERVED)) for home in homes]


def _kept_bytes(home: Path) -> int:
    try:
        return read_manifest(home / MANIFEST).size_bytes
    except AgentError:
        return _tree_bytes(home)


def _reserved_bytes(path: Path) -> int:
    """Return what a reservation says; one that is just being made, or given up, is none."""
    with suppress(FileNotFoundError, ValueError):
        return int(path.read_text())
    return 0


def _tree_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder that others may be changing."""
    found = 0
    for path, _, files in os.walk(folder):
        for name in files:
            with suppress(FileNotFoundError):
                found += Path(path, name).lstat().st_size
    return found
