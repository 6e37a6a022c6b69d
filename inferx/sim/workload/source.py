"""A trace file on its way to becoming rows: bytes, lines, columns, each error with its line.

Laws: memory is bounded by one block, whatever the file; a file is never looked at by its name; what
is wrong with it is one DescriptionError that says where, what, and what was expected.

The fast path parses a block of lines at once; only when that fails does a slow pass look for the
line to blame.
"""

import csv
import gzip
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from inferx.core.errors import DescriptionError
from inferx.core.types import F64, I32, I64
from inferx.core.units import FOREVER_NS, NS_PER_S
from inferx.sim.workload.trace import MAX_TOKENS, SHORTEST_NS

__all__ = ["Format", "Head", "Interner", "Lines", "Rows", "Source", "Table", "plural"]

BLOCK_BYTES = 1 << 21
"""Bytes read at once; a line longer than this is an error, not a line."""

SNIFF_BYTES = 1 << 16

SHOWN_CHARS = 60
"""How much of a bad value an error repeats."""

DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error)


def plural(count: int, noun: str) -> str:
    """Return "1 row", "2 rows"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def shown(text: str) -> str:
    """Return a value as an error shows it: quoted, escaped, cut."""
    return repr(text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "...")


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

    def codes(self, column: "pa.StringArray", rename: Callable[[str], str] = str) -> I32:
        """Return the index of every row's name; `rename` is asked once a different name."""
        encoded = column.dictionary_encode()
        names = encoded.dictionary.to_pylist()
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
        return frozenset(name.strip().strip('"') for name in self.line.split(","))


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
    dropped: dict[str, int] = field(default_factory=dict)
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
                    if b"\0" in text:
                        at = line + text[: text.index(b"\0")].count(b"\n")
                        raise self.error(at, "binary content; expected text")
                    yield Lines(self, line, text)
                line += text.count(b"\n")
                if not piece:
                    return

    def tables(self, columns: tuple[str, ...]) -> "Iterator[Table]":
        """Yield a CSV file's blocks with these columns, as text; others are skipped."""
        header: list[str] = []
        for block in self.blocks():
            lines = block
            if not header:
                first, _, rest = block.text.removeprefix(b"\xef\xbb\xbf").partition(b"\n")
                header = _split(first.decode("utf-8", "replace"))
                lines = Lines(self, block.line + 1, rest)
            if lines.text.strip():
                yield lines.table(header, columns)


class _Gunzip(gzip.GzipFile):
    """A gzip reader that owns the file below it."""

    def __init__(self, raw: BinaryIO) -> None:
        super().__init__(fileobj=raw, mode="rb")
        self._below = raw

    def close(self) -> None:
        super().close()
        self._below.close()


def _split(line: str) -> list[str]:
    fields = next(csv.reader([line.rstrip("\r\n")]), [])
    return [name.strip() for name in fields]


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

    def table(self, header: list[str], columns: tuple[str, ...]) -> "Table":
        """Parse as CSV under this header."""
        options = pacsv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.string()),
            include_columns=list(columns),
            strings_can_be_null=False,
        )
        reading = pacsv.ReadOptions(
            column_names=header, use_threads=False, block_size=len(self.text) + 1
        )
        try:
            table = pacsv.read_csv(
                pa.BufferReader(self.text), read_options=reading, convert_options=options
            )
        except pa.ArrowInvalid as error:
            raise self._blame(len(header)) from error
        parsed = {name: table.column(name).combine_chunks() for name in columns}
        return Table(self, parsed, np.arange(table.num_rows))

    def _blame(self, fields: int) -> DescriptionError:
        """Find the line that is not `fields` fields of UTF-8 text."""
        for row, line in enumerate(line for line in self.text.split(b"\n") if line.rstrip(b"\r")):
            try:
                found = len(_split(line.decode()))
            except UnicodeDecodeError:
                return self.error(row, "not text; expected UTF-8")
            except csv.Error as error:
                return self.error(row, f"{error}; expected {plural(fields, 'field')}")
            if found != fields:
                return self.error(
                    row, f"{plural(found, 'field')}; expected {fields}, as in the header"
                )
        return self.error(0, "not CSV from here on; expected one request a line")


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of text, and the row of the block that each entry came from."""

    lines: Lines
    columns: dict[str, "pa.StringArray"]
    origin: I64

    def __len__(self) -> int:
        return len(self.origin)

    def place(self, row: int) -> str:
        """Name the row's place in the file."""
        return self.lines.place(int(self.origin[row]))

    def error(self, row: int, what: str) -> DescriptionError:
        """Return the error that blames a row."""
        return self.lines.error(int(self.origin[row]), what)

    def text(self, name: str) -> "pa.StringArray":
        """Return a column as it stands."""
        return self.columns[name]

    def filled(self, name: str) -> NDArray[np.bool_]:
        """Tell which rows have something in this column."""
        present = pc.not_equal(pc.utf8_trim_whitespace(self.columns[name]), "")
        mask: NDArray[np.bool_] = present.to_numpy(zero_copy_only=False)
        return mask

    def where(self, keep: NDArray[np.bool_], reason: str) -> "Table":
        """Keep some rows; count the others as dropped for `reason`."""
        if keep.all():
            return self
        self.lines.source.drop(reason, int((~keep).sum()))
        mask = pa.array(keep)
        kept = {name: column.filter(mask) for name, column in self.columns.items()}
        return Table(self.lines, kept, self.origin[keep])

    def numbers(self, name: str, *, low: float = 0.0, high: float = np.inf) -> F64:
        """Return a column as finite numbers within [low, high]."""
        column = self.columns[name]
        try:
            values: F64 = pc.cast(pc.utf8_trim_whitespace(column), pa.float64()).to_numpy()
        except pa.ArrowInvalid as error:
            raise self._not_a_number(name) from error
        wrong = ~(np.isfinite(values) & (values >= low) & (values <= high))
        if wrong.any():
            row = int(wrong.argmax())
            range_ = f"at least {low:g}" if high == np.inf else f"{low:g} to {high:g}"
            what = f"{name} is {shown(column[row].as_py())}; expected a number, {range_}"
            raise self.error(row, what)
        return values

    def _not_a_number(self, name: str) -> DescriptionError:
        for row, text in enumerate(self.columns[name].to_pylist()):
            try:
                pc.cast(pa.scalar(text.strip()), pa.float64())
            except pa.ArrowInvalid:
                what = "empty" if not text.strip() else shown(text)
                return self.error(row, f"{name} is {what}; expected a number")
        raise AssertionError("the column did parse")

    def tokens(self, name: str) -> I32:
        """Return a column of token counts."""
        values = self.numbers(name, high=MAX_TOKENS)
        wrong = values != np.floor(values)
        if wrong.any():
            row = int(wrong.argmax())
            found = shown(self.columns[name][row].as_py())
            raise self.error(row, f"{name} is {found}; expected a whole number of tokens")
        return values.astype(np.int32)

    def seconds_ns(self, name: str) -> I64:
        """Return a column of times or durations in seconds as nanoseconds."""
        values = self.numbers(name, high=FOREVER_NS / NS_PER_S / 2)
        return np.rint(values * NS_PER_S).astype(np.int64)

    def durations_ns(self, name: str, *, scale_ns: int = NS_PER_S) -> I64:
        """Return a column of measured durations; zero is read as the shortest, 1 ms."""
        values = self.numbers(name, high=FOREVER_NS / scale_ns / 2)
        measured = np.rint(values * scale_ns).astype(np.int64)
        return np.where(measured == 0, SHORTEST_NS, measured)

    def stamps_ns(self, name: str) -> I64:
        """Return a column of calendar stamps as nanoseconds since 1970.

        Up to nine fractional digits. Either every stamp of a file has a UTC offset or none has.
        """
        column = pc.utf8_trim_whitespace(self.columns[name])
        if not len(column):
            return np.zeros(0, np.int64)
        try:
            try:
                parsed = pc.cast(column, pa.timestamp("ns"))
            except pa.ArrowInvalid:
                parsed = pc.cast(column, pa.timestamp("ns", "UTC"))
        except pa.ArrowInvalid as error:
            raise self._not_a_stamp(name) from error
        stamps: I64 = pc.cast(parsed, pa.int64()).to_numpy()
        return stamps

    def _not_a_stamp(self, name: str) -> DescriptionError:
        expected = "expected a stamp such as 2023-11-16 18:17:03.9799600"
        zoned = None
        for row, text in enumerate(self.columns[name].to_pylist()):
            kinds = [
                kind for kind in (None, "UTC") if _is_stamp(text.strip(), pa.timestamp("ns", kind))
            ]
            if not kinds:
                what = "empty" if not text.strip() else shown(text)
                return self.error(row, f"{name} is {what}; {expected}")
            if row and kinds != zoned:
                what = f"{name} {shown(text)} differs from the others in having a UTC offset"
                return self.error(row, f"{what} or not; {expected}")
            zoned = kinds
        raise AssertionError("the column did parse")


def _is_stamp(text: str, kind: "pa.DataType") -> bool:
    try:
        pc.cast(pa.scalar(text), kind)
    except pa.ArrowInvalid:
        return False
    return True
