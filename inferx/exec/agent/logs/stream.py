"""One stream of a pod's output as a file that grows at its end and is emptied from its start.

The pod writes through a descriptor of its own, so the file can be neither renamed away nor replaced
under it. Its first blocks are taken instead: every later byte keeps its offset, so that an offset
means the same for ever, and a reader that was overtaken knows how much it missed.
"""

import ctypes
import errno
import os
from pathlib import Path
from typing import Final

__all__ = ["BLOCK_BYTES", "STREAMS", "first_byte", "held_bytes", "tail_from", "trim"]

STREAMS: Final = ("stdout", "stderr")
"""Each is `NAME.log` in its pod's folder."""
BLOCK_BYTES: Final = 64 * 1024
_ALIGNED_BYTES: Final = 4096
_KEEP_SIZE_PUNCH_HOLE: Final = 0x01 | 0x02
"""Linux's FALLOC_FL_KEEP_SIZE and FALLOC_FL_PUNCH_HOLE."""


def first_byte(descriptor: int) -> int:
    """Return the offset of the first byte that is still there; the file's size where none is."""
    try:
        return os.lseek(descriptor, 0, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return os.fstat(descriptor).st_size


def held_bytes(path: Path) -> int:
    """Return how much of a stream is there; 0 where it has no file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        return os.fstat(descriptor).st_size - first_byte(descriptor)
    finally:
        os.close(descriptor)


def trim(path: Path, limit_bytes: int) -> None:
    """Give up the older half of what may be there, where more is there; no file is fine.

    On a file system that cannot take blocks from a file's start, all that was written is given up.

    Raises:
        OSError: It could not be done.
    """
    if held_bytes(path) <= limit_bytes:
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        upto = os.fstat(descriptor).st_size - limit_bytes // 2
        upto -= upto % _ALIGNED_BYTES
        if not _punched(descriptor, upto):
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _punched(descriptor: int, upto: int) -> bool:
    """Free a file's bytes before an offset; False where its file system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    range_ = (ctypes.c_int64(0), ctypes.c_int64(upto))
    if libc.fallocate(descriptor, _KEEP_SIZE_PUNCH_HOLE, *range_) == 0:
        return True
    number = ctypes.get_errno()
    if number in {errno.EOPNOTSUPP, errno.ENOSYS}:
        return False
    raise OSError(number, os.strerror(number))


def tail_from(descriptor: int, lines: int | None) -> int:
    """Return the offset at which the last lines begin; None is all of them.

    A line of which only the end is there is none of them.
    """
    end = os.fstat(descriptor).st_size
    start = _whole_from(descriptor, first_byte(descriptor), end)
    if lines is None:
        return start
    if lines == 0 or start == end:
        return end
    # The newline that ends the last line begins no other one.
    wanted = lines + (os.pread(descriptor, 1, end - 1) == b"\n")
    at = end
    while at > start:
        size = min(BLOCK_BYTES, at - start)
        block = os.pread(descriptor, size, at - size)
        found = block.count(b"\n")
        if found >= wanted:
            position = len(block)
            for _ in range(wanted):
                position = block.rindex(b"\n", 0, position)
            return at - size + position + 1
        wanted -= found
        at -= size
    return start


def _whole_from(descriptor: int, start: int, end: int) -> int:
    """Return where the first whole line begins, where the beginning of one was given up."""
    if start == 0:
        return 0
    position = os.pread(descriptor, min(BLOCK_BYTES, end - start), start).find(b"\n")
    return start + position + 1 if position >= 0 else start
