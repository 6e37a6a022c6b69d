"""Minimum-cost victims: a textbook instance, and brute force over all subsets."""

from itertools import combinations

import msgspec
import numpy as np
import pytest
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


def naive_plan(asked, c, rows, cost, unit):
    """Every subset of candidates on every node: the least (cost, victims, place, latest spared)."""
    best, pods, need = None, c.columns, asked.gpus
    for place in range(c.gpu_count if need == 1 else len(c.nodes)):
        gpus = [g for g in range(c.gpu_count) if (g if need == 1 else c.gpu_node[g]) == place]
        here = [r for r in rows if set(pods.gpu[r].tolist()) & set(gpus)]
        for size in range(len(here) + 1):
            for gone in combinations(here, size):
                of = [int(pods.function[r]) for r in gone]
                if any(c.fn_ready[f] - of.count(f) < c.functions[f].min_replica for f in of):
                    continue
                room = []
                for g in gpus:
                    on = [r for r in gone if g in pods.gpu[r]]
                    units = sum(int(pods.hbm_bytes[r]) // unit for r in on)
                    lacks = -((int(c.gpu_hbm_open[g]) - asked.hbm_bytes) // unit)
                    milli = int(c.gpu_milli_open[g]) + sum(int(pods.milli_gpu[r]) for r in on)
                    room += [g] * (units >= lacks and milli >= asked.milli_gpu)
                spared = sum(1 << here.index(r) for r in gone)
                rank = (sum(int(cost[r]) for r in gone), size, place, spared)
                if len(room) >= need and (best is None or rank < best[0]):
                    best = (rank, tuple(room[:need]), gone)
    return best


@st.composite
def crowds(draw, gpus):
    """Two nodes of two GPUs full of idle pods, some on both GPUs of their node, and a newcomer."""
    sizes = draw(st.lists(st.sampled_from([7, 10, 20, 33, 60]), min_size=4, max_size=4))
    functions = [
        msgspec.structs.replace(
            function(f"f{i}", gib, milli=draw(st.sampled_from([100, 250, 500]))),
            hbm_bytes=gib * GIB + draw(st.sampled_from([0, 1, GIB // 3])),
            gpus=1 + (i == 0),
            min_replica=int(i == 3),
        )
        for i, gib in enumerate(sizes)
    ]
    new = function("new", draw(st.sampled_from([30, 50, 79])), draw(st.sampled_from([100, 900])))
    c = cluster([*functions, msgspec.structs.replace(new, gpus=gpus)], nodes=2, gpus=2)
    pod = 0
    for at in draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=14)):
        f, gpu = at
        on = [gpu - gpu % 2, gpu - gpu % 2 + 1] if f == 0 else [gpu]
        spec = functions[f]
        if all(
            c.gpu_hbm_open[g] >= spec.hbm_bytes and c.gpu_milli_open[g] >= spec.milli_gpu
            for g in on
        ):
            add(c, pod, f, on)
            pod += 1
    cost = np.array(draw(st.lists(st.integers(1, 4), min_size=16, max_size=16)))
    return c, cost


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
