"""Weights: bytes that follow from a seed, in memory or in a file.

The bytes of a piece are one block of random bytes, exclusive-or a number of the piece's own: they
are made at the speed of memory, no page is like another, and none compresses.
"""

import os
from collections.abc import Callable
from io import RawIOBase
from pathlib import Path
from typing import BinaryIO

import numpy as np

from inferx.core.rng import stream
from inferx.exec.worker.engine import WorkerError
from inferx.exec.worker.memory import CHUNK_BYTES, Fill

__all__ = ["from_file", "from_seed", "write_file", "write_weights"]

_MIX = np.uint64(0x9E3779B97F4A7C15)
"""An odd number: its multiples differ in all their bits."""


def from_seed(seed: int) -> Fill:
    """Return what fills pieces with the bytes that follow from `seed`."""
    base = stream(seed, "weights").integers(
        0, np.iinfo(np.uint64).max, CHUNK_BYTES // 8, dtype=np.uint64, endpoint=True
    )

    def fill(piece: memoryview, offset: int) -> None:
        index = np.array([offset // CHUNK_BYTES + 1], dtype=np.uint64)
        words = base[: -(-len(piece) // 8)] ^ (index * _MIX)
        piece[:] = words.view(np.uint8)[: len(piece)].data

    return fill


def from_file(path: Path, file: RawIOBase) -> Fill:
    """Return what fills pieces with a file's bytes, read in order from where the file stands."""

    def fill(piece: memoryview, offset: int) -> None:
        done = 0
        while done < len(piece):
            with piece[done:] as rest:
                count = file.readinto(rest)
            if not count:
                raise WorkerError(f"{path}: ends at byte {offset + done} of the weights")
            done += count

    return fill


def write_weights(path: Path, size: int, seed: int) -> None:
    """Write a file of `size` bytes that follow from `seed`; it is there whole or not at all."""
    fill = from_seed(seed)

    def write(file: BinaryIO) -> None:
        for offset in range(0, size, CHUNK_BYTES):
            piece = bytearray(min(CHUNK_BYTES, size - offset))
            fill(memoryview(piece), offset)
            file.write(piece)

    write_file(path, write)


def write_file(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Have a file written beside its place, then put there; nothing is left after an error."""
    if path.is_dir():
        raise WorkerError(f"{path}: a folder; expected the name of a file to write")
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            write(file)
        beside.replace(path)
    except OSError as error:
        raise WorkerError(f"{path}: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)
