"""What is kept beside CRIU's own files: numbers of processes, what to lead elsewhere, sizes.

CRIU finds a short file only when it comes to it, with a process half made, or, with lazy pages,
with one that already answers. So sizes are noted at the dump and compared before a restore.
"""

import itertools
import os
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from inferx.exec.agent.ports import AgentError

__all__ = ["Image", "choose_last_pid", "empty", "telling_line", "version_of"]

NAME = "processes.json"
FREE = 256
"""Numbers in a row that CRIU needs for itself and what it starts, with room to spare."""
PREFIX = re.compile(r"^\([\d.]+\)\s*|Error \([^)]*\):\s*")
HARMLESS = ("RLIMIT_NOFILE", "(empty-image)", "Dumping FAILED", "Restoring FAILED")


class Image(msgspec.Struct, kw_only=True, frozen=True):
    """One dump.

    Attributes:
        root: Number of the first process, as its own namespace counts.
        numbers: Of all processes and threads.
        stdout: Path that standard output had.
        lock: Packet filter that keeps its connections; empty where they were not kept.
        sizes: Bytes of each file of CRIU's.
    """

    root: int
    numbers: tuple[int, ...]
    stdout: str
    stderr: str
    lock: str
    sizes: dict[str, int]

    @staticmethod
    def measure(folder: Path) -> dict[str, int]:
        """Return the size of each file of a dump."""
        return {
            each.name: each.stat().st_size
            for each in sorted(folder.iterdir())
            if each.name != NAME and not each.is_symlink()
        }

    def save(self, folder: Path) -> None:
        """Write it, readable by its owner alone."""
        target = os.open(folder / NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(target, "wb") as file:
            file.write(msgspec.json.encode(self))

    @staticmethod
    def load(folder: Path) -> "Image":
        """Read it, and check that all files are there and whole.

        Raises:
            AgentError: Not a dump, or one that has lost something, and what.
        """
        try:
            image = msgspec.json.decode((folder / NAME).read_bytes(), type=Image)
        except OSError as error:
            raise AgentError(f"{folder} is no dump: {error}", phase="image") from error
        except msgspec.DecodeError as error:
            raise AgentError(f"{folder / NAME}: {error}", phase="image") from error
        there = Image.measure(folder)
        for name, size in image.sizes.items():
            if name not in there:
                raise AgentError(f"{folder} is no whole dump: {name} is missing", phase="image")
            if there[name] != size:
                raise AgentError(
                    f"{folder} is no whole dump: {name} has {there[name]} bytes, expected {size}",
                    phase="image",
                )
        return image


def choose_last_pid(numbers: Iterable[int], *, most: int) -> int:
    """Return a number after which `FREE` are used by none of `numbers`.

    The first such gap above 300, where a kernel goes on when its numbers have come around.

    Args:
        numbers: What the restored processes will have.
        most: Largest number that the kernel gives.

    Raises:
        AgentError: There is no such gap.
    """
    taken = [300, *sorted(each for each in set(numbers) if 300 < each <= most), most + 1]
    for before, after in itertools.pairwise(taken):
        if after - before > FREE:
            return before
    raise AgentError(f"no {FREE} process numbers in a row are free below {most}", phase="image")


def empty(folder: Path) -> Path:
    """Make a folder that is there and empty, readable by its owner alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for each in folder.iterdir():
        each.unlink()
    return folder


def telling_line(log: str) -> str:
    """Return the first error of a log of CRIU's that is one: those after it are its echo."""
    errors = [line for line in log.splitlines() if "Error (" in line]
    for line in errors:
        if not any(each in line for each in HARMLESS):
            return PREFIX.sub("", line).strip()
    return ""


def version_of(text: str) -> tuple[int, ...]:
    """Return the version in what `criu --version` prints; nothing if there is none."""
    found = re.search(r"^Version:\s*(\d+(?:\.\d+)*)", text, re.MULTILINE)
    return tuple(int(each) for each in found[1].split(".")) if found else ()
