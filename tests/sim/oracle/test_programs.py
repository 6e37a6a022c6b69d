"""The linear programs against all that could be done, on instances small enough to try it all."""

from dataclasses import replace
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferx.sim.oracle.keep_alive import on_demand_wait_s
from inferx.sim.oracle.prewarm import prewarm_wait_s
from inferx.sim.oracle.room import Room, dual_feasible
from inferx.sim.oracle.solver import Program, SolverError
from inferx.sim.oracle.tiers import gpus_alone
from inferx.sim.oracle.work import Work, clusters


def work_of(rows, *, sizes, total, start_s=2.0, timeout_s=0.5, service_s=0.0):
    """Requests (function, second); starts take 2 s, a place `sizes`. No wait before the trace."""
    rows = sorted(rows, key=lambda row: row[1])
    count = len(sizes)
    room = Room(("hbm",), np.array([sizes], np.float64), np.array([float(total)]))
    return Work(
        function=np.array([row[0] for row in rows], np.int32),
        arrival_s=np.array([row[1] for row in rows], np.float64),
        service_s=np.full(len(rows), service_s),
        counts=np.ones(len(rows), np.bool_),
        start_s=np.full(count, min(start_s, timeout_s)),
        below_s=np.full(count, min(start_s, timeout_s)),
        first_s=np.full(count, min(start_s, timeout_s)),
        prepared=False,
        timeout_s=np.full(count, timeout_s),
        never=np.zeros(count, np.bool_),
        room=room,
        tiers=gpus_alone(room),
    )


def kept_whole(work, total):
    """The least sum of starts, if each gap is kept or not, whatever is tried."""
    groups = list(clusters(work))
    gaps, first = [], 0
    for group in groups:
        at = work.arrival_s[group.requests]
        missed = np.clip(work.start_s[group.function] - (at - at[0]), 0, None).sum()
        if group.last_before < 0:
            first += missed
        else:
            # A start as late as the timeout is free where the start takes as long as that.
            begin = float(work.arrival_s[group.last_before] + work.timeout_s[group.function])
            gaps.append((group.function, begin, float(at[0]), missed))
    marks = sorted({gap[1] for gap in gaps})
    size = work.room.taken[0]
    best = np.inf
    for keep in product((0, 1), repeat=len(gaps)):
        held = [gap for gap, k in zip(gaps, keep, strict=True) if k]
        if all(sum(size[f] for f, a, b, _ in held if a <= m < b) <= total for m in marks):
            best = min(best, sum(g[3] for g, k in zip(gaps, keep, strict=True) if not k))
    return first + (best if gaps else 0.0)


ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), min_size=1, max_size=10)


@given(ROWS, st.lists(st.integers(1, 3), min_size=4, max_size=4), st.integers(1, 5))
def test_keeping_fractions_is_at_most_keeping_whole_functions(rows, sizes, total):
    work = work_of([(f, float(at)) for f, at in rows], sizes=sizes, total=total)
    assert on_demand_wait_s(work).wait_s <= kept_whole(work, total) + 1e-9


@pytest.mark.parametrize("total", [1, 2, 3])
def test_equal_sizes_lose_nothing_to_fractions(total):
    # The columns of intervals are totally unimodular, and the slots, 1,024 of 0.5 s, end where
    # requests come.
    rows = [(int(f), 0.5 * i * 16) for i, f in enumerate("0120312002131023")]
    rows.append((0, 512.0))
    work = work_of(rows, sizes=[1, 1, 1, 1], total=total, timeout_s=2.0)
    found = on_demand_wait_s(work)
    assert found.wait_s == pytest.approx(kept_whole(work, total), rel=1e-5)
    assert found.suspending_s == found.wait_s


def test_two_services_at_once_on_one_gpu_wait_for_each_other():
    # Two functions of a whole GPU each, asked for at 100 s, served for 10 s, started in 2. In truth
    # one waits 12 s. The bound lacks the second start: ten seconds of service do not fit.
    work = work_of([(0, 100.0), (1, 100.0)], sizes=[1, 1], total=1, timeout_s=60.0, service_s=10.0)
    assert prewarm_wait_s(work) == pytest.approx(10.0, rel=1e-4)


def test_room_for_all_and_time_to_start_is_no_wait_at_all():
    work = work_of([(0, 100.0), (1, 100.0)], sizes=[1, 1], total=2, timeout_s=60.0, service_s=10.0)
    assert prewarm_wait_s(work) == 0.0


def test_who_asks_before_a_start_can_be_over_waits_for_the_rest():
    work = work_of([(0, 0.0), (1, 1.5), (0, 30.0)], sizes=[1, 1], total=2, timeout_s=60.0)
    assert prewarm_wait_s(work) == pytest.approx(2.0 + 0.5)
    # On demand, each function's first start is waited for in full.
    assert on_demand_wait_s(work).wait_s == pytest.approx(4.0)


def test_where_no_request_counts_nothing_is_waited_for():
    work = work_of([(0, 0.0), (0, 30.0), (0, 60.0)], sizes=[1], total=2, timeout_s=60.0)
    found = on_demand_wait_s(replace(work, counts=np.zeros(3, np.bool_)))
    assert (found.wait_s, found.suspending_s) == (0.0, 0.0)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.integers(1, 4))
def test_dual_feasible_functions_never_refuse_what_fits(sizes, order):
    shares = [Fraction(size, 60) for size in sizes]
    for count in range(len(shares) + 1):
        for some in combinations(shares, count):
            if sum(some) <= 1:
                assert sum(dual_feasible(size, order) for size in some) <= 1


def test_three_pods_of_three_fifths_need_three_gpus():
    assert sum(dual_feasible(Fraction(3, 5), 1) for _ in range(3)) == 3


def test_a_program_without_a_solution_says_so():
    program = Program()
    column = program.column(cost=1.0, low=1.0, high=2.0)
    program.term(program.row(0.5), column, 1.0)
    with pytest.raises(SolverError, match="linear program of 1 rows"):
        program.least(time_limit_s=1.0)
