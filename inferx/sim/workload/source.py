"""A trace file on its way to becoming rows: bytes and lines, each error with its line.

Laws: memory is bounded by one block, whatever the file; a file is never looked at by its name; what
is wrong with it is one DescriptionError that says where, what, and what was expected.
"""

import csv
import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from inferx.core.errors import DescriptionError
from inferx.core.types import I32, I64

__all__ = [
    "DAMAGED",
    "Format",
    "Head",
    "Interner",
    "Lines",
    "Rows",
    "Source",
    "Texts",
    "shown",
    "split_csv",
    "texts",
]

Texts: TypeAlias = "pa.Array[pa.StringScalar]"
"""A column of text."""

BLOCK_BYTES = 1 << 21
"""Bytes read at once; a line longer than this is an error, not a line."""

SNIFF_BYTES = 1 << 16

SHOWN_CHARS = 60
"""How much of a bad value an error repeats."""

DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error)


def shown(text: str) -> str:
    """Return a value as an error shows it: quoted, escaped, cut."""
    return repr(text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "...")


def texts(column: "pa.Array[Any]") -> list[str]:
    """Return a column's texts; columns of CSV have no nulls."""
    return column.to_pylist()  # type: ignore[return-value]  # see above


class Interner:
    """Names in order of first appearance, each with its index."""

    def __init__(self) -> None:
        self._code_of: dict[str, int] = {}
        self._names: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All names so far."""
        if len(self._names) != len(self._code_of):
            self._names = tuple(self._code_of)
        return self._names

    def code(self, name: str) -> int:
        """Return the name's index, a new one for a new name."""
        return self._code_of.setdefault(name, len(self._code_of))

    def codes(self, column: Texts, rename: Callable[[str], str] = str) -> I32:
        """Return the index of every row's name; `rename` is asked once a different name."""
        encoded = column.dictionary_encode()  # pyright: ignore[reportUnknownVariableType]  # the stubs forget of what
        names = texts(encoded.dictionary)  # pyright: ignore[reportUnknownArgumentType]  # as above
        table = np.array([self.code(rename(name)) for name in names], np.int32)
        indices: NDArray[np.int32] = encoded.indices.to_numpy(zero_copy_only=False)
        return table[indices] if len(indices) else np.zeros(0, np.int32)


@dataclass(frozen=True, slots=True)
class Head:
    """The first bytes of a file, decompressed: what a format is recognised by."""

    start: bytes

    @property
    def line(self) -> str:
        """The first line, or as much of it as was looked at."""
        first = self.start.partition(b"\n")[0].decode("utf-8", "replace")
        return first.removeprefix("\ufeff").rstrip("\r")

    @property
    def columns(self) -> frozenset[str]:
        """The first line's fields, as if it were a CSV header."""
        try:
            return frozenset(split_csv(self.line))
        except csv.Error:
            return frozenset()


@dataclass(slots=True, kw_only=True)
class Rows:
    """Requests as a format tells them; arrival times have any origin, and maybe any order."""

    at_ns: I64
    function: I32
    input_tokens: I32 | None = None
    output_tokens: I32 | None = None
    duration_ns: I64 | None = None
    tenant: I32 | None = None
    priority: I32 | None = None
    place: Callable[[int], str]
    """Row -> where it stands in the file, as an error names it."""


class Format(Protocol):
    """One file format; a module of `formats` is one, by having these names."""

    NAME: str
    """Short and stable: what `info` prints."""
    EXPECTS: str
    """What the head looks like, for the error when nothing matches."""
    ORDERED: bool
    """Whether rows come in order of arrival. If so a row that goes back is an error."""

    COMPANION: bool
    """Whether durations may come from a second file."""

    def matches(self, head: Head) -> bool:
        """Tell whether a file that begins like this is of this format."""
        ...

    def rows(self, source: "Source") -> Iterator[Rows]:
        """Read it, in bounded pieces."""
        ...


@dataclass(slots=True, kw_only=True)
class Source:
    """One pass over one file, and what was learnt on the way."""

    path: Path
    seed: int = 0
    durations: Path | None = None
    functions: Interner = field(default_factory=Interner)
    tenants: Interner = field(default_factory=Interner)
    dropped: dict[str, int] = field(default_factory=dict[str, int])
    bytes_total: int = 0
    _raw: BinaryIO | None = None

    @property
    def bytes_read(self) -> int:
        """How far into the stored, maybe compressed, file the reader is."""
        return 0 if self._raw is None or self._raw.closed else self._raw.tell()

    def open(self) -> BinaryIO:
        """Open the content, decompressed where the file is gzip."""
        try:
            if not self.path.is_file():
                kind = "not a regular file" if self.path.exists() else "no such file"
                kind = "a directory" if self.path.is_dir() else kind
                raise DescriptionError(f"{self.path}: {kind}; expected a request trace")
            raw = self.path.open("rb")
        except OSError as error:
            why = error.strerror or error
            raise DescriptionError(f"{self.path}: {why}; expected a request trace") from error
        self.bytes_total = self.path.stat().st_size
        self._raw = raw
        magic = raw.read(2)
        raw.seek(0)
        return cast("BinaryIO", _Gunzip(raw)) if magic == b"\x1f\x8b" else raw

    def close(self) -> None:
        """Close the file, whoever is reading it."""
        if self._raw is not None:
            self._raw.close()

    def head(self) -> Head:
        """Look at the beginning."""
        with self.open() as file:
            try:
                start = file.read(SNIFF_BYTES)
            except DAMAGED as error:
                raise self.error(1, "the compressed file is damaged or cut short") from error
        if not start.strip():
            raise self.error(1, "the file is empty; expected a request trace")
        return Head(start)

    def error(self, line: int, what: str) -> DescriptionError:
        """Return the error that blames a line; the first is 1."""
        return DescriptionError(f"{self.path}:{line}: {what}")

    def drop(self, reason: str, count: int) -> None:
        """Count rows that are left out."""
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def blocks(self) -> "Iterator[Lines]":
        """Yield whole lines in blocks of bounded size."""
        with self.open() as file:
            line, rest = 1, b""
            while True:
                try:
                    piece = file.read(BLOCK_BYTES)
                except DAMAGED as error:
                    what = "the compressed file is damaged or cut short here"
                    raise self.error(line, f"{what}; expected a whole gzip file") from error
                end = piece.rfind(b"\n") + 1
                if not piece:
                    text, rest = rest, b""
                elif not end:
                    text, rest = b"", rest + piece
                else:
                    text, rest = rest + piece[:end], piece[end:]
                if len(rest) > BLOCK_BYTES:
                    limit = f"expected lines of at most {BLOCK_BYTES >> 20} MiB"
                    raise self.error(line + text.count(b"\n"), f"the line does not end; {limit}")
                if text.strip():
                    self._check_text(line, text)
                    yield Lines(self, line, text)
                line += text.count(b"\n")
                if not piece:
                    return

    def _check_text(self, line: int, text: bytes) -> None:
        """Refuse what is no text, and lone carriage returns: not every parser ends a line there."""
        at = text.find(b"\0")
        if at >= 0:
            what = "binary content; expected text"
            raise self.error(line + text[:at].count(b"\n"), what)
        if text.count(b"\r") != text.count(b"\r\n"):
            alone = re.search(rb"\r(?!\n)", text)
            assert alone is not None
            what = "a carriage return inside the line; expected lines that end in a line feed"
            raise self.error(line + text[: alone.start()].count(b"\n"), what)


class _Gunzip(gzip.GzipFile):
    """A gzip reader that owns the file below it."""

    def __init__(self, raw: BinaryIO) -> None:
        super().__init__(fileobj=raw, mode="rb")
        self._below = raw

    def close(self) -> None:
        super().close()
        self._below.close()


def split_csv(line: str) -> list[str]:
    """Return the fields of one line."""
    return [name.strip() for name in next(csv.reader([line.rstrip("\r\n")]), list[str]())]


@dataclass(frozen=True, slots=True)
class Lines:
    """Some whole lines of a file."""

    source: Source
    line: int
    """Number of the first line; a file's first is 1."""
    text: bytes

    def numbers(self) -> list[int]:
        """Return the number of every line that is not blank."""
        lines = self.text.split(b"\n")
        return [self.line + i for i, line in enumerate(lines) if line.rstrip(b"\r")]

    def error(self, row: int, what: str) -> DescriptionError:
        """Return the error that blames the block's row; blank lines are not rows."""
        return self.source.error(self.numbers()[row], what)

    def place(self, row: int) -> str:
        """Name the row's place in the file."""
        return f"{self.source.path}:{self.numbers()[row]}"
