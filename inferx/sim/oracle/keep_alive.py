"""The least waiting of a policy that starts pods on demand, and knows when each is wanted again.

Such a policy starts a pod only while a request of its function waits. Between one cluster of
requests and the next it keeps the function on GPUs, and nobody waits; or its state in host memory,
and the cluster waits for a resume; or neither, and the cluster waits for a start from below. What
is kept must fit the cluster's GPUs and its host memory at every instant: the flow offline optimum
(FOO), as a linear program in which a fraction of a function may be kept, in either place.

Host memory is a bound only for those who fill it from GPUs, by suspending. State that is restored
into it without a GPU need not lie there longer than that takes; for those who do so it holds all,
even before a function is first asked for.

The relaxation, beside fractions:
1. A missed cluster waits for the least start-up time from where its state lies.
2. Only what is kept between clusters takes room: pods that serve or start take none, nor does a
   suspended pod whose function has another one on GPUs.
3. A request before the gap may have waited for room itself, and its pod have started only then. So
   keeping may begin late, at the price of that wait: by so much of the timeout as `_LATE` says.
4. What is kept fits on average over each slot of time; which GPU or node is whose is forgotten.
5. A state in host memory may have been on GPUs for a part of the time, whatever is best: of GPUs
   and host memory only sums are met by it (`tiers`).

Source: Berger, Beckmann and Harchol-Balter, Practical Bounds on Optimal Caching with Variable
Object Sizes, POMACS 2(2), 2018, article 32, section 4 (FOO; arXiv 1711.03709). Differs: bytes held
over time instead of at requests, several resources, two places to keep in, the price is the wait,
and a late start.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from inferx.core.types import F64
from inferx.sim.oracle.solver import Program, SolverError
from inferx.sim.oracle.tiers import Tiers, gpus_alone
from inferx.sim.oracle.work import Cluster, Work, clusters

__all__ = ["OnDemand", "on_demand_wait_s"]

_LATE: Final = (0.0, 0.03, 0.1, 0.3, 1.0)
"""Edges, in timeouts, between which a late start is taken to have been the least late."""
_SLOTS: Final = 1_024


@dataclass(frozen=True, slots=True)
class OnDemand:
    """The least sums of waits of two kinds of runs, in seconds."""

    wait_s: float
    """No pod came onto a GPU while its function had neither a request waiting or in service nor
    another pod on one."""
    suspending_s: float
    """Besides, host memory held nothing but what came there from GPUs: no pod was restored into it.
    Never below the other."""


@dataclass(frozen=True, slots=True)
class _Gap:
    """A function's silence before a cluster of requests."""

    function: int
    idle_s: float
    """When its pod had no more to do, had nobody waited."""
    last_s: float
    """The last arrival before it."""
    until_s: float
    resumed_s: float
    """What the cluster's requests that count wait, if its state lay in host memory."""
    missed_s: float
    """The same, if nothing was kept."""


def on_demand_wait_s(work: Work, *, time_limit_s: float = 60.0) -> OnDemand:
    """Return the least sums of waits over the requests that count.

    Raises:
        SolverError: The program is not solved in its time. Without the one about host memory, that
            is taken to hold everything.
    """
    groups = list(clusters(work))
    gaps = _gaps(work, groups, work.start_s)
    kept_s = held_s = _missed_s(work, gaps, gpus_alone(work.room), time_limit_s)
    if (_asked(gaps, work.tiers.asleep[None]) > 1.0).any():
        gaps = _gaps(work, groups, work.below_s)
        with suppress(SolverError):
            held_s = max(kept_s, _missed_s(work, gaps, work.tiers, time_limit_s))
    return OnDemand(
        wait_s=_first_s(work, groups, work.start_s) + kept_s,
        suspending_s=_first_s(work, groups, work.below_s) + held_s,
    )


def _first_s(work: Work, groups: Sequence[Cluster], later_s: F64) -> float:
    """Return what is waited for first starts, and by those whom nothing can serve.

    A first start takes no less than a later one, for all may have been copied before, and is over
    no sooner than a run's first can be.
    """
    if not work.prepared:
        later_s = work.first_s
    waits: list[float] = []
    for group in groups:
        function, rows = group.function, group.requests[work.counts[group.requests]]
        if work.never[function]:
            waits.append(float(work.timeout_s[function]) * len(rows))
        elif group.last_before < 0:
            at_s = work.arrival_s[rows]
            asked_s = float(work.arrival_s[group.requests[0]])
            ready_s = max(float(work.first_s[function]), asked_s + float(later_s[function]))
            waits.append(_waits_s(ready_s, at_s))
    return math.fsum(waits)


def _gaps(work: Work, groups: Sequence[Cluster], below_s: F64) -> list[_Gap]:
    """Return the silences that cost something."""
    gaps: list[_Gap] = []
    for group in groups:
        function, rows = group.function, group.requests
        if work.never[function] or group.last_before < 0:
            continue
        at_s, last_s = work.arrival_s[rows], float(work.arrival_s[group.last_before])
        until_s, counted_s = float(at_s[0]), at_s[work.counts[rows]]
        resumed_s = _waits_s(until_s + float(work.start_s[function]), counted_s)
        missed_s = _waits_s(until_s + float(below_s[function]), counted_s)
        if missed_s > 0:
            gaps.append(_Gap(function, group.covered_s, last_s, until_s, resumed_s, missed_s))
    return gaps


def _waits_s(ready_s: float, at_s: F64) -> float:
    """Return how long those who come at these instants wait for one."""
    return math.fsum(np.clip(ready_s - at_s, 0.0, None).tolist())


def _slot(at_s: float, width_s: float) -> int:
    return min(_SLOTS - 1, int(at_s / width_s))


def _width_s(gaps: list[_Gap]) -> float:
    return max(gap.until_s for gap in gaps) / _SLOTS


def _asked(gaps: list[_Gap], taken: F64) -> F64:
    """Return what is taken in each slot of time if everything is kept, or more.

    Shape (rows of `taken`, slots).
    """
    asked = np.zeros((len(taken), _SLOTS))
    width_s = _width_s(gaps) if gaps else 1.0
    for gap in gaps:
        first, last = _slot(max(gap.idle_s, gap.last_s), width_s), _slot(gap.until_s, width_s)
        asked[:, first : last + 1] += taken[:, gap.function, None]
    return asked


def _missed_s(work: Work, gaps: list[_Gap], tiers: Tiers, time_limit_s: float) -> float:
    """Return what is waited after silences."""
    return _Keeping(work, gaps, tiers).least_s(time_limit_s) if gaps else 0.0


class _Keeping:
    """The program: what is kept of each gap's function, and where, for the least wait.

    What is kept in each slot of time is within what there is. What is kept over whole slots is a
    running sum: a gap enters it once and leaves it once, however long it is. A slot that it keeps
    in part gets its exact share. Inequalities that would hold if everything were kept are left out.
    """

    def __init__(self, work: Work, gaps: list[_Gap], tiers: Tiers) -> None:
        self._gaps = gaps
        self._program = Program()
        self._width_s = _width_s(gaps)
        self._dearest_s = np.maximum(work.first_s, work.below_s)
        self._work = work
        short = (_asked(gaps, tiers.awake) > tiers.total[:, None]).any(axis=1)
        self._awake, self._either = tiers.awake[short], tiers.either[short]
        self._sums: list[list[int]] = []
        self._fits: list[list[int]] = []
        for total in tiers.total[short].tolist():
            self._bound(total)
        for gap in gaps:
            self._choose(gap)

    def least_s(self, time_limit_s: float) -> float:
        """Return the least sum of the gaps' costs."""
        missed_s = math.fsum(gap.missed_s for gap in self._gaps)
        return max(0.0, missed_s + self._program.least(time_limit_s=time_limit_s))

    def _bound(self, total: float) -> None:
        """Add an inequality's running sums, and what bounds them."""
        program = self._program
        kept = [program.column(cost=0.0, high=total) for _ in range(_SLOTS)]
        sums: list[int] = []
        fits: list[int] = []
        for slot in range(_SLOTS):
            row = program.row(0.0)  # Before, and what enters, less what leaves, is at most now.
            if slot:
                program.term(row, kept[slot - 1], 1.0)
            program.term(row, kept[slot], -1.0)
            sums.append(row)
            row = program.row(total)
            program.term(row, kept[slot], 1.0)
            fits.append(row)
        self._sums.append(sums)
        self._fits.append(fits)

    def _choose(self, gap: _Gap) -> None:
        """Add since when a gap's function may be kept, where, and what is paid for late starts."""
        timeout_s = float(self._work.timeout_s[gap.function])
        # Whoever waits for the late start must count himself, or his wait is free.
        free = gap.last_s - timeout_s < self._work.counted_from_s
        # Of a request that is turned away, the timeout is all: the start is not paid on top. That
        # start is of an earlier cluster, the first perhaps, and from wherever its state lay.
        share = 1.0 - float(self._dearest_s[gap.function]) / timeout_s if timeout_s else 0.0
        once = self._program.row(1.0)
        for low, high in pairwise(_LATE):
            begin_s = max(gap.idle_s, gap.last_s + high * timeout_s)
            late_s = 0.0 if free else share * low * timeout_s
            for taken, cost_s in ((self._awake, 0.0), (self._either, gap.resumed_s)):
                if late_s + cost_s < gap.missed_s:
                    column = self._program.column(cost=late_s + cost_s - gap.missed_s, high=1.0)
                    self._program.term(once, column, 1.0)
                    self._keep(column, taken[:, gap.function].tolist(), begin_s, gap.until_s)
            if begin_s >= gap.until_s:
                break

    def _keep(self, column: int, taken: list[float], begin_s: float, until_s: float) -> None:
        """Let a variable, a kept share, take room from one instant to another."""
        if begin_s >= until_s:
            return
        term, width_s = self._program.term, self._width_s
        first, last = _slot(begin_s, width_s), _slot(until_s, width_s)
        for row, fits, sums in zip(taken, self._fits, self._sums, strict=True):
            if not row:
                continue
            if first == last:
                term(fits[first], column, row * (until_s - begin_s) / width_s)
                continue
            term(fits[first], column, row * (first + 1 - begin_s / width_s))
            term(fits[last], column, row * (until_s / width_s - last))
            if first + 1 < last:
                term(sums[first + 1], column, row)
                term(sums[last], column, -row)
