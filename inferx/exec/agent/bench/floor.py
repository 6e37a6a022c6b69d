"""The floor of a tier: `dd` of a snapshot's own bytes, and the page cache without them."""

import os
import re
import secrets
import subprocess
from collections.abc import Sequence
from pathlib import Path

from inferx.exec.agent.bench.results import Floor, FloorName
from inferx.exec.agent.ports import AgentError

__all__ = ["forget", "large_files", "read_floor", "write_floor"]

LARGE_BYTES = 1 << 20
"""Smaller files are left out: dd's start would count for more than their bytes."""
DD_S = 600.0
_TOLD = re.compile(r"^(\d+) bytes.*copied, ([0-9.e+-]+) s", re.MULTILINE)


def large_files(folder: Path) -> Sequence[Path]:
    """Return the files below that hold all but a sliver of the bytes."""
    found = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return sorted(path for path in found if path.stat().st_size >= LARGE_BYTES)


def forget(files: Sequence[Path]) -> None:
    """Empty the page cache of these files alone; on tmpfs, which is the cache, it does nothing."""
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            # A page that is not yet on the disk would stay.
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def read_floor(name: FloorName, files: Sequence[Path]) -> Floor:
    """Read files to nowhere."""
    return _sum(name, [_dd(f"if={path}", "of=/dev/null") for path in files])


def write_floor(files: Sequence[Path], folder: Path) -> Floor:
    """Copy files, from the page cache, into a folder of the tier; durable, then removed."""
    took: list[tuple[int, float]] = []
    for path in files:
        copy = folder / f".floor-{secrets.token_hex(4)}"
        try:
            took.append(_dd(f"if={path}", f"of={copy}", "conv=fsync"))
        finally:
            copy.unlink(missing_ok=True)
    return _sum("write", took)


def _sum(name: FloorName, took: Sequence[tuple[int, float]]) -> Floor:
    return Floor(
        name=name, moved_bytes=sum(size for size, _ in took), seconds=sum(s for _, s in took)
    )


def _dd(*words: str) -> tuple[int, float]:
    """Return the bytes and seconds that dd tells."""
    try:
        done = subprocess.run(
            ["dd", *words, "bs=1M"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DD_S,
            check=False,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AgentError(f"dd {' '.join(words)}: {error}", phase="floor") from error
    told = _TOLD.search(done.stderr)
    if done.returncode or told is None:
        why = (done.stderr.strip().splitlines() or ["no word of why"])[0]
        raise AgentError(f"dd {' '.join(words)}: {why}", phase="floor")
    return int(told[1]), float(told[2])
