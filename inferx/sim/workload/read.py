"""Reading: any known file to chunks of a Trace, in one pass and bounded memory.

A file's format is found from its content. Times are moved so that the first arrival is 0.
Formats that record requests in another order than that of arrival are sorted, see `order`; in the
others a row that goes back in time is an error, unless `sort` asks to sort them too.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from inferx.core.errors import DescriptionError
from inferx.core.units import FOREVER_NS, NS_PER_S
from inferx.sim.workload.formats import FORMATS
from inferx.sim.workload.order import in_order
from inferx.sim.workload.source import Format, Head, Rows, Source, shown
from inferx.sim.workload.trace import Trace, chunks_of, concat, make_trace

__all__ = ["TraceReader", "open_trace", "read_trace"]


class TraceReader:
    """A trace file, to be read chunk by chunk; each iteration is a fresh pass.

    Attributes:
        path: The file.
        format: Short name of its format.
    """

    def __init__(self, path: Path, *, seed: int, sort: bool, durations: Path | None) -> None:
        self.path = path
        self._seed = seed
        self._sort = sort
        self._durations = durations
        self._source = self._fresh()
        self._format = _recognise(self._source)
        self.format = self._format.NAME
        if durations is not None and not self._format.COMPANION:
            raise DescriptionError(
                f"{path}: {self.format} has its durations; expected no second file"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Functions met so far in this pass; all of them once it is over."""
        return self._source.functions.names

    @property
    def tenants(self) -> tuple[str, ...]:
        """Tenants met so far in this pass."""
        return self._source.tenants.names

    @property
    def dropped(self) -> dict[str, int]:
        """Reason -> how many rows were left out for it, so far in this pass."""
        return dict(self._source.dropped)

    @property
    def bytes_total(self) -> int:
        """Size of the file, as stored."""
        return self._source.bytes_total

    @property
    def bytes_read(self) -> int:
        """How much of it this pass has read."""
        return self._source.bytes_read

    def __iter__(self) -> Iterator[Trace]:
        """Yield chunks of 1 to `CHUNK_ROWS` rows; a file without any usable row is an error."""
        self._source = source = self._fresh()
        try:
            yield from self._chunks(source)
        finally:
            # Who broke off may keep its error, and with it all that was reading, for long.
            source.close()

    def _chunks(self, source: Source) -> Iterator[Trace]:
        pieces = self._format.rows(source)
        if self._sort or not self._format.ORDERED:
            pieces = in_order(pieces)
        origin_ns: int | None = None
        last_ns = 0
        for rows in pieces:
            if not len(rows.at_ns):
                continue
            if origin_ns is None:
                origin_ns = last_ns = int(rows.at_ns[0])
            _check_order(rows, last_ns)
            last_ns = int(rows.at_ns[-1])
            if last_ns - origin_ns >= FOREVER_NS:
                raise DescriptionError(f"{rows.place(len(rows.at_ns) - 1)}: beyond 146 years")
            chunk = make_trace(
                rows.at_ns - origin_ns,
                function=rows.function,
                input_tokens=rows.input_tokens,
                output_tokens=rows.output_tokens,
                duration_ns=rows.duration_ns,
                tenant=rows.tenant,
                priority=rows.priority,
                names=source.functions.names,
                tenants=source.tenants.names,
            )
            yield from chunks_of(chunk)
        if origin_ns is None:
            lost = ", ".join(f"{count} with {why}" for why, count in source.dropped.items())
            what = f"no usable requests{f' ({lost})' if lost else ''}; expected at least one"
            raise DescriptionError(f"{self.path}: {what}")

    def _fresh(self) -> Source:
        return Source(path=self.path, seed=self._seed, durations=self._durations)


def open_trace(
    path: Path | str, *, seed: int = 0, sort: bool = False, durations: Path | str | None = None
) -> TraceReader:
    """Open a trace of any known format, plain or gzip.

    Args:
        path: The file.
        seed: For formats that leave something to chance, such as counts per minute.
        sort: Sort a file that should be in order but is not.
        durations: A companion file of durations, for formats that keep them apart.

    Raises:
        DescriptionError: The file cannot be read or is of no known format. Iterating raises it
            at the first bad row.
    """
    companion = None if durations is None else Path(durations)
    return TraceReader(Path(path), seed=seed, sort=sort, durations=companion)


def read_trace(
    path: Path | str, *, seed: int = 0, sort: bool = False, durations: Path | str | None = None
) -> Trace:
    """Read a whole trace into memory: 36 bytes a request."""
    return concat(open_trace(path, seed=seed, sort=sort, durations=durations))


def _recognise(source: Source) -> Format:
    head = source.head()
    for known in FORMATS:
        if known.matches(head):
            return known
    wanted = ", ".join(known.NAME for known in FORMATS)
    what = f"begins with {shown(_printable(head))}; expected a trace of one of the formats {wanted}"
    nearest = max(FORMATS, key=lambda known: len(_shared(head, known)))
    if _shared(head, nearest):
        what += f" (nearest: {nearest.EXPECTS})"
    raise source.error(1, f"{what}: see traces/README.md")


def _shared(head: Head, known: Format) -> frozenset[str]:
    return head.columns.intersection(known.EXPECTS.split(","))


def _printable(head: Head) -> str:
    return "".join(c if c.isprintable() else "?" for c in head.line[:200])


def _check_order(rows: Rows, last_ns: int) -> None:
    back = np.diff(rows.at_ns, prepend=last_ns) < 0
    if back.any():
        row = int(back.argmax())
        before_ns = int(rows.at_ns[row - 1]) if row else last_ns
        by = (before_ns - int(rows.at_ns[row])) / NS_PER_S
        what = f"arrives {by:g} s before the request above; expected times in order"
        raise DescriptionError(f"{rows.place(row)}: {what} (--sort sorts them)")
