"""Spans to cells: who held most of each lane in each slice of time, packed as run lengths.

Deterministic and exact in whole nanoseconds; nothing is sampled.
"""

import base64
from dataclasses import dataclass
from typing import Final

import numpy as np

from inferx.core.types import I32, I64
from inferx.sim.occupancy import GROUPS, Spans

__all__ = ["MAX_SUBLANES", "Lanes", "Window", "lanes_of", "overlap", "pack", "strip"]

MAX_SUBLANES: Final = 4
"""A GPU shared by more pods at once than this shows the first four."""
_CODES: Final = 8
"""Cell = 1 + function * 8 + group; 0 is free."""


@dataclass(slots=True, frozen=True)
class Window:
    """A stretch of time cut into equal bins."""

    from_ns: int
    to_ns: int
    bins: int

    @property
    def edges_ns(self) -> I64:
        """Return bin edges, shape (bins + 1,)."""
        width = self.to_ns - self.from_ns
        return self.from_ns + np.arange(self.bins + 1, dtype=np.int64) * width // self.bins


@dataclass(slots=True, frozen=True)
class Lanes:
    """Lanes of the picture, GPU by GPU, and the lane of every span; -1 where it has none."""

    gpu: I32
    of_span: I64


def lanes_of(spans: Spans, gpus: int) -> Lanes:
    """Give each pod on a GPU the lowest lane that is free from its first span to its last."""
    on = np.flatnonzero(spans.gpu >= 0)
    order = on[np.lexsort((spans.from_ns[on], spans.pod[on], spans.gpu[on]))]
    gpu, pod = spans.gpu[order], spans.pod[order]
    fresh = np.ones(len(order), dtype=bool)
    fresh[1:] = (gpu[1:] != gpu[:-1]) | (pod[1:] != pod[:-1])
    starts = np.flatnonzero(fresh)
    stays = np.cumsum(fresh) - 1
    begin = spans.from_ns[order][starts]
    end = np.maximum.reduceat(spans.to_ns[order], starts) if len(starts) else begin
    sub = np.zeros(len(starts), dtype=np.int64)
    free_at: list[list[int]] = [[] for _ in range(gpus)]
    for stay in np.lexsort((pod[starts], begin)).tolist():
        lanes = free_at[int(gpu[starts[stay]])]
        at = int(begin[stay])
        found = next((lane for lane, until in enumerate(lanes) if until <= at), len(lanes))
        if found == len(lanes):
            lanes.append(0)
        lanes[found] = int(end[stay])
        sub[stay] = found
    counts = np.array([min(max(len(lanes), 1), MAX_SUBLANES) for lanes in free_at], dtype=np.int64)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]]) if gpus else counts
    of_span = np.full(len(spans.gpu), -1, dtype=np.int64)
    mine = sub[stays]
    of_span[order] = np.where(mine < MAX_SUBLANES, first[gpu] + mine, -1)
    return Lanes(gpu=np.repeat(np.arange(gpus, dtype=np.int32), counts), of_span=of_span)


def overlap(from_ns: I64, to_ns: I64, window: Window) -> tuple[I64, I64, I64]:
    """Cut intervals at the bin edges.

    Returns:
        For every non-empty piece: the interval's row, the bin, the nanoseconds.
    """
    edges = window.edges_ns
    begin, end = np.maximum(from_ns, window.from_ns), np.minimum(to_ns, window.to_ns)
    rows = np.flatnonzero(end > begin)
    begin, end = begin[rows], end[rows]
    low = np.searchsorted(edges, begin, side="right") - 1
    high = np.searchsorted(edges, end, side="left") - 1
    counts = high - low + 1
    row = np.repeat(np.arange(len(rows)), counts)
    offset = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    cell = low[row] + offset
    ns = np.minimum(end[row], edges[cell + 1]) - np.maximum(begin[row], edges[cell])
    return rows[row], cell, ns


def strip(spans: Spans, lanes: Lanes, window: Window) -> I64:
    """Return the cells, shape (lanes, bins): what held most of the time there, or 0 for free."""
    count, bins = len(lanes.gpu), window.bins
    groups = len(GROUPS)
    row, cell, ns = overlap(spans.from_ns, spans.to_ns, window)
    lane = lanes.of_span[row]
    row, cell, ns, lane = (part[lane >= 0] for part in (row, cell, ns, lane))
    place = lane * bins + cell
    held = np.bincount(
        place * groups + spans.group[row], weights=ns, minlength=count * bins * groups
    )
    by_group = held.reshape(count * bins, groups)
    free = np.tile(np.diff(window.edges_ns), count) - by_group.sum(axis=1)
    group = by_group.argmax(axis=1)
    # The function of the longest single piece; the later row where two are equal.
    order = np.lexsort((row, ns, place))
    last = np.append(place[order][1:] != place[order][:-1], True) if len(order) else order > 0
    function = np.zeros(count * bins, dtype=np.int64)
    function[place[order][last]] = spans.function[row[order][last]]
    cells = np.where(by_group.max(axis=1) > free, 1 + function * _CODES + group, 0)
    return cells.reshape(count, bins).astype(np.int64)


def pack(cells: I64) -> str:
    """Return (length, value) pairs of runs in row order, as LEB128 in base64."""
    flat = cells.ravel()
    if not len(flat):
        return ""
    starts = np.flatnonzero(np.append(True, flat[1:] != flat[:-1]))
    lengths = np.diff(np.append(starts, len(flat)))
    out = bytearray()
    for pair in zip(lengths.tolist(), flat[starts].tolist(), strict=True):
        for number in pair:
            rest = number
            while rest >= 0x80:
                out.append(rest & 0x7F | 0x80)
                rest >>= 7
            out.append(rest)
    return base64.b64encode(bytes(out)).decode("ascii")
