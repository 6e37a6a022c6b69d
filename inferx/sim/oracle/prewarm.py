"""The least waiting that any policy could reach, one that knows the future included.

A pod that serves a request has held its place on GPUs since at least the start-up time before it
was ready, and holds it while it serves. So much must fit the cluster at each instant. Where it does
not, somebody waits; where it does, nobody need, but for the first starts of a run.

The relaxation, as a linear program in seconds:
1. Presence of a function is the share of an instant at which any of its pods holds a place. For a
   cluster's leader that arrives at a, with start-up time t, all of the cluster wait for what is
   missing of presence in [a - t, a], less what they come after the leader.
2. Presence is missing in a service's time for as long as its request waits; or, where it is turned
   away, in all of it, which costs the timeout.
3. Presences times what a pod takes are within every inequality of the room, on average over each
   slot of time. Which GPU is whose is forgotten, and a function is one pod.
4. A part of [a - t, a] that another request's service may cover counts as present.
5. Before its first start can be over, a request waits for it: nothing runs before the trace.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from inferx.core.types import F64, I64, Bool
from inferx.sim.oracle.solver import Program
from inferx.sim.oracle.work import Cluster, Work, clusters

__all__ = ["prewarm_wait_s"]

_PIECES: Final = 400_000
"""More stretches than this are averaged over longer slots: a weaker bound, not a wrong one."""
_LEADS, _SERVES = 0, 1


def prewarm_wait_s(work: Work, *, time_limit_s: float = 60.0) -> float:
    """Return the least sum of waits over the requests that count, in seconds.

    Raises:
        SolverError: The program is not solved in its time.

    Cost: two passes over the requests, and a linear program over the slots in which not everything
    fits that is wanted.
    """
    least_s = math.fsum(work.first_starts_s()[work.counts].tolist())
    stretches = _stretches(work)
    if not len(stretches) or not work.room.names:
        return least_s
    slots = _Slots(work, stretches)
    if not slots.short.any():
        return least_s
    return max(least_s, _solve(work, stretches, slots, time_limit_s))


def _stretches(work: Work) -> F64:
    """Return when whose presence matters, disjoint for each function.

    Shape (stretches, 4): from, to, the request, and whether it is led up to then or served.
    """
    rows: list[tuple[float, float, int, int]] = []
    for group in clusters(work):
        if work.never[group.function]:
            continue
        leader = int(group.requests[0])
        at = float(work.arrival_s[leader])
        begin = max(0.0, at - float(work.start_s[group.function]), group.covered_s)
        if begin < at:
            rows.append((begin, at, leader, _LEADS))
        covered = group.covered_s
        for request in group.requests.tolist():
            at = float(work.arrival_s[request])
            begin, end = max(at, covered), at + float(work.service_s[request])
            if begin < end:
                rows.append((begin, end, request, _SERVES))
                covered = end
    return np.array(rows, np.float64).reshape(-1, 4)


class _Slots:
    """Stretches cut at slots of equal width: what each is asked for, and where that is too much."""

    def __init__(self, work: Work, stretches: F64) -> None:
        from_s, to_s = stretches[:, 0], stretches[:, 1]
        self.width_s = max(1e-3, float(np.median(work.start_s)) / 2)
        while True:
            first = np.floor(from_s / self.width_s).astype(np.int64)
            counts = np.floor(to_s / self.width_s).astype(np.int64) - first + 1
            if counts.sum() <= max(_PIECES, 2 * len(stretches)):
                break
            self.width_s *= 2
        self.stretch: I64 = np.repeat(np.arange(len(stretches)), counts)
        offset = np.arange(len(self.stretch)) - np.repeat(np.cumsum(counts) - counts, counts)
        self.slot: I64 = first[self.stretch] + offset
        begin_s = np.maximum(from_s[self.stretch], self.slot * self.width_s)
        end_s = np.minimum(to_s[self.stretch], (self.slot + 1) * self.width_s)
        self.length_s: F64 = np.maximum(0.0, end_s - begin_s)
        function = work.function[stretches[self.stretch, 2].astype(np.int64)]
        self.taken: F64 = work.room.taken[:, function]
        """Of one pod of the piece's function. Shape (inequalities, pieces)."""
        rows = [np.bincount(self.slot, weights=row * self.length_s) for row in self.taken]
        self.asked: F64 = np.array(rows, np.float64)
        self.short: Bool = self.asked > work.room.total[:, None] * self.width_s
        """Shape (inequalities, slots)."""


class _Waits:
    """The program's variables of waits, made when a row speaks of one."""

    def __init__(self, work: Work, program: Program) -> None:
        self._work, self._program = work, program
        self._least_s = work.first_starts_s()
        self._columns: dict[int, int] = {}

    def __getitem__(self, request: int) -> int:
        column = self._columns.get(request)
        if column is None:
            cost, low = float(self._work.counts[request]), float(self._least_s[request])
            self._columns[request] = column = self._program.column(cost=cost, low=low)
        return column

    def rest_s(self) -> float:
        """Return the sum over requests that no row speaks of."""
        rest = self._work.counts.copy()
        rest[list(self._columns)] = False
        return math.fsum(self._least_s[rest].tolist())


def _solve(work: Work, stretches: F64, slots: _Slots, time_limit_s: float) -> float:
    program = Program()
    waits = _Waits(work, program)
    tight = slots.short[:, slots.slot].any(axis=0) & (slots.length_s > 0)
    pieces: list[int] = np.flatnonzero(tight).tolist()
    missing = {
        piece: program.column(cost=0.0, high=float(slots.length_s[piece])) for piece in pieces
    }
    of_stretch: dict[int, list[int]] = {}
    for piece in pieces:
        of_stretch.setdefault(int(slots.stretch[piece]), []).append(missing[piece])
    leads: dict[int, list[int]] = {}
    for stretch, columns in of_stretch.items():
        begin_s, end_s, request, kind = stretches[stretch].tolist()
        if kind == _LEADS:
            leads[int(request)] = columns
            continue
        timeout_s = float(work.timeout_s[work.function[int(request)]])
        if not timeout_s:
            continue  # Turning it away costs nothing.
        _sum_at_most(program, columns, waits[int(request)], max(1.0, (end_s - begin_s) / timeout_s))
    for group in clusters(work):
        before = leads.get(int(group.requests[0]))
        if before:
            _lead(work, program, group, before, waits)
    _fit(work, program, slots, missing)
    return program.least(time_limit_s=time_limit_s) + waits.rest_s()


def _sum_at_most(program: Program, columns: Sequence[int], bound: int, factor: float) -> None:
    row = program.row(0.0)
    for column in columns:
        program.term(row, column, 1.0)
    program.term(row, bound, -factor)


def _lead(
    work: Work, program: Program, group: Cluster, columns: Sequence[int], waits: _Waits
) -> None:
    """What is missing before the leader, its cluster waits for."""
    start_s, at_s = float(work.start_s[group.function]), work.arrival_s[group.requests]
    before_s = max(0.0, start_s - float(at_s[0]))
    late = program.column(cost=0.0, low=before_s)
    row = program.row(-before_s)
    for column in columns:
        program.term(row, column, 1.0)
    program.term(row, late, -1.0)
    for request, after_s in zip(group.requests.tolist(), (at_s - at_s[0]).tolist(), strict=True):
        row = program.row(after_s)
        program.term(row, late, 1.0)
        program.term(row, waits[request], -1.0)


def _fit(work: Work, program: Program, slots: _Slots, missing: Mapping[int, int]) -> None:
    """What is present fits every slot that is asked for too much."""
    rows: dict[tuple[int, int], int] = {}
    for inequality, slot in np.argwhere(slots.short).tolist():
        room_s = float(work.room.total[inequality]) * slots.width_s
        rows[inequality, slot] = program.row(room_s - float(slots.asked[inequality, slot]))
    for piece, column in missing.items():
        slot = int(slots.slot[piece])
        for inequality in np.flatnonzero(slots.short[:, slot]).tolist():
            taken = float(slots.taken[inequality, piece])
            if taken:
                program.term(rows[inequality, slot], column, -taken)
