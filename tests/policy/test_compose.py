"""The standard parts against loops, and the pipelines they make."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_cluster import GIB, add, cluster, function, want

from inferx.core.machine.proposals import check_evict, check_place
from inferx.core.rng import stream
from inferx.core.view import ClusterView
from inferx.policy import Defer, Evict, GpuId, Place, PodId, Tier
from inferx.policy.basics import LeastOutstanding, NeverEvict
from inferx.policy.compose import BestFit, FirstOf, Guarded, RankedEviction, Scored, best_gpus


def naive_best(want, ok, score, nodes):
    """Every node's best GPUs by (score, lowest number); the node with the highest total."""
    best = None
    for n in sorted(set(nodes)):
        here = sorted(
            (g for g in range(len(ok)) if ok[g] and nodes[g] == n), key=lambda g: (-score[g], g)
        )
        if len(here) >= want.gpus:
            chosen = here[: want.gpus]
            total = sum(score[g] for g in chosen)
            if best is None or total > best[0]:
                best = (total, tuple(sorted(chosen)))
    return best[1]


@given(st.data())
def test_best_gpus_equals_a_loop_ties_included(data):
    gpus = data.draw(st.sampled_from([1, 2, 3]))
    c = cluster([function("f", gpus=gpus)], nodes=3)
    score = np.array(
        data.draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=12, max_size=12))
    )
    ok = np.array(data.draw(st.lists(st.booleans(), min_size=12, max_size=12)))
    enough = np.bincount(c.gpu_node[ok], minlength=3) >= gpus
    ok &= enough[c.gpu_node]
    if not ok.any():
        return
    view = ClusterView(c, snapshots=True)
    asked = want(c, 0)
    assert best_gpus(asked, ok, score, view) == naive_best(asked, ok, score, c.gpu_node.tolist())


class Fixed:
    """A cost for each pod id."""

    def __init__(self, costs):
        self.costs = costs

    def cost(self, view):
        return np.array([self.costs.get(int(pod), np.inf) for pod in view.pods.id])


@given(st.data())
def test_ranked_eviction_proposes_what_fits_and_no_victim_too_many(data):
    sizes = data.draw(st.lists(st.sampled_from([10, 20, 40, 70]), min_size=3, max_size=6))
    functions = [function(f"f{i}", gib) for i, gib in enumerate(sizes)] + [function("new", 60, 700)]
    c = cluster(functions, nodes=1, gpus=2)
    placed = 0
    for pod in range(8):
        f = data.draw(st.integers(0, len(sizes) - 1))
        gpu = data.draw(st.integers(0, 1))
        spec = functions[f]
        if c.gpu_hbm_open[gpu] >= spec.hbm_bytes and c.gpu_milli_open[gpu] >= spec.milli_gpu:
            add(c, pod, f, [gpu])
            placed += 1
    costs = {pod: float(data.draw(st.integers(1, 5))) for pod in range(8)}
    view = ClusterView(c, snapshots=True)
    asked = want(c, len(sizes))
    if view.fits(asked).any():
        return
    plan = RankedEviction(Fixed(costs), Tier.ABSENT).evict(asked, view, stream(1, "t"))
    if isinstance(plan, Defer):
        # Nothing helps: even an empty GPU would be too small, or nobody is there.
        assert not placed or asked.hbm_bytes > 80 * GIB
        return
    check_evict(asked, plan, c)
    for left_out, _ in plan.victims:
        rest = tuple(v for v in plan.victims if v[0] != left_out)
        with view.trial() as trial:
            for pod, _ in rest:
                trial.release(pod)
            assert not trial.fits(asked)[list(plan.gpus)].all(), "a victim too many"


def test_one_victim_that_suffices_is_the_cheapest_of_them():
    c = cluster([function("a", 70), function("b", 70), function("c", 70)], nodes=1, gpus=2)
    add(c, 0, 0, [0])
    add(c, 1, 1, [1])
    view = ClusterView(c, snapshots=True)
    plan = RankedEviction(Fixed({0: 2.0, 1: 1.0}), Tier.DRAM).evict(
        want(c, 2), view, stream(1, "t")
    )
    assert plan == Evict((GpuId(1),), ((PodId(1), Tier.DRAM),))


def test_best_fit_fills_the_fuller_gpu_and_explains_itself():
    c = cluster([function("a", 20), function("b", 20)], nodes=1)
    add(c, 0, 0, [2])
    view = ClusterView(c, snapshots=True)
    policy = Scored((("best fit", 1.0, BestFit()),))
    proposal = policy.place(want(c, 1), view, stream(1, "t"))
    assert proposal == Place((GpuId(2),))
    check_place(want(c, 1), proposal, c)
    told = policy.explain(want(c, 1), view)
    assert told.feasible == told.gpus == 4
    assert told.top[0].gpu == 2
    assert told.margin == pytest.approx(told.top[0].score - told.top[1].score)


def test_a_gang_is_placed_on_one_node():
    c = cluster([function("a", 60, 900), function("gang", 60, 900, gpus=2)], nodes=2, gpus=2)
    add(c, 0, 0, [0])
    view = ClusterView(c, snapshots=True)
    proposal = Scored((("best fit", 1.0, BestFit()),)).place(want(c, 1), view, stream(1, "t"))
    assert proposal == Place((GpuId(2), GpuId(3)))


class OnGpus:
    """A filter that lets a few GPUs pass."""

    def __init__(self, *gpus):
        self.gpus = gpus

    def mask(self, want, view):
        return np.isin(np.arange(len(view.gpus.node)), self.gpus)


def test_filters_narrow_a_choice_and_are_told_of():
    c = cluster([function("a", 20), function("gang", 20, gpus=2)], nodes=2, gpus=2)
    view, rng = ClusterView(c, snapshots=True), stream(1, "t")
    terms = (("best fit", 1.0, BestFit()),)
    narrow = Scored(terms, (("zone", OnGpus(1, 2, 3)),))
    assert narrow.place(want(c, 0), view, rng) == Place((GpuId(1),))
    # Node 0 has one GPU left that passes: too few for a gang of two.
    assert narrow.place(want(c, 1), view, rng) == Place((GpuId(2), GpuId(3)))
    told = narrow.explain(want(c, 0), view)
    assert (told.feasible, told.filtered, told.top[0].gpu) == (3, {"zone": 1}, 1)
    nowhere = Scored(terms, (("zone", OnGpus()),))
    assert nowhere.place(want(c, 0), view, rng) == Defer("no GPU fits")


def test_the_first_placement_that_places_is_taken():
    c = cluster([function("a", 20)], nodes=2, gpus=2)
    view, rng = ClusterView(c, snapshots=True), stream(1, "t")

    def on(*gpus):
        return Scored((("best fit", 1.0, BestFit()),), (("zone", OnGpus(*gpus)),))

    assert FirstOf((on(), on(3), on(1))).place(want(c, 0), view, rng) == Place((GpuId(3),))
    assert isinstance(FirstOf((on(), on())).place(want(c, 0), view, rng), Defer)


def test_an_eviction_that_defers_is_guarded_by_another():
    c = cluster([function("a", 70), function("b", 70)], nodes=1, gpus=1)
    add(c, 0, 0, [0])
    view, rng = ClusterView(c, snapshots=True), stream(1, "t")
    ranked = RankedEviction(Fixed({0: 1.0}), Tier.DRAM)
    plan = Evict((GpuId(0),), ((PodId(0), Tier.DRAM),))
    assert Guarded(NeverEvict(), ranked).evict(want(c, 1), view, rng) == plan
    assert Guarded(ranked, NeverEvict()).evict(want(c, 1), view, rng) == plan
    assert isinstance(Guarded(NeverEvict(), NeverEvict()).evict(want(c, 1), view, rng), Defer)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6))
def test_the_least_busy_pod_is_routed_to_and_the_first_of_equals(busy):
    @dataclass
    class Leased:
        inflight: int

    pods = [Leased(count) for count in busy]
    assert LeastOutstanding().route(None, pods, None, None) == busy.index(min(busy))
