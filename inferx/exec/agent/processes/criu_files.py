"""What CRIU writes, whoever runs it: a folder of images, which must stay whole, and a log.

CRIU finds a short file only when it comes to it, with a process half made, or, with lazy pages,
with one that already answers. So sizes are noted at the dump and compared before a restore.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store.durable import remove_tree, told

__all__ = ["check_sizes", "emptied", "errors_in", "first_error", "said_in", "sizes_of"]

ERROR = re.compile(r"Error \(([^)]*)\):\s*(.*)")
HARMLESS = ("RLIMIT_NOFILE", "(empty-image)", "Dumping FAILED", "Restoring FAILED")
"""Said where CRIU goes on, and after the line that tells the cause."""
LAST = 2
"""How many of the last errors are told beside the first."""
LINE = 160
"""How much of one, in characters."""
READ_BYTES = 1 << 20
"""How much of a log is read, at its beginning and at its end: that of a dump has some kilobytes."""


def emptied(folder: Path) -> Path:
    """Make a folder that is there and empty, readable by its owner alone.

    Raises:
        AgentError: Something in it cannot be removed.
    """
    with told(f"{folder} cannot be emptied", phase="image"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for entry in list(folder.iterdir()):
            remove_tree(entry)
    return folder


def sizes_of(folder: Path, *, but: str) -> dict[str, int]:
    """Return the bytes of each file of a dump, other than the one where they are noted."""
    return {
        path.name: path.stat().st_size
        for path in sorted(folder.iterdir())
        if path.name != but and not path.is_symlink()
    }


def check_sizes(folder: Path, sizes: Mapping[str, int]) -> None:
    """Refuse a dump that lost something; what its files say is for a checksum to tell.

    Raises:
        AgentError: A file is missing or has another size than was noted.
    """
    for name, size in sizes.items():
        try:
            found = (folder / name).stat().st_size
        except OSError as error:
            raise AgentError(f"{folder} is no whole dump: {name} is missing", phase="image") from (
                error
            )
        if found != size:
            raise AgentError(
                f"{folder} is no whole dump: {name} has {found} bytes, expected {size}",
                phase="image",
            )


def first_error(log: str) -> str:
    """Return the first error of a log that is one, and where it was; empty without any.

    The first is the cause: those that follow are of steps that it made fail.
    """
    return next(iter(_errors(log)), "")


def errors_in(log: Path) -> str:
    """Return the first error of a log file of CRIU's, then the last ones; empty without any.

    One line of bounded length.
    """
    first, *others = _errors(_read(log)) or [""]
    then = [one for one in dict.fromkeys(others) if one != first][-LAST:]
    return f"{first}, then: {'; '.join(then)}" if then else first


def said_in(log: Path) -> str:
    """Return `errors_in` a log, else its last line, as of a CRIU that was killed or hung."""
    if told := errors_in(log):
        return told
    lines = [line.strip() for line in _read(log).splitlines() if line.strip()]
    return f"its log ends with: {lines[-1][-LINE:]}" if lines else ""


def _read(log: Path) -> str:
    """Return a log's beginning and its end; empty where there is none."""
    try:
        with log.open("rb") as file:
            told = file.read(READ_BYTES)
            if (size := file.seek(0, os.SEEK_END)) > READ_BYTES:
                file.seek(max(READ_BYTES, size - READ_BYTES))
                told += b"\n" + file.read(READ_BYTES)
    except OSError:
        return ""
    return told.decode(errors="replace")


def _errors(log: str) -> list[str]:
    """Return a log's errors and where each was, but for those that CRIU goes on after."""
    lines = (line for line in log.splitlines() if not any(each in line for each in HARMLESS))
    found = filter(None, map(ERROR.search, lines))
    return [f"{one[2].strip()[:LINE]} ({one[1]})" for one in found]
