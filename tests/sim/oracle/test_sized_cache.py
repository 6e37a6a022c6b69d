"""The sized and priced cache: the bound, the optimum of everything tried, and the rule's price."""

import csv
import os
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inferx.sim.oracle.belady import least_misses
from inferx.sim.oracle.sized_cache import clairvoyant_cost, least_cost

KEYS = st.lists(st.integers(0, 4), max_size=12)
SIZES = st.lists(st.integers(1, 4), min_size=5, max_size=5)
COSTS = st.lists(st.integers(0, 5), min_size=5, max_size=5)


def tried(keys, sizes, costs, room):
    """The least cost of every way to throw out."""
    states = {frozenset(): 0}
    for key in keys:
        after = {}
        for state, before in states.items():
            if key in state:
                choices, paid = [state], before
            else:
                paid = before + costs[key]
                some = [kept for n in range(len(state) + 1) for kept in combinations(state, n)]
                choices = [frozenset((*kept, key)) for kept in some]
            for choice in choices:
                if sum(sizes[k] for k in choice) <= room:
                    after[choice] = min(paid, after.get(choice, paid))
        states = after
    return min(states.values())


def by_the_book(keys, sizes, costs, room):
    """The rule as a plain loop that looks ahead anew each time."""

    def badness(key, later):
        if key not in later or not costs[key]:
            return np.inf
        return (later.index(key) + 1) * sizes[key] / costs[key]

    inside, paid = [], 0
    for now, key in enumerate(keys):
        if key not in inside:
            paid += costs[key]
            while sum(sizes[k] for k in inside) + sizes[key] > room:
                inside.remove(max(sorted(inside), key=lambda k: badness(k, keys[now + 1 :])))
            inside.append(key)
    return paid


@example([0, 1, 2, 0, 1, 2], [1, 2, 3, 1, 1], [2, 3, 5, 1, 1], 4)
@given(KEYS, SIZES, COSTS, st.integers(4, 8))
def test_bound_is_below_the_optimum_and_that_below_the_rule(keys, sizes, costs, room):
    given_ = {"sizes": np.array(sizes), "costs": np.array(costs), "room": room}
    low = least_cost(np.array(keys, np.int64), **given_)
    high = clairvoyant_cost(np.array(keys, np.int64), **given_)
    assert low <= tried(keys, sizes, costs, room) <= high
    assert high == by_the_book(keys, sizes, costs, room)


@given(KEYS, st.integers(1, 4), st.integers(1, 3), st.integers(1, 5))
def test_equal_sizes_and_costs_are_beladys(keys, slots, size, cost):
    given_ = {"sizes": np.full(5, size), "costs": np.full(5, cost), "room": slots * size + size - 1}
    at = np.array(keys, np.int64)
    misses = least_misses(at, slots)
    assert clairvoyant_cost(at, **given_) == cost * misses


@given(KEYS, COSTS, st.integers(1, 4))
def test_bound_is_the_optimum_where_sizes_are_equal(keys, costs, slots):
    ones = np.ones(5, np.int64)
    low = least_cost(np.array(keys, np.int64), sizes=ones, costs=np.array(costs), room=slots)
    assert low == pytest.approx(tried(keys, ones, costs, slots), rel=1e-3, abs=1e-3)


def test_what_is_large_and_cheap_goes_though_it_is_wanted_sooner():
    # For the 2, MIN would throw out the 0, which is wanted last, and pay 5 for it again.
    keys, sizes, costs = np.array([0, 1, 2, 1, 0]), np.array([1, 3, 1]), np.array([5, 1, 5])
    assert clairvoyant_cost(keys, sizes=sizes, costs=costs, room=4) == 5 + 1 + 5 + 1
    assert tried(keys.tolist(), sizes, costs, 4) == 12


def test_the_rule_is_not_optimal():
    # The same, and the 2 comes again: now making room for the 1 costs a 5 all the same.
    keys, sizes, costs = np.array([0, 1, 2, 1, 0, 2]), np.array([1, 3, 1]), np.array([5, 1, 5])
    assert clairvoyant_cost(keys, sizes=sizes, costs=costs, room=4) == 5 + 1 + 5 + 1 + 5
    assert tried(keys.tolist(), sizes, costs, 4) == 16


def test_bound_is_exact_on_a_published_trace_of_equal_entries():
    # 777 is what MIN misses with 16 entries.
    folder = os.environ.get("INFERX_TRACE_DIR")
    if not folder:
        pytest.skip("INFERX_TRACE_DIR is not set")
    with (Path(folder) / "gentd26" / "lora_request_trace.csv").open() as file:
        names = [row["checkpoint_model_version_id"] for row in csv.DictReader(file)]
    keys = np.unique([name for name in names if name], return_inverse=True)[1].astype(np.int64)
    ones = np.ones(int(keys.max()) + 1, np.int64)
    assert clairvoyant_cost(keys, sizes=ones, costs=ones, room=16) == 777
    low = least_cost(keys, sizes=ones, costs=ones, room=16)
    assert low == pytest.approx(777, abs=0.5)
