"""What is kept beside CRIU's own files: numbers of processes, what to lead elsewhere, sizes."""

import itertools
import os
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from inferx.core.errors import UNDECODABLE
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.processes.criu_files import check_sizes, sizes_of

__all__ = ["Image", "choose_last_pid", "version_of"]

NAME = "processes.json"
FREE = 256
"""Numbers in a row that CRIU needs for itself and what it starts, with room to spare."""


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
        return sizes_of(folder, but=NAME)

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
        except UNDECODABLE as error:
            raise AgentError(f"{folder / NAME}: {error}", phase="image") from error
        check_sizes(folder, image.sizes)
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


def version_of(text: str) -> tuple[int, ...]:
    """Return the version in what `criu --version` prints; nothing if there is none."""
    found = re.search(r"^Version:\s*(\d+(?:\.\d+)*)", text, re.MULTILINE)
    return tuple(int(each) for each in found[1].split(".")) if found else ()
