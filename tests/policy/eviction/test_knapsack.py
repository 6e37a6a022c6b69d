"""Minimum-cost victims: a textbook instance, and brute force over all subsets."""

import msgspec
import numpy as np
import pytest
from crowd import crowds, naive_plan
from hypothesis import given
from hypothesis import strategies as st
from small_cluster import GIB, add, cluster, function, suspend, want

from inferx.core.machine.proposals import check_evict
from inferx.core.rng import stream
from inferx.core.view import ClusterView
from inferx.load import LoadError, load_bundle
from inferx.policy import Defer, Evict, GpuId, PodId, Tier
from inferx.policy.parts.victims import cheapest_plan

HALF = GIB // 2


def evict(c, f, name="knapsack", **settings):
    made = load_bundle(name, settings)
    return made.eviction.evict(want(c, f), ClusterView(c, snapshots=True), stream(1, "t"))


def test_who_stays_is_the_textbook_knapsack():
    """Martello and Toth 1990, Knapsack Problems, chapter 2, example 2.2 (again on p. 47).

    7 items, room for 50.

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


@given(st.data())
def test_over_whole_gpus_it_is_the_table_of_serverlessllm(data):
    """ServerlessLLM at 9f50241, `sllm/schedulers/storage_aware_scheduler.py`, get_migration_plans,
    line 279: dp[i][j] = min(dp[i-1][j], dp[i-1][j - g_i] + cost_i), j the shortage.

    Instances hold one whole GPU each, so that no plan frees more than the shortage.
    """
    cost = np.array(data.draw(st.lists(st.integers(1, 9), min_size=4, max_size=4)))
    shortage = data.draw(st.integers(1, 4))
    newcomer = function("new", 70, 1000, gpus=shortage)
    c = cluster([function(f"f{i}", 70, 1000) for i in range(4)] + [newcomer], nodes=1)
    for pod in range(4):
        add(c, pod, pod, [pod])
    dp = [0.0] + [np.inf] * shortage
    for each in cost.tolist():
        dp = [min(dp[j], dp[j - 1] + each if j else np.inf) for j in range(shortage + 1)]
    view = ClusterView(c, snapshots=True)
    plan = cheapest_plan(want(c, 4), view, np.arange(4), cost, GIB, np.array([True]))
    assert (plan.cost, len(plan.rows)) == (dp[shortage], shortage)


def test_the_expected_bytes_a_second_are_what_a_victim_costs():
    """Two pods that nobody asks for rather than one that moves 35 GiB back every second."""
    c = cluster([function("asked", 70), function("rare", 40), function("new", 70)], nodes=1, gpus=2)
    add(c, 0, 0, [0])
    add(c, 1, 1, [1])
    add(c, 2, 1, [1])
    c.now_ns = 60 * 10**9
    for second in range(1, 60):
        c.arrivals.learn(0, 1, second * 10**9, within_ns=10**9)
    plan = Evict((GpuId(1),), ((PodId(1), Tier.DRAM), (PodId(2), Tier.DRAM)))
    assert evict(c, 2) == plan
    c.node_host_open[0] = 25 * GIB  # Room for the state of one, and 2 for the newcomer.
    plan = Evict((GpuId(1),), ((PodId(1), Tier.DRAM), (PodId(2), Tier.NVME)))
    assert evict(c, 2) == plan
    c.node_host_open[0] = 1 * GIB
    plan = Evict((GpuId(1),), ((PodId(1), Tier.NVME), (PodId(2), Tier.NVME)))
    assert evict(c, 2) == plan
    c.node_host_open[0] = -9 * GIB  # Not even with both on the disk.
    assert evict(c, 2) == Defer("no victims suffice")


@given(st.data())
def test_every_plan_is_possible(data):
    """Idle and suspended pods, little host memory: the kernel takes what is proposed."""
    c, _ = data.draw(crowds(data.draw(st.sampled_from([1, 2]))))
    for pod in list(c.pods.values()):
        if len(pod.gpus) == 1 and data.draw(st.booleans()):
            suspend(c, pod)
    for node in range(2):
        c.node_host_open[node] = data.draw(st.sampled_from([-4, 0, 3, 40])) * GIB
    if not ClusterView(c, snapshots=True).fits(want(c, 4)).any():
        for name in ("knapsack", "plain"):
            plan = evict(c, 4, name)
            if isinstance(plan, Evict):
                check_evict(want(c, 4), plan, c)


def test_of_many_spanning_pods_the_cheapest_may_leave():
    """Eight pods on both GPUs are more than all sets of which are tried; six of them suffice."""
    c = cluster([function("wide", 9, 100, gpus=2), function("new", 60, 100, gpus=2)], 1, 2)
    for pod in range(8):
        add(c, pod, 0, [0, 1])
    view, rows = ClusterView(c, snapshots=True), np.arange(8)
    cost = np.array([9, 1, 1, 1, 1, 1, 1, 9])
    plan = cheapest_plan(want(c, 1), view, rows, cost, GIB, np.array([True]))
    assert (plan.rows, plan.cost) == ((1, 2, 3, 4, 5, 6), 6)
    larger = msgspec.structs.replace(want(c, 1), hbm_bytes=70 * GIB)
    assert cheapest_plan(larger, view, rows, cost, GIB, np.array([True])) is None


def test_a_granularity_out_of_range_is_refused():
    with pytest.raises(LoadError, match="unit_mib is 0"):
        load_bundle("knapsack", {"unit_mib": 0})
