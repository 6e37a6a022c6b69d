"""Prism's KV pressure ratio: its algorithm, its bound, and a loop."""

from itertools import product

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_cluster import GIB, add, cluster, function, want

from inferx.core.rng import stream
from inferx.core.view import ClusterView
from inferx.load import load_bundle
from inferx.policy import Defer, GpuId, Place

CAPACITY_GIB = 80


class Rates:
    """Arrival rates that are known."""

    def __init__(self, rates):
        self.rates = np.array(rates, np.float64)

    def per_s(self, now_ns):
        return self.rates


def asked(rates, weights, *, gpus=2, nodes=1, slo_s=30):
    """A cluster of functions of one pod each: their rates, and the weights that a pod holds."""
    functions = [
        msgspec.structs.replace(
            function(f"f{i}", weight, milli=10),
            device_bytes=weight * GIB,
            queue_timeout_ns=slo_s * 10**9,
        )
        for i, weight in enumerate(weights)
    ]
    c = cluster(functions, nodes=nodes, gpus=gpus)
    c.arrivals = Rates(rates)
    return c


def algorithm_1(c, **settings):
    """Place all functions by the policy, the most urgent first; return the GPU of each."""
    made, rates = load_bundle("kv-pressure", settings), c.arrivals.rates
    at = {}
    for f in sorted(range(len(rates)), key=lambda f: (-rates[f], f)):
        placed = made.placement.place(want(c, f), ClusterView(c, snapshots=True), stream(1, "t"))
        assert isinstance(placed, Place)
        at[f] = int(placed.gpus[0])
        add(c, f, f, placed.gpus)
    return at


def most(at, rates, weights, gpus, slo_s=30):
    """The highest ratio of a placement, by the definition in section 6.1 (pp. 82-83)."""
    ratios = []
    for gpu in range(gpus):
        on = [f for f in at if at[f] == gpu]
        shared = CAPACITY_GIB - sum(weights[f] for f in on)
        ratios.append(sum(rates[f] / slo_s for f in on) / shared if shared else np.inf)
    return max(ratios)


def test_the_next_model_goes_where_the_ratio_is_least_before_it():
    """Yu et al. 2026, OSDI, pp. 82-83, algorithm 1 by hand.

    C=80, weights 10 10 40 10, rates 8 6 5 1.

    8 to GPU 0 (8/70), 6 to GPU 1 (6/70), 5 with weights of 40 to GPU 1 (11/30), 1 to GPU 0.
    """
    c = asked([8, 6, 5, 1], [10, 10, 40, 10])
    assert algorithm_1(c) == {0: 0, 1: 1, 2: 1, 3: 0}


def test_the_resulting_ratio_may_choose_otherwise():
    """GPU 0 holds weights of 60 (rate 1: 1/20), GPU 1 of 10 (rate 4: 4/70).

    Before the third model (rate 3, weights 10) GPU 0 is lower, 0.05 to 0.057; with it, it would
    be at 4/10 and GPU 1 at 7/60.
    """
    for resulting, gpu in ((False, 0), (True, 1)):
        c = asked([1, 4, 3], [60, 10, 10])
        add(c, 0, 0, [0])
        add(c, 1, 1, [1])
        made = load_bundle("kv-pressure", {"resulting": resulting})
        placed = made.placement.place(want(c, 2), ClusterView(c, snapshots=True), stream(1, "t"))
        assert placed == Place((GpuId(gpu),))


@given(st.data())
def test_no_gpu_is_above_the_bound_of_the_optimum(data):
    """Yu et al. 2026, OSDI, appendix A.2.1: max KVPR <= OPT (1 + C / (S - w)), S - w what is left
    on the worst GPU.

    `w` is that of the last model placed there. The optimum is found by trying all placements; every
    GPU has room for every model, for the proof has no GPU that is passed over.
    """
    gpus = data.draw(st.integers(2, 3))
    models = data.draw(
        st.lists(st.tuples(st.integers(1, 9), st.integers(1, 12)), min_size=1, max_size=6)
    )
    rates, weights = zip(*models, strict=True)
    at = algorithm_1(asked(rates, weights, gpus=gpus))
    best = min(
        most(dict(enumerate(to)), rates, weights, gpus)
        for to in product(range(gpus), repeat=len(models))
    )
    worst = max(
        range(gpus), key=lambda gpu: most({f: 0 for f in at if at[f] == gpu}, rates, weights, 1)
    )
    left = CAPACITY_GIB - sum(weights[f] for f in at if at[f] == worst)
    assert most(at, rates, weights, gpus) <= best * (1 + CAPACITY_GIB / left) * (1 + 1e-12)


def naive_gpu(c, f, *, resulting):
    """The first GPU with room and the least ratio, one GPU and one pod at a time."""
    best = None
    for gpu in np.flatnonzero(ClusterView(c, snapshots=True).fits(want(c, f))).tolist():
        urgency, left = 0.0, c.gpu_hbm_total[gpu] / GIB
        on = [(p.function, 0) for p in c.pods.values() if gpu in p.gpus]
        for m, _ in on + [(f, 1)] * resulting:
            spec = c.functions[m]
            pods = sum(p.function == m for p in c.pods.values()) + (resulting and m == f)
            rate, slo_s = c.arrivals.rates[m], spec.queue_timeout_ns / 1e9
            urgency += rate / slo_s / max(1, pods) / spec.gpus
            left -= spec.device_bytes / spec.gpus / GIB
        ratio = urgency / left if left > 0 else np.inf
        if best is None or ratio < best[0]:
            best = (ratio, gpu)
    return None if best is None else best[1]


@pytest.mark.parametrize("resulting", [False, True])
@given(st.data())
def test_it_is_the_loop_ties_included(resulting, data):
    # Rates and weights are powers of two: sums are exact, and equal ratios are equal.
    powers = st.sampled_from([1, 2, 4, 8])
    models = data.draw(st.lists(st.tuples(powers, powers), min_size=4, max_size=4))
    rates, weights = zip(*models, strict=True)
    c = asked(rates, weights, gpus=2, nodes=2, slo_s=data.draw(st.sampled_from([1, 2])))
    for pod, (f, gpu) in enumerate(
        data.draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=9))
    ):
        add(c, pod, f, [gpu])
    made = load_bundle("kv-pressure", {"resulting": resulting})
    f = data.draw(st.integers(0, 3))
    placed = made.placement.place(want(c, f), ClusterView(c, snapshots=True), stream(1, "t"))
    assert placed == Place((GpuId(naive_gpu(c, f, resulting=resulting)),))


def test_it_defers_where_nothing_fits():
    c = asked([1, 1], [79, 79], gpus=1)
    add(c, 0, 0, [0])
    made = load_bundle("kv-pressure")
    placed = made.placement.place(want(c, 1), ClusterView(c, snapshots=True), stream(1, "t"))
    assert placed == Defer("no GPU fits")
