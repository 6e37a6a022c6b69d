"""Checksums of files, taken while their bytes pass by: when they are read, copied or synced.

XXH3 with 128 bits finds what disks, links and memory do to bytes, at the speed of memory. It does
not keep out who may write to a tier's folder: they could write a manifest as well.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock
from typing import Final, TypeVar

import xxhash

from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store.durable import plain_files
from inferx.exec.agent.store.manifest import Entry, Manifest

__all__ = ["Watch", "checksum", "copy", "difference", "each_in_parallel", "faults", "seal"]

_CHUNK_BYTES: Final = 4 << 20
_THREADS_MAX: Final = 4
"""Files at once: a disk wants more than one reader, and a node's processors have other work."""


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Watch:
    """How far a long call is, and a way to end it early; for one call.

    Args:
        total_bytes: What there is to do.
        progress: Called with bytes done and in all, after each chunk, from several threads, one at
            a time.
        cancel: When set, the call ends with an `AgentError`, and nothing is left of it.
    """

    __slots__ = ("_cancel", "_done_bytes", "_lock", "_progress", "_total_bytes")

    def __init__(
        self,
        total_bytes: int = 0,
        progress: Callable[[int, int], None] | None = None,
        cancel: Event | None = None,
    ) -> None:
        self._total_bytes = total_bytes
        self._progress = progress
        self._cancel = cancel
        self._done_bytes = 0
        self._lock = Lock()

    def add(self, chunk_bytes: int) -> None:
        """Count bytes that are done.

        Raises:
            AgentError: The call was cancelled.
        """
        if self._cancel is not None and self._cancel.is_set():
            raise AgentError("cancelled", phase="cancel")
        if self._progress is not None:
            with self._lock:
                self._done_bytes += chunk_bytes
                self._progress(self._done_bytes, self._total_bytes)


def checksum(path: Path, watch: Watch) -> tuple[int, str]:
    """Return size and checksum of a file."""
    with path.open("rb", buffering=0) as file:
        return _pass(file.fileno(), None, watch)


def seal(path: Path, name: str, watch: Watch) -> Entry:
    """Return the entry of a file that was written by somebody else, and have it on the disk."""
    with path.open("rb", buffering=0) as file:
        os.fchmod(file.fileno(), 0o600)
        size_bytes, digest = _pass(file.fileno(), None, watch)
        os.fsync(file.fileno())
    return Entry(path=name, size_bytes=size_bytes, xxh3_128=digest)


def copy(source: Path, target: Path, expected: Entry, watch: Watch) -> None:
    """Copy a file to a new one, and have it on the disk.

    Read and write, for every byte is looked at: of the kernel's own copying, `sendfile` saves a
    sixth of the time at most, and `copy_file_range` does not cross file systems.

    Raises:
        AgentError: What was read is not what its manifest says.
        OSError: As ever.
    """
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with source.open("rb", buffering=0) as file:
            size_bytes, digest = _pass(file.fileno(), descriptor, watch)
        if (size_bytes, digest) != (expected.size_bytes, expected.xxh3_128):
            raise AgentError(f"{source}: {difference(expected, size_bytes, digest)}", phase="copy")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def difference(expected: Entry, size_bytes: int, digest: str) -> str:
    """Return, in words, how a file differs from its entry; empty where it does not."""
    if size_bytes != expected.size_bytes:
        return f"has {size_bytes:,} bytes, its manifest says {expected.size_bytes:,}"
    if digest != expected.xxh3_128:
        return f"has checksum {digest}, its manifest says {expected.xxh3_128}"
    return ""


def faults(folder: Path, manifest: Manifest, watch: Watch) -> list[str]:
    """Read every byte of a snapshot's files, and return what is wrong, a line for each file."""
    there = {path for path, _ in plain_files(folder)}
    expected = {entry.path for entry in manifest.files}
    found = [f"{path}: not in the manifest" for path in sorted(there - expected)]
    found += [f"{path}: missing" for path in sorted(expected - there)]

    def check(entry: Entry) -> str:
        what = difference(entry, *checksum(folder / entry.path, watch))
        return f"{entry.path}: {what}" if what else ""

    kept = [entry for entry in manifest.files if entry.path in there]
    return found + [fault for fault in each_in_parallel(check, kept) if fault]


def each_in_parallel(work: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """Return what work gives for each item, a few at a time; the first error ends it all."""
    if len(items) <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(_THREADS_MAX, len(items)), thread_name_prefix="store") as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _pass(source: int, target: int | None, watch: Watch) -> tuple[int, str]:
    """Read a file to its end, write it elsewhere if told, and return size and checksum."""
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    digest = xxhash.xxh3_128()
    size_bytes = 0
    while count := os.readv(source, [buffer]):
        chunk = buffer[:count]
        digest.update(chunk)
        while target is not None and chunk:
            chunk = chunk[os.write(target, chunk) :]
        size_bytes += count
        watch.add(count)
    return size_bytes, digest.hexdigest()
