"""Reads a pod's output: its last lines, and with `follow` what comes, until the pod has ended."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from inferx.exec.agent.logs.stream import BLOCK_BYTES, first_byte, tail_from

__all__ = ["Piece", "PodReader"]


class Piece(NamedTuple):
    """Some bytes of a stream; `skipped_bytes` before them were given up before they were read."""

    stream: str
    text: bytes
    skipped_bytes: int = 0


class PodReader:
    """Reads the streams of one pod, whose folder moves when it ends. Blocks; for one thread.

    Args:
        streams: Names of those to read.
        lines: How many of each to begin with; None begins with all.
        folder: Where they are now; None where they are no longer kept.
        follow: Whether what is written after they were opened is read as well.
    """

    def __init__(
        self,
        streams: Sequence[str],
        lines: int | None,
        folder: Callable[[], Path | None],
        *,
        follow: bool,
    ) -> None:
        self._streams = streams
        self._lines: dict[str, int | None] = dict.fromkeys(streams, lines)
        self._folder = folder
        self._follow = follow
        self._open: dict[str, int] = {}
        self._at: dict[str, int] = {}
        self._end: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def read(self) -> Iterator[Piece]:
        """Yield what is there and was not read before, at most a block of each stream.

        Raises:
            OSError: It cannot be read.
        """
        self.open()
        for stream, descriptor in self._open.items():
            at, size = self._at[stream], os.fstat(descriptor).st_size
            if size < at:
                at = 0  # The whole file was given up.
            skipped = max(first_byte(descriptor) - at, 0)
            room = BLOCK_BYTES if self._follow else self._end[stream] - at - skipped
            text = os.pread(descriptor, max(min(room, BLOCK_BYTES), 0), at + skipped)
            self._at[stream] = at + skipped + len(text)
            if text:
                yield Piece(stream, text, skipped)

    def open(self) -> None:
        """Open what is there and was not: what is written from now on is read.

        Raises:
            OSError: It cannot be opened.
        """
        missing = [stream for stream in self._streams if stream not in self._open]
        folder = self._folder() if missing else None
        for stream in missing if folder is not None else ():
            assert folder is not None
            try:
                path = folder / f"{stream}.log"
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                # One that is made later is new from its first byte on.
                self._lines[stream] = None
                continue
            self._open[stream] = descriptor
            self._end[stream] = os.fstat(descriptor).st_size
            self._at[stream] = tail_from(descriptor, self._lines[stream])
