"""How many bytes there are, and how many are taken, as the file system and the host tell."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from inferx.core.units import MIB

__all__ = ["free_bytes", "reserved_bytes", "tree_bytes"]

_HOST_SPARE_BYTES: Final = 256 * MIB
"""What a tier in memory leaves to the rest of the host, whatever its budget."""


def free_bytes(path: Path, *, in_memory: bool) -> int:
    """Return how much can be written to a file system, be it a disk or the host's memory."""
    facts = os.statvfs(path)
    free = facts.f_bavail * facts.f_frsize
    return min(free, max(_host_bytes() - _HOST_SPARE_BYTES, 0)) if in_memory else free


def _host_bytes() -> int:
    """Return the memory that the kernel could give without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    msg = "no MemAvailable in /proc/meminfo"
    raise OSError(msg)


def reserved_bytes(path: Path) -> int:
    """Return what a reservation says; one that is just being made, or given up, is none."""
    with suppress(FileNotFoundError, ValueError):
        return int(path.read_text())
    return 0


def tree_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder that others may be changing."""
    found = 0
    for path, _, files in os.walk(folder):
        for name in files:
            with suppress(FileNotFoundError):
                found += Path(path, name).lstat().st_size
    return found
