"""Cold starts and LRU misses against naive loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferx.core.errors import DescriptionError
from inferx.sim.workload.reuse import reuse
from inferx.sim.workload.trace import chunks_of, make_trace

CALLS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6)), max_size=60)


def naive_misses(functions: list[int], slots: int) -> int:
    held: list[int] = []
    misses = 0
    for function in functions:
        misses += function not in held
        held = [function, *(other for other in held if other != function)][:slots]
    return misses


def naive_cold(calls: list[tuple[int, int]], keep: int) -> int:
    last: dict[int, int] = {}
    cold = 0
    for at, function in calls:
        cold += function not in last or at - last[function] > keep
        last[function] = at
    return cold


@given(CALLS, st.integers(1, 20))
def test_counts_equal_the_naive_loops(steps, rows):
    now, calls = 0, []
    for gap, function in steps:
        now += gap
        calls.append((now, function))
    trace = make_trace(
        np.array([at for at, _ in calls], np.int64),
        function=np.array([function for _, function in calls], np.int32),
        duration_ns=np.ones(len(calls)),
        names=[f"g{i}" for i in range(7)],
    )
    counted = reuse(chunks_of(trace, rows), keep_alive_ns=[0, 5, 30, 10**9], slots=[1, 2, 4, 7])
    assert counted.requests == len(calls)
    assert counted.functions == len({function for _, function in calls})
    for keep, cold in counted.cold_starts_by_keep_alive_ns.items():
        assert cold == naive_cold(calls, keep)
    for slots, misses in counted.lru_misses_by_slots.items():
        assert misses == naive_misses([function for _, function in calls], slots)
    assert counted.lru_misses_by_slots[7] == counted.functions
    assert counted.cold_starts_by_keep_alive_ns[10**9] == counted.functions


def test_gap_equal_to_the_keep_alive_is_warm():
    trace = make_trace(np.array([0, 10, 21]), duration_ns=np.ones(3))
    counted = reuse([trace], keep_alive_ns=[10])
    assert counted.cold_starts_by_keep_alive_ns == {10: 2}
    assert counted.lru_misses_by_slots == {}


def test_functions_may_appear_with_later_chunks():
    one = make_trace(np.array([0]), duration_ns=np.ones(1), names=("a",))
    two = make_trace(np.array([1]), function=np.array([1]), duration_ns=np.ones(1), names="ab")
    assert reuse([one, two], slots=[1]).lru_misses_by_slots == {1: 2}


def test_senseless_parameters_are_errors():
    with pytest.raises(DescriptionError, match="slots 0: expected at least 1"):
        reuse([], slots=[4, 0])
    with pytest.raises(DescriptionError, match="keep-alive -1 ns"):
        reuse([], keep_alive_ns=[-1])
