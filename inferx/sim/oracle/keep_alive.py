"""The least waiting of a policy that starts pods on demand, and knows when each is wanted again.

Such a policy starts a pod only while a request of its function waits. Between one cluster of
requests and the next it keeps the function on GPUs, and nobody waits, or it does not, and the
cluster waits for a start. What is kept must fit the cluster of GPUs at every instant: the flow
offline optimum (FOO), as a linear program in which a fraction of a function may be kept.

The relaxation, beside fractions:
1. A missed cluster waits for the least start-up time from the warmest tier; host memory holds all.
2. Only what is kept between clusters takes room: pods that serve or start take none.
3. A request before the gap may have waited for room itself, and its pod have started only then. So
   keeping may begin late, at the price of that wait: by so much of the timeout as `_LATE` says.
4. What is kept fits on average over each slot of time; which GPU is whose is forgotten.

Source: Berger, Beckmann and Harchol-Balter, Practical Bounds on Optimal Caching with Variable
Object Sizes, SIGMETRICS'18, section 4 (FOO). Differs: bytes held over time instead of at requests,
several resources, the price is the wait, and a late start.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from inferx.sim.oracle.solver import Program
from inferx.sim.oracle.work import Work, clusters

__all__ = ["on_demand_wait_s"]

_LATE: Final = (0.0, 0.03, 0.1, 0.3, 1.0)
"""Edges, in timeouts, between which a late start is taken to have been the least late."""
_SLOTS: Final = 1_024


@dataclass(frozen=True, slots=True)
class _Gap:
    """A function's silence before a cluster of requests."""

    function: int
    idle_s: float
    """When its pod had no more to do, had nobody waited."""
    last_s: float
    """The last arrival before it."""
    until_s: float
    missed_s: float
    """What the cluster's requests that count wait, if nothing was kept."""


def on_demand_wait_s(work: Work, *, time_limit_s: float = 60.0) -> float:
    """Return the least sum of waits over the requests that count, in seconds.

    It holds for a run in which no pod came onto a GPU while its function had neither a request
    waiting or in service nor another pod on one.

    Raises:
        SolverError: The program is not solved in its time.
    """
    gaps, always_s = _gaps(work)
    return always_s + (_solve(work, gaps, time_limit_s) if gaps else 0.0)


def _gaps(work: Work) -> tuple[list[_Gap], float]:
    """Return the silences, and what is waited for first starts, in seconds."""
    gaps: list[_Gap] = []
    always: list[float] = []
    for group in clusters(work):
        function, rows = group.function, group.requests
        counts = work.counts[rows]
        if work.never[function]:
            always.append(float(work.timeout_s[function]) * int(counts.sum()))
            continue
        at = work.arrival_s[rows]
        first = group.last_before < 0
        start_s = float((work.first_s if first else work.start_s)[function])
        missed = np.clip(start_s - (at - at[0]), 0.0, None)
        missed_s = math.fsum(missed[counts].tolist())
        if first:
            always.append(missed_s)
        else:
            last_s = float(work.arrival_s[group.last_before])
            gaps.append(_Gap(function, group.covered_s, last_s, float(at[0]), missed_s))
    return gaps, math.fsum(always)


def _solve(work: Work, gaps: list[_Gap], time_limit_s: float) -> float:
    """Return the least sum of the gaps' costs."""
    choices = [choice for gap in gaps for choice in _choices(work, gap)]
    room = _Rooms(work, gaps)
    program = Program()
    room.enter(program)
    at = 0
    for gap in gaps:
        once = program.row(1.0)
        while at < len(choices) and choices[at][0] is gap:
            _, begin_s, price = choices[at]
            column = program.column(cost=price - gap.missed_s, high=1.0)
            program.term(once, column, 1.0)
            room.keep(program, column, gap, begin_s)
            at += 1
    missed_s = math.fsum(gap.missed_s for gap in gaps)
    return max(0.0, missed_s + program.least(time_limit_s=time_limit_s))


def _choices(work: Work, gap: _Gap) -> list[tuple[_Gap, float, float]]:
    """Return since when a gap's function may be kept, and what is paid for beginning so late."""
    timeout_s = float(work.timeout_s[gap.function])
    # Whoever waits for the late start must count himself, or his wait is free.
    free = gap.last_s - timeout_s < work.counted_from_s
    # Of a request that is turned away, the timeout is all: the start is not paid on top.
    price = 0.0 if free or not timeout_s else 1.0 - float(work.start_s[gap.function]) / timeout_s
    found: list[tuple[_Gap, float, float]] = []
    for low, high in pairwise(_LATE):
        begin_s = max(gap.idle_s, gap.last_s + high * timeout_s)
        if price * low * timeout_s >= gap.missed_s:
            break
        found.append((gap, begin_s, price * low * timeout_s))
        if begin_s >= gap.until_s:
            break
    return found


class _Rooms:
    """What is kept in each slot of time is within what there is.

    What is kept over whole slots is a running sum: a gap enters it once and leaves it once, however
    long it is. A slot that it keeps in part gets its exact share. Inequalities that would hold if
    everything were kept are left out.
    """

    def __init__(self, work: Work, gaps: list[_Gap]) -> None:
        self._work = work
        self._width_s = max(gap.until_s for gap in gaps) / _SLOTS
        asked = np.zeros((len(work.room.total), _SLOTS))
        for gap in gaps:
            begin_s = max(gap.idle_s, gap.last_s)
            first, last = self._slot(begin_s), self._slot(gap.until_s)
            asked[:, first : last + 1] += work.room.taken[:, gap.function, None]
        short = (asked > work.room.total[:, None]).any(axis=1)
        self._tight: list[int] = np.flatnonzero(short).tolist()
        self._sum: dict[int, list[int]] = {}
        self._fit: dict[int, list[int]] = {}

    def _slot(self, at_s: float) -> int:
        return min(_SLOTS - 1, int(at_s / self._width_s))

    def enter(self, program: Program) -> None:
        """Add the sums and what bounds them."""
        for i in self._tight:
            total = float(self._work.room.total[i])
            kept = [program.column(cost=0.0, high=total) for _ in range(_SLOTS)]
            self._sum[i], self._fit[i] = [], []
            for slot in range(_SLOTS):
                row = program.row(0.0)  # Before, and what enters, less what leaves, is at most now.
                if slot:
                    program.term(row, kept[slot - 1], 1.0)
                program.term(row, kept[slot], -1.0)
                self._sum[i].append(row)
                row = program.row(total)
                program.term(row, kept[slot], 1.0)
                self._fit[i].append(row)

    def keep(self, program: Program, column: int, gap: _Gap, begin_s: float) -> None:
        """Let a variable, the kept share of a gap, take room from an instant to the gap's end."""
        if begin_s >= gap.until_s:
            return
        first, last = self._slot(begin_s), self._slot(gap.until_s)
        for i in self._tight:
            taken = float(self._work.room.taken[i, gap.function])
            if not taken:
                continue
            if first == last:
                share = (gap.until_s - begin_s) / self._width_s
                program.term(self._fit[i][first], column, taken * share)
                continue
            head = first + 1 - begin_s / self._width_s
            program.term(self._fit[i][first], column, taken * head)
            program.term(self._fit[i][last], column, taken * (gap.until_s / self._width_s - last))
            if first + 1 < last:
                program.term(self._sum[i][first + 1], column, taken)
                program.term(self._sum[i][last], column, -taken)
