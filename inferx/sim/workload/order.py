"""Rows in order of arrival, in bounded memory: an external merge sort, stable.

Runs of `RUN_ROWS` rows are sorted in memory. One run is the answer; several are spilled to a
temporary file and merged a slice at a time, ties in the order of the file.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inferx.sim.workload.source import Rows
from inferx.sim.workload.trace import CHUNK_ROWS, COLUMNS

__all__ = ["RUN_ROWS", "in_order"]

RUN_ROWS = 1_000_000
"""Rows sorted in memory at once: 36 MB, twice that while sorting."""

_RECORD = np.dtype(list(COLUMNS.items()))


def in_order(pieces: Iterator[Rows], *, run_rows: int = RUN_ROWS) -> Iterator[Rows]:
    """Sort by arrival; ties keep the order they came in."""
    with tempfile.TemporaryFile() as spill:
        lengths: list[int] = []
        waiting: list[NDArray[np.void]] = []
        count = 0
        for piece in pieces:
            waiting.append(_records(piece))
            count += len(waiting[-1])
            if count >= run_rows:
                spill.write(_sorted(waiting).tobytes())
                lengths.append(count)
                waiting, count = [], 0
        last = _sorted(waiting) if waiting else np.zeros(0, _RECORD)
        if not lengths:
            yield from (_rows(last[at : at + CHUNK_ROWS]) for at in range(0, len(last), CHUNK_ROWS))
            return
        if count:
            spill.write(last.tobytes())
            lengths.append(count)
        del last
        spill.flush()
        starts = np.cumsum([0, *lengths[:-1]]) * _RECORD.itemsize
        runs = [
            _Run(lambda at, count, start=int(start): _read(spill.fileno(), start, at, count), rows)  # type: ignore[misc]  # bound now, called later
            for start, rows in zip(starts, lengths, strict=True)
        ]
        yield from _merge(runs)


def _read(handle: int, start: int, at: int, count: int) -> NDArray[np.void]:
    import os

    size = _RECORD.itemsize
    return np.frombuffer(os.pread(handle, count * size, start + at * size), _RECORD)


@dataclass(slots=True)
class _Run:
    """One sorted run on disk, and the slice of it that is in memory."""

    read: Callable[[int, int], NDArray[np.void]]
    left: int
    at: int = 0
    slice_: NDArray[np.void] | None = None

    def peek(self, rows: int) -> NDArray[np.void]:
        if self.slice_ is None or not len(self.slice_):
            count = min(rows, self.left)
            self.slice_ = self.read(self.at, count)
            self.at += count
            self.left -= count
        return self.slice_


def _merge(runs: list[_Run]) -> Iterator[Rows]:
    """Merge, up to the earliest slice's end a turn: that slice is then used up.

    A row's key is (arrival, run), so rows of equal arrival leave in the order of the file.
    """
    rows = max(1, CHUNK_ROWS // len(runs))
    while True:
        slices = [run.peek(rows) for run in runs]
        ends = [(int(part["arrival_ns"][-1]), i) for i, part in enumerate(slices) if len(part)]
        if not ends:
            return
        end_ns, end_run = min(ends)
        taken: list[NDArray[np.void]] = []
        for i, (run, part) in enumerate(zip(runs, slices, strict=True)):
            side = "right" if i <= end_run else "left"
            cut = int(np.searchsorted(part["arrival_ns"], end_ns, side))  # type: ignore[call-overload]  # the side is a computed literal
            taken.append(part[:cut])
            run.slice_ = part[cut:]
        yield _rows(_sorted(taken))


def _sorted(parts: list[NDArray[np.void]]) -> NDArray[np.void]:
    joined = np.concatenate(parts)
    arrival = joined["arrival_ns"]
    if len(arrival) < 2 or bool((arrival[1:] >= arrival[:-1]).all()):
        return joined
    ordered: NDArray[np.void] = joined[np.argsort(arrival, kind="stable")]
    return ordered


def _records(rows: Rows) -> NDArray[np.void]:
    records = np.zeros(len(rows.at_ns), _RECORD)
    for name in COLUMNS:
        column = rows.at_ns if name == "arrival_ns" else getattr(rows, name)
        if column is not None:
            records[name] = column
    return records


def _rows(records: NDArray[np.void]) -> Rows:
    columns = {name: np.ascontiguousarray(records[name]) for name in COLUMNS}
    return Rows(
        at_ns=columns["arrival_ns"],
        function=columns["function"],
        input_tokens=columns["input_tokens"],
        output_tokens=columns["output_tokens"],
        duration_ns=columns["duration_ns"],
        tenant=columns["tenant"],
        priority=columns["priority"],
        place=_sorted_place,
    )


def _sorted_place(row: int) -> str:
    raise AssertionError(f"row {row} was sorted; it cannot be out of order")
