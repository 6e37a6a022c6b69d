"""Minimum-cost victims: a textbook instance, and brute force over all subsets."""

import msgspec
import numpy as np
import pytest
from crowd import crowds, naive_plan
from hypothesis import given
from hypothesis import strategies as st
from small_cluster import GIB, add, cluster, function, want

from inferx.core.rng import stream
from inferx.core.view import ClusterView
from inferx.load import load_bundle
from inferx.policy.eviction.victims import cheapest_plan

HALF = GIB // 2


def evict(c, f, name="knapsack", **settings):
    made = load_bundle(name, settings)
    return made.eviction.evict(want(c, f), ClusterView(c, snapshots=True), stream(1, "t"))


def test_who_stays_is_the_textbook_knapsack():
    """Martello and Toth, "Knapsack Problems" (1990), chapter 2, example 2.2: 7 items, room for 50.

    Profits 70 20 39 37 7 5 10 and weights 31 10 20 19 4 3 6; items 1 and 4 stay, worth 107. The
    others leave: they weigh 43 of 93, what a newcomer of 43 beside 50 needs.
    """
    profits, weights = (70, 20, 39, 37, 7, 5, 10), (31, 10, 20, 19, 4, 3, 6)
    functions = [function(f"f{i}", 1, milli=10) for i in range(7)]
    functions = [
        msgspec.structs.replace(spec, hbm_bytes=weight * HALF)
        for spec, weight in zip(functions, weights, strict=True)
    ]
    newcomer = msgspec.structs.replace(function("new", 1, milli=10), hbm_bytes=43 * HALF)
    c = cluster([*functions, newcomer], nodes=1, gpus=1)
    c.gpu_hbm_total[:] = c.gpu_hbm_open[:] = 93 * HALF
    for pod in range(7):
        add(c, pod, pod, [0])
    plan = cheapest_plan(
        want(c, 7),
        ClusterView(c, snapshots=True),
        np.arange(7),
        np.array(profits),
        HALF,
        np.array([True]),
    )
    stay = sorted(set(range(7)) - set(plan.rows))
    assert stay == [0, 3]
    assert sum(profits[item] for item in stay) == 107
    assert plan.cost == sum(profits) - 107


@pytest.mark.parametrize("gpus", [1, 2])
@given(st.data())
def test_the_plan_is_the_best_of_all_subsets_ties_included(gpus, data):
    c, cost = data.draw(crowds(gpus))
    view, asked = ClusterView(c, snapshots=True), want(c, 4)
    rows = np.flatnonzero(view.pods.idle)
    for unit in (GIB // 4, 10 * GIB):
        plan = cheapest_plan(asked, view, rows, cost, unit, np.array([True, True]))
        best = naive_plan(asked, c, rows.tolist(), cost, unit)
        if best is None:
            assert plan is None
            continue
        assert (plan.cost, plan.gpus, plan.rows) == (best[0][0], best[1], best[2])
