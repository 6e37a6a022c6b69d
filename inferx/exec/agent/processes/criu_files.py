"""What CRIU writes, whoever runs it: a folder of images, which must stay whole, and a log.

CRIU finds a short file only when it comes to it, with a process half made, or, with lazy pages,
with one that already answers. So sizes are noted at the dump and compared before a restore.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store.durable import remove_tree, told

__all__ = ["check_sizes", "emptied", "first_error", "sizes_of"]

ERROR = re.compile(r"Error \(([^)]*)\):\s*(.*)")
HARMLESS = ("RLIMIT_NOFILE", "(empty-image)", "Dumping FAILED", "Restoring FAILED")
"""Said where CRIU goes on, and after the line that tells the cause."""


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
    for line in log.splitlines():
        found = ERROR.search(line)
        if found and not any(each in line for each in HARMLESS):
            return f"{found[2].strip()} ({found[1]})"
    return ""
