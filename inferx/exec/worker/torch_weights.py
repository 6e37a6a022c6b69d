"""The weights of a torch worker: from a seed, or from a file that says which model it holds.

A file is one line of JSON, then all numbers as little-endian float32, in the model's order.
"""

import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import numpy as np

from inferx.core.errors import UNDECODABLE
from inferx.core.rng import stream
from inferx.exec.worker.engine import WorkerError
from inferx.exec.worker.memory import Fill
from inferx.exec.worker.torch_model import ModelShape, shape_within, tensors_of
from inferx.exec.worker.weights import from_file, write_file

__all__ = ["from_numbers", "numbers", "opened", "write_torch_weights"]

FORMAT: Final = "inferx-torch-weights-1"
_HEAD_BYTES: Final = 4096
"""The first line is shorter than this, or the file is another's."""


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    format: str
    layers: int
    width: int


def numbers(shape: ModelShape, seed: int) -> Iterator[bytes]:
    """Yield the numbers that follow from a seed, a tensor at a time."""
    rng = stream(seed, "torch weights")
    for one in tensors_of(shape):
        # Uniform and not normal: a third of the time, and as good for what is not trained.
        drawn = rng.random(math.prod(one.shape), dtype=np.float32)
        drawn -= np.float32(0.5)
        drawn *= np.float32(math.sqrt(12.0) * one.deviation)
        yield drawn.astype("<f4", copy=False).tobytes()


def from_numbers(shape: ModelShape, seed: int) -> Fill:
    """Return what fills memory, in order, with the numbers that follow from a seed."""
    source = numbers(shape, seed)
    rest = memoryview(b"")

    def fill(piece: memoryview, offset: int) -> None:
        nonlocal rest
        del offset
        done = 0
        while done < len(piece):
            if not rest:
                rest = memoryview(next(source))
            count = min(len(rest), len(piece) - done)
            piece[done : done + count] = rest[:count]
            rest, done = rest[count:], done + count

    return fill


@contextmanager
def opened(path: Path) -> Generator[tuple[ModelShape, Fill], None, None]:
    """Open a file of weights: which model it holds, and what fills memory with it.

    Raises:
        WorkerError: It cannot be read, or is no such file.
    """
    try:
        with path.open("rb", buffering=0) as file:
            head = file.read(_HEAD_BYTES)
            line, newline, _ = head.partition(b"\n")
            try:
                found = msgspec.json.decode(line, type=_Head)
            except UNDECODABLE:
                found = None
            if not newline or found is None or found.format != FORMAT:
                raise WorkerError(
                    f"{path}: no weights of a torch worker; expected a file of "
                    "`inferx worker weights --engine torch`"
                )
            shape = ModelShape(layers=found.layers, width=found.width)
            start = len(line) + 1
            size = path.stat().st_size - start
            if size != shape.weight_bytes:
                raise WorkerError(
                    f"{path}: {size} bytes of weights; expected {shape.weight_bytes} for "
                    f"{shape.layers} layers of width {shape.width}"
                )
            file.seek(start)
            yield shape, from_file(path, file)
    except OSError as error:
        raise WorkerError(f"{path}: {error.strerror}") from error


def write_torch_weights(path: Path, size: int, seed: int) -> int:
    """Write the widest model within `size` bytes; return the bytes of its weights."""
    shape = shape_within(size)
    head = _Head(format=FORMAT, layers=shape.layers, width=shape.width)

    def write(file: BinaryIO) -> None:
        file.write(msgspec.json.encode(head) + b"\n")
        file.writelines(numbers(shape, seed))

    write_file(path, write)
    return shape.weight_bytes
