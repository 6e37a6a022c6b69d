"""CSV blocks as columns of text, and text as numbers and times, each error with its line.

The fast path parses a block of lines at once; only when that fails does a slow pass look for the
line to blame.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from inferx.core.errors import DescriptionError
from inferx.core.types import F64, I32, I64
from inferx.core.units import FOREVER_NS, NS_PER_S
from inferx.sim.workload.source import Lines, Source, Texts, shown, split_csv, texts
from inferx.sim.workload.trace import MAX_TOKENS, SHORTEST_NS

__all__ = ["Table", "joined", "tables"]

_STAMPS: Final[tuple[pa.DataType, pa.DataType]] = (pa.timestamp("ns"), pa.timestamp("ns", "UTC"))
"""Without a UTC offset, and with one."""


def tables(source: Source, columns: tuple[str, ...]) -> Iterator["Table"]:
    """Yield a CSV file's blocks with these columns, as text; other columns are skipped."""
    header: list[str] = []
    for block in source.blocks():
        lines = block
        if not header:
            first, _, rest = block.text.removeprefix(b"\xef\xbb\xbf").partition(b"\n")
            try:
                header = split_csv(first.decode("utf-8", "replace"))
            except csv.Error as error:
                raise source.error(1, f"{error}; expected a header of column names") from error
            twice = [name for name in columns if header.count(name) != 1]
            if twice:
                raise source.error(1, f"column {twice[0]!r} stands here twice; expected it once")
            lines = Lines(source, block.line + 1, rest)
        if lines.text.strip():
            yield _parsed(lines, header, columns)


def _parsed(lines: Lines, header: list[str], columns: tuple[str, ...]) -> "Table":
    """Parse lines as CSV under this header."""
    converting = pacsv.ConvertOptions(
        column_types=dict.fromkeys(columns, pa.string()),
        include_columns=list(columns),
        strings_can_be_null=False,
    )
    reading = pacsv.ReadOptions(
        column_names=header, use_threads=False, block_size=len(lines.text) + 1
    )
    try:
        table = pacsv.read_csv(
            pa.BufferReader(lines.text),  # type: ignore[arg-type]  # or a reader of Arrow's own
            read_options=reading,
            convert_options=converting,
        )
    except pa.ArrowInvalid as error:
        raise _blame(lines, len(header)) from error
    parsed = {name: table.column(name).combine_chunks() for name in columns}
    return Table(lines, parsed, np.arange(table.num_rows))


def _blame(lines: Lines, fields: int) -> DescriptionError:
    """Find the line that is not `fields` fields of UTF-8 text."""
    for row, line in enumerate(line for line in lines.text.split(b"\n") if line.rstrip(b"\r")):
        try:
            found = len(split_csv(line.decode()))
        except UnicodeDecodeError:
            return lines.error(row, "not text; expected UTF-8")
        except csv.Error as error:
            return lines.error(row, f"{error}; expected {fields} fields, as in the header")
        if found != fields:
            what = f"{found} field{'' if found == 1 else 's'}"
            return lines.error(row, f"{what}; expected {fields}, as in the header")
    return lines.error(0, "not CSV from here on; expected one request a line")


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of text, and the row of the block that each entry came from."""

    lines: Lines
    columns: dict[str, Texts]
    origin: I64

    def __len__(self) -> int:
        return len(self.origin)

    def place(self, row: int) -> str:
        """Name the row's place in the file."""
        return self.lines.place(int(self.origin[row]))

    def error(self, row: int, what: str) -> DescriptionError:
        """Return the error that blames a row."""
        return self.lines.error(int(self.origin[row]), what)

    def text(self, name: str) -> Texts:
        """Return a column as it stands."""
        return self.columns[name]

    def filled(self, name: str) -> NDArray[np.bool_]:
        """Tell which rows have something in this column."""
        present = pc.not_equal(pc.utf8_trim_whitespace(self.columns[name]), pa.scalar(""))
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

    def numbers(
        self, name: str, *, low: float = 0.0, high: float = np.inf, called: str = ""
    ) -> F64:
        """Return a column as finite numbers within [low, high]; errors name it, or as `called`."""
        column = self.columns[name]
        try:
            values: F64 = pc.cast(pc.utf8_trim_whitespace(column), pa.float64()).to_numpy()
        except pa.ArrowInvalid as error:
            raise self._not_a_number(name, called or name) from error
        wrong = ~(np.isfinite(values) & (values >= low) & (values <= high))
        if wrong.any():
            row = int(wrong.argmax())
            range_ = f"at least {low:g}" if high == np.inf else f"{low:g} to {high:g}"
            found = shown(column[row].as_py())
            what = f"{called or name} is {found}; expected a number, {range_}"
            raise self.error(row, what)
        return values

    def _not_a_number(self, name: str, called: str) -> DescriptionError:
        for row, text in enumerate(texts(self.columns[name])):
            try:
                pc.cast(pa.scalar(text.strip()), pa.float64())
            except pa.ArrowInvalid:
                what = "empty" if not text.strip() else shown(text)
                return self.error(row, f"{called} is {what}; expected a number")
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
                parsed = pc.cast(column, _STAMPS[0])
            except pa.ArrowInvalid:
                parsed = pc.cast(column, _STAMPS[1])
        except pa.ArrowInvalid as error:
            raise self._not_a_stamp(name) from error
        stamps: I64 = pc.cast(parsed, pa.int64()).to_numpy()
        return stamps

    def _not_a_stamp(self, name: str) -> DescriptionError:
        expected = "expected a stamp such as 2023-11-16 18:17:03.9799600"
        zoned = None
        for row, text in enumerate(texts(self.columns[name])):
            kinds = [kind for kind in _STAMPS if _is_stamp(text.strip(), kind)]
            if not kinds:
                what = "empty" if not text.strip() else shown(text)
                return self.error(row, f"{name} is {what}; {expected}")
            if row and kinds != zoned:
                what = f"{name} {shown(text)} differs from the others in having a UTC offset"
                return self.error(row, f"{what} or not; {expected}")
            zoned = kinds
        raise AssertionError("the column did parse")


def joined(columns: Sequence["pa.Array[Any]"], separator: str) -> Texts:
    """Join the texts of each row."""
    return pc.binary_join_element_wise(*columns, separator)  # type: ignore[call-overload,no-any-return]  # the last may be one text


def _is_stamp(text: str, kind: "pa.DataType") -> bool:
    try:
        pc.cast(pa.scalar(text), kind)
    except pa.ArrowInvalid:
        return False
    return True
