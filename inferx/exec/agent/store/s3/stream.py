"""A snapshot's files as one stream of bytes, in blocks: several on their way, each file verified.

The stream is the files one after another, in the order of the manifest: so a transfer is as fast
with many small files as with one large one. Blocks are read and written in order by the caller's
thread, while others carry the next ones.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import xxhash

from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store.checksum import Watch, difference, each_in_parallel
from inferx.exec.agent.store.durable import make_folder
from inferx.exec.agent.store.manifest import Entry, Manifest

__all__ = ["Deadline", "carried", "faults_of", "file_blocks", "write_files"]

_THREADS: Final = 8
"""Connections at once: one alone does not fill a node's link to S3."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Deadline:
    """When a transfer has to have ended.

    Args:
        size_bytes: Of the transfer.
        most_s: Not later than this, whatever its size.
    """

    START_S: Final = 120.0
    LEAST_BYTES_PER_S: Final = 4 << 20

    def __init__(self, size_bytes: int, *, most_s: float) -> None:
        self._within_s = min(self.START_S + size_bytes / self.LEAST_BYTES_PER_S, most_s)
        self._size_bytes = size_bytes
        self._until_s = time.monotonic() + self._within_s

    def check(self) -> None:
        """Raise where it has passed."""
        if time.monotonic() > self._until_s:
            text = f"{self._size_bytes:,} bytes were not carried within {self._within_s:,.0f} s"
            raise AgentError(text, phase="copy")


def carried(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Generator[_Result]:
    """Yield what work gives for each item, in order, a few ahead; the first error ends it all.

    To be closed, for then what has not begun does not begin.
    """
    waiting: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="s3") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= _THREADS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def file_blocks(folder: Path, manifest: Manifest, block_bytes: int) -> Generator[bytearray]:
    """Yield the stream of files on this node, in blocks of that size but for the last.

    Raises:
        AgentError: A file is not what the manifest says.
        OSError: As ever.
    """
    block = bytearray()
    for entry in manifest.files:
        digest, size_bytes = xxhash.xxh3_128(), 0
        with (folder / entry.path).open("rb", buffering=0) as file:
            while chunk := file.read(block_bytes - len(block)):
                digest.update(chunk)
                size_bytes += len(chunk)
                block += chunk
                if len(block) == block_bytes:
                    yield block
                    block = bytearray()
        if what := difference(entry, size_bytes, digest.hexdigest()):
            raise AgentError(f"{folder / entry.path}: {what}", phase="copy")
    if block:
        yield block


def write_files(
    into: Path, manifest: Manifest, blocks: Iterator[bytearray], watch: Watch, *, where: str
) -> None:
    """Write a stream's files into an empty folder, verified and on the disk.

    Raises:
        AgentError: What came is not what the manifest says.
        OSError: As ever.
    """
    for folder in {(into / entry.path).parent for entry in manifest.files}:
        make_folder(folder)
    for entry, chunks in _by_file(manifest.files, blocks):
        descriptor = os.open(into / entry.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            if entry.size_bytes:
                # A disk that is full is known before anything is written to it.
                os.posix_fallocate(descriptor, 0, entry.size_bytes)
            what = _pass(entry, chunks, descriptor, watch)
        finally:
            os.close(descriptor)
        if what:
            raise AgentError(f"{where}: {entry.path} {what}", phase="copy")
    each_in_parallel(_sync, [into / entry.path for entry in manifest.files])


def faults_of(manifest: Manifest, blocks: Iterator[bytearray], watch: Watch) -> list[str]:
    """Return what is wrong with a stream, a line for each file."""
    found: list[str] = []
    for entry, chunks in _by_file(manifest.files, blocks):
        if what := _pass(entry, chunks, None, watch):
            found.append(f"{entry.path}: {what}")
    return found


def _by_file(
    files: Sequence[Entry], blocks: Iterator[bytearray]
) -> Iterator[tuple[Entry, Iterator[memoryview]]]:
    """Yield each file with its bytes, which are to be taken before the next file is."""
    rest = memoryview(b"")

    def chunks(size_bytes: int) -> Iterator[memoryview]:
        nonlocal rest
        while size_bytes:
            if not rest:
                rest = memoryview(next(blocks))
            chunk, rest = rest[:size_bytes], rest[size_bytes:]
            size_bytes -= len(chunk)
            yield chunk

    for entry in files:
        yield entry, chunks(entry.size_bytes)


def _pass(entry: Entry, chunks: Iterator[memoryview], target: int | None, watch: Watch) -> str:
    """Look at all bytes of a file, write them if told, and return how they differ."""
    digest = xxhash.xxh3_128()
    for chunk in chunks:
        digest.update(chunk)
        unwritten = chunk
        while target is not None and unwritten:
            unwritten = unwritten[os.write(target, unwritten) :]
        watch.add(len(chunk))
    return difference(entry, entry.size_bytes, digest.hexdigest())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
