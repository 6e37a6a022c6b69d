import csv
import os
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferx.sim.oracle.belady import least_misses


def tried(keys, slots):
    """The least misses of every way to throw out."""
    states = {frozenset(): 0}
    for key in keys:
        after = {}
        for state, misses in states.items():
            if key in state:
                choices, cost = [state], misses
            else:
                kept = combinations(state, min(len(state), slots - 1))
                choices, cost = [frozenset((*some, key)) for some in kept], misses + 1
            for choice in choices:
                after[choice] = min(cost, after.get(choice, cost))
        states = after
    return min(states.values())


def lru(keys, slots):
    inside, misses = [], 0
    for key in keys:
        if key in inside:
            inside.remove(key)
        else:
            misses += 1
            del inside[: max(0, len(inside) - slots + 1)]
        inside.append(key)
    return misses


@given(st.lists(st.integers(0, 4), max_size=14), st.integers(1, 4))
def test_min_is_the_least_of_all_that_could_be_thrown_out(keys, slots):
    found = least_misses(np.array(keys, np.int64), slots)
    assert found == tried(keys, slots)
    assert found <= lru(keys, slots)


def test_beladys_own_kind_of_example():
    # The string of Belady, Nelson and Shedler (CACM 12(6), 1969, pp. 349-353), on which FIFO gets
    # worse with room; what must miss does not.
    keys = np.array([1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5])
    assert [least_misses(keys, slots) for slots in (3, 4)] == [7, 6]


@pytest.mark.parametrize(
    ("slots", "of_lru", "of_min"), [(1, 20002, 20002), (4, 9074, 5845), (16, 1393, 777)]
)
def test_min_misses_no_more_than_lru_on_a_published_trace(slots, of_lru, of_min):
    folder = os.environ.get("INFERX_TRACE_DIR")
    if not folder:
        pytest.skip("INFERX_TRACE_DIR is not set")
    with (Path(folder) / "gentd26" / "lora_request_trace.csv").open() as file:
        names = [row["checkpoint_model_version_id"] for row in csv.DictReader(file)]
    keys = np.unique([name for name in names if name], return_inverse=True)[1].astype(np.int64)
    assert lru(keys.tolist(), slots) == of_lru
    found = least_misses(keys, slots)
    assert found == of_min
