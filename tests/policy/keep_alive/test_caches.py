"""LRU, LFU, Greedy-Dual and Landlord as caches, against their theorems and against loops."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pod_cache import PodCache
from small_cluster import GIB, add, cluster, function, want

from inferx.core.events import LoadReported
from inferx.core.lifecycle import PodState
from inferx.core.rng import stream
from inferx.core.types import FunctionSpec, RouterId
from inferx.core.view import ClusterView
from inferx.load import LoadError, load_bundle
from inferx.policy import FOREVER_NS, Evict, FunctionId, Retain, Tier

CACHES = ("lru", "lfu", "greedy-dual", "landlord")
REQUESTS = st.lists(st.integers(0, 6), max_size=60)
SIZES = st.lists(st.integers(1, 12), min_size=7, max_size=7)


def model(index, gib=10, weights=10):
    """One that takes a whole GPU, of its own size and cost."""
    return FunctionSpec(
        name=f"f{index}",
        milli_gpu=1000,
        hbm_bytes=gib * GIB,
        device_bytes=gib * GIB // 2,
        host_bytes=2 * GIB,
        weight_bytes=weights * GIB,
    )


def cache(name, models, gpus, *, told=False):
    return PodCache(load_bundle(name, {"then": "absent"}), models, gpus, told=told)


def serve(cached, requests):
    for f in requests:
        cached.serve(f)
    return cached


def costs_s(models):
    """What a cold start of each is expected to take."""
    c = cluster(models, nodes=1, gpus=1)
    view = ClusterView(c, snapshots=True)
    return [view.start_ns(FunctionId(f), Tier.ABSENT, 0) / 1e9 for f in range(len(models))]


def cheapest(requests, costs, slots):
    """Return the least cost of serving them with so many slots, all choices tried."""
    best = {frozenset(): 0.0}
    for f in requests:
        after = {}
        for held, paid in best.items():
            if f in held:
                choices, cost = [held], paid
            else:
                rooms = combinations(held, min(len(held), slots - 1))
                choices, cost = [frozenset((*kept, f)) for kept in rooms], paid + costs[f]
            for choice in choices:
                after[choice] = min(after.get(choice, np.inf), cost)
        best = after
    return min(best.values())


# -- theorems ---
@pytest.mark.parametrize("name", ["lru", "landlord", "greedy-dual"])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_a_cycle_of_one_more_than_the_slots_misses_always_and_the_best_every_kth(name, k):
    """Sleator and Tarjan 1985, CACM 28(2), pp. 202-208, section 4: no rule without foresight has a
    factor below k.

    On the cycle of k + 1 pages the least recently used is the one asked for next; the best rule
    evicts the one asked for last, and after the first k faults has one each k requests.
    """
    requests = [i % (k + 1) for i in range(7 * k)]
    found = serve(cache(name, [model(i) for i in range(k + 1)], k), requests)
    assert len(found.missed) == len(requests)
    assert cheapest(requests, [1.0] * (k + 1), k) == k + 6


def test_lfu_has_no_factor():
    """Sleator and Tarjan 1985, CACM 28(2), pp. 202-208, section 4: LFU has no factor.

    Two pages in turn cost a fault each, for ever.

    Page 0 of two slots was used often once; pages 1 and 2 in turn then miss always. The best rule
    has three faults, however long it goes on.
    """
    for turns in (5, 10, 20):
        requests = [0] * (turns + 1) + [1, 2] * turns
        found = serve(cache("lfu", [model(i) for i in range(3)], 2, told=True), requests)
        assert len(found.missed) == 1 + 2 * turns
        assert cheapest(requests, [1.0] * 3, 2) == 3


@pytest.mark.parametrize("name", ["landlord", "greedy-dual"])
@given(requests=REQUESTS, weights=SIZES)
def test_landlord_keeps_its_bound(name, requests, weights):
    """Young 2002, Algorithmica 33(3), p. 371: cost <= k / (k - h + 1) x the best of h slots."""
    models = [model(i, weights=w) for i, w in enumerate(weights)]
    costs, k = costs_s(models), 3
    paid = sum(costs[f] for f in serve(cache(name, models, k), requests).missed)
    for h in range(1, k + 1):
        assert paid <= k / (k - h + 1) * cheapest(requests, costs, h) + 1e-6


@given(requests=REQUESTS, slots=st.integers(1, 4))
def test_lru_keeps_its_bound(requests, slots):
    """Sleator and Tarjan 1985, CACM 28(2), section 4, theorem 6.

    F_LRU <= k / (k - h + 1) x F_MIN(h) + h.
    """
    missed = serve(cache("lru", [model(i) for i in range(7)], slots), requests).missed
    for h in range(1, slots + 1):
        least = cheapest(requests, [1.0] * 7, h)
        assert len(missed) <= slots / (slots - h + 1) * least + h


@given(requests=REQUESTS, slots=st.integers(1, 4), gib=SIZES, weights=SIZES)
def test_greedy_dual_without_frequencies_is_landlord(requests, slots, gib, weights):
    """Fuerst and Sharma 2021, ASPLOS, p. 391, section 4.2: Landlord is a variant of Greedy-Dual.

    One charges rent, the other moves a clock; without frequencies the victims are the same.
    """
    models = [model(i, g, w) for i, (g, w) in enumerate(zip(gib, weights, strict=True))]
    dual = serve(cache("greedy-dual", models, slots), requests)
    lord = serve(cache("landlord", models, slots), requests)
    assert dual.left == lord.left


@given(requests=REQUESTS, slots=st.integers(1, 4))
def test_landlord_of_equal_files_is_lru(requests, slots):
    """Young 2002, Algorithmica 33(3), p. 371: Landlord generalises LRU."""
    models = [model(i) for i in range(7)]
    lord = serve(cache("landlord", models, slots), requests)
    assert lord.left == serve(cache("lru", models, slots), requests).left


# -- naive twins ---
def faascache(requests, slots, worth):
    """FaasCache's GD: clock + frequency x cost / size, set at each use; ties to the oldest."""
    clock, held, left = 0.0, {}, []
    for now, f in enumerate(requests):
        if f not in held and len(held) == slots:
            victim = min(held, key=lambda g: (held[g][0], held[g][2]))
            clock = held.pop(victim)[0]
            left.append(victim)
        uses = held.get(f, (0, 0, 0))[1] + 1
        held[f] = (clock + uses * worth[f], uses, now)
    return left


@given(requests=REQUESTS, slots=st.integers(1, 4), gib=SIZES, weights=SIZES)
def test_greedy_dual_is_the_published_loop(requests, slots, gib, weights):
    """Fuerst and Sharma 2021, ASPLOS, p. 390, equation 1, as their simulator computes it."""
    models = [model(i, g, w) for i, (g, w) in enumerate(zip(gib, weights, strict=True))]
    worth = [cost / g for cost, g in zip(costs_s(models), gib, strict=True)]
    found = serve(cache("greedy-dual", models, slots, told=True), requests)
    assert found.left == faascache(requests, slots, worth)


@given(requests=REQUESTS, slots=st.integers(1, 4))
def test_lfu_and_lru_are_their_loops(requests, slots):
    models = [model(i) for i in range(7)]
    for name in ("lru", "lfu"):
        held, left = {}, []
        for now, f in enumerate(requests):
            if f not in held and len(held) == slots:
                victim = min(held, key=lambda g: held[g] if name == "lfu" else held[g][1])
                del held[victim]
                left.append(victim)
            held[f] = (held.get(f, (0, 0))[0] + 1, now)
        assert serve(cache(name, models, slots, told=True), requests).left == left


@given(
    pods=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans()), max_size=8),
    uses=st.lists(st.integers(0, 3), min_size=4, max_size=4),
)
def test_the_order_of_leaving_is_a_sort_ties_included(pods, uses):
    c = cluster([function(f"f{i}", 10, 100) for i in range(4)], nodes=2, gpus=4)
    for row, (f, since, idle) in enumerate(pods):
        state = PodState.READY if idle else PodState.CREATING
        add(c, row, f, [row % 8], idle_since=since, state=state)
    made = load_bundle("lfu")
    made.observers[0].observe(
        0, LoadReported(RouterId(0), 1, (0, 1, 2, 3), (*uses,), (0,) * 4, (0,) * 4)
    )
    turn = made.eviction.cost(ClusterView(c, snapshots=True))
    idle = [row for row, (_, _, ready) in enumerate(pods) if ready]
    idle.sort(key=lambda row: (max(1, uses[pods[row][0]]), pods[row][1], row))
    assert [row for row in np.argsort(turn, kind="stable") if np.isfinite(turn[row])] == idle


# -- what the kernel does with a plan ---
def evicting(name):
    """Two GPUs, each with an idle pod, and a want of a third function; the plan is proposed."""
    models = [model(i, weights=w) for i, w in enumerate((1, 5, 9))]
    found = serve(cache(name, models, 2), [0, 1])
    plan = found.bundle.eviction.evict(
        want(found.c, 2), ClusterView(found.c, snapshots=True), stream(1, "t")
    )
    assert isinstance(plan, Evict)
    return found, plan


def test_the_clock_stands_still_when_a_proposal_was_not_carried_out():
    found, _ = evicting("greedy-dual")
    found.serve(0)
    assert found.bundle.eviction.clock == 0.0


def test_the_clock_moves_when_the_victim_has_left():
    found, plan = evicting("greedy-dual")
    pod = found.c.pods[plan.victims[0][0]]
    assert pod.function == 0  # The cheapest start.
    found.c.enter(pod, PodState.SUSPENDING)
    found.serve(1)
    assert found.bundle.eviction.clock > 0.0


def test_a_victim_that_came_back_since_has_left():
    found, plan = evicting("greedy-dual")
    pod = found.c.pods[plan.victims[0][0]]
    found.c.now_ns += 1
    pod.ready_ns = found.c.now_ns
    found.c.touch(pod)
    found.serve(1)
    assert found.bundle.eviction.clock > 0.0


def test_uses_are_forgotten_when_the_last_pod_left_only():
    c = cluster([function("a", 60, 1000), function("b", 60, 1000)], nodes=3, gpus=1)
    made = load_bundle("lfu", {"then": "absent"})
    made.observers[0].observe(0, LoadReported(RouterId(0), 1, (0,), (7,), (0,), (0,)))
    pods = [add(c, row, 0, [row], idle_since=row) for row in range(3)]
    view = ClusterView(c, snapshots=True)
    for left, uses in enumerate((7, 7, 1)):
        plan = made.eviction.evict(want(c, 1), view, stream(1, "t"))
        assert plan.victims == ((pods[left].id, Tier.ABSENT),)
        c.enter(pods[left], PodState.TERMINATING)
        made.keep_alive.retain(FunctionId(1), Tier.HBM, view)
        assert made.eviction._uses.of(2)[0] == uses


@pytest.mark.parametrize("name", CACHES)
def test_caches_hold_for_ever_at_either_tier(name):
    c = cluster([function("a")])
    made, view = load_bundle(name), ClusterView(c, snapshots=True)
    for at in (Tier.HBM, Tier.DRAM):
        held = made.keep_alive.retain(FunctionId(0), at, view)
        assert held == Retain(FOREVER_NS, Tier.ABSENT)


def test_a_fixed_time_is_fixed():
    """Fuerst and Sharma 2021, ASPLOS, p. 394, section 7.1: by default it is 10 minutes."""
    c = cluster([function("a")])
    view = ClusterView(c, snapshots=True)
    made = load_bundle("fixed-ttl")
    assert made.keep_alive.retain(FunctionId(0), Tier.HBM, view) == Retain(600 * 10**9, Tier.DRAM)
    made = load_bundle("fixed-ttl", {"hold_s": 1.5, "then": "nvme"})
    assert made.keep_alive.retain(FunctionId(0), Tier.HBM, view) == Retain(15 * 10**8, Tier.NVME)


@pytest.mark.parametrize("name", [*CACHES, "fixed-ttl", "hybrid-histogram"])
def test_a_tier_that_is_none_is_said(name):
    with pytest.raises(LoadError, match="then is 'tape'; expected one of dram, nvme, absent"):
        load_bundle(name, {"then": "tape"})


def test_times_out_of_range_are_said():
    with pytest.raises(LoadError, match="hold_s is -1; expected seconds"):
        load_bundle("fixed-ttl", {"hold_s": -1})
