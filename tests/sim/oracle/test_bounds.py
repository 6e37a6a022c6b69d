"""A bound is what nobody beats: bundles on small traces, through the whole simulator."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from inferx.core.rng import stream
from inferx.core.types import FunctionSpec
from inferx.core.units import GIB, NS_PER_S
from inferx.load import load_bundle
from inferx.sim.driver import simulate
from inferx.sim.oracle.regret import bounds_of, regret_of
from inferx.sim.oracle.work import work_of
from inferx.sim.profile import load_profile
from inferx.sim.workload.trace import make_trace
from inferx.sim.world import World
from inferx.spec.cluster import load_cluster

BUNDLES = ("dedicated", "default", "inferx-reference", "plain", "scale-to-zero", "serverlessllm")
PROFILE_OF = {"snapshot": "criu-memfd", "loader": "serverlessllm", "none": "safetensors"}


def functions_of(sizes):
    return tuple(
        FunctionSpec(
            name=f"f{row}",
            milli_gpu=milli,
            hbm_bytes=gib * GIB,
            device_bytes=gib * GIB // 4,
            host_bytes=GIB,
            weight_bytes=gib * GIB // 4,
        )
        for row, (gib, milli) in enumerate(sizes)
    )


def trace_of(rows, functions):
    rows = sorted(rows)
    return make_trace(
        np.array([round(at * NS_PER_S) for at, _, _ in rows], np.int64),
        function=np.array([row for _, row, _ in rows], np.int32),
        duration_ns=np.array([round(took * NS_PER_S) for _, _, took in rows], np.int64),
        names=tuple(f.name for f in functions),
    )


def random_case(seed):
    """A few functions that do not fit one GPU together, in bursts."""
    rng = stream(seed, "bounds")
    count = int(rng.integers(2, 6))
    sizes = [(int(rng.integers(8, 44)), int(rng.integers(100, 1000))) for _ in range(count)]
    functions = functions_of(sizes)
    at = np.cumsum(rng.exponential(float(rng.choice([1.0, 8.0, 40.0])), 40))
    rows = [
        (float(at[i] - at[0]), int(rng.integers(count)), float(rng.exponential(2.0)))
        for i in range(len(at))
    ]
    return functions, trace_of(rows, functions)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("policy", BUNDLES)
def test_no_shipped_bundle_beats_a_bound(policy, seed):
    functions, trace = random_case(seed)
    bundle = load_bundle(policy)
    world = World(
        nodes=load_cluster("g6e.2xlarge=1"),
        functions=functions,
        profile=load_profile(PROFILE_OF[bundle.mechanism]),
        prepared=("none", "remote", "nvme")[seed % 3],
    )
    warmup_ns = (seed % 2) * 20 * NS_PER_S
    record = simulate(world, [trace], bundle, seed=seed)
    found = regret_of(record, bounds_of(trace, world, warmup_ns=warmup_ns))
    assert found is not None
    assert found.bound == "prewarm"
    assert found.mean_wait_s >= found.bound_wait_s
    assert found.mean_response_s >= found.bound_response_s
    if found.on_demand_wait_s is not None:
        assert found.on_demand_wait_s >= found.bound_wait_s
        assert found.mean_wait_s >= found.on_demand_wait_s


@pytest.mark.parametrize("seed", range(8))
def test_bounds_fall_as_the_cluster_grows(seed):
    functions, trace = random_case(seed)
    found = []
    for count in (1, 2, 8):
        world = World(
            nodes=load_cluster(f"g6e.2xlarge={count}"),
            functions=functions,
            profile=load_profile("criu-memfd"),
        )
        found.append(bounds_of(trace, world))
    waits = [bounds.wait_s for bounds in found]
    on_demand = [bounds.on_demand_s for bounds in found]
    slack = 1e-5 * (1 + max(on_demand))
    assert all(less <= more + slack for more, less in pairwise(waits))
    assert all(less <= more + slack for more, less in pairwise(on_demand))
    # With room for everybody only first starts are waited for.
    assert waits[-1] == pytest.approx(float(found[-1].work.first_starts_s().sum()), abs=1e-3)


# -- what cannot be foreseen ---
def drawn(seed, shares, functions):
    """Requests at fixed instants, each one's function drawn on its own."""
    rng = stream(seed, "draw")
    at = np.cumsum(stream(1, "instants").exponential(15.0, 60))
    rows = rng.choice(len(shares), len(at), p=shares)
    return trace_of([(float(t), int(row), 0.2) for t, row in zip(at, rows, strict=True)], functions)


def test_one_of_equal_functions_fits_and_the_others_are_missed():
    functions = functions_of([(40, 900)] * 3)
    world = World(
        nodes=load_cluster("g6e.2xlarge=1"),
        functions=functions,
        profile=load_profile("criu-memfd"),
    )
    shares = np.array([0.5, 0.3, 0.2])
    trace = drawn(1, shares, functions)
    bounds = bounds_of(trace, world, shares=shares, warmup_ns=60 * NS_PER_S)
    late = int((trace.arrival_ns >= 60 * NS_PER_S).sum())
    missed_s = 0.5 * float(bounds.work.start_s[0])
    assert bounds.unforeseen_s == pytest.approx(late * missed_s, rel=1e-4)


def test_who_comes_before_a_first_start_can_be_over_waits_for_it():
    functions = functions_of([(8, 100)] * 2)
    world = World(
        nodes=load_cluster("g6e.2xlarge=1"),
        functions=functions,
        profile=load_profile("criu-memfd"),
    )
    shares = np.array([0.5, 0.5])
    trace = drawn(1, shares, functions)
    bounds = bounds_of(trace, world, shares=shares)
    first_s = np.maximum(bounds.work.first_s[0] - trace.arrival_ns / NS_PER_S, 0.0)
    assert first_s.sum() > 0
    assert bounds.unforeseen_s == pytest.approx(first_s.sum(), abs=1e-3)


@pytest.mark.parametrize("policy", ["default", "lfu"])
def test_on_average_nobody_who_cannot_foresee_waits_less(policy):
    functions = functions_of([(40, 900), (20, 500), (20, 400), (10, 300)])
    world = World(
        nodes=load_cluster("g6e.2xlarge=1"),
        functions=functions,
        profile=load_profile("criu-memfd"),
        prepared="nvme",
    )
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    bounds = bounds_of(drawn(0, shares, functions), world, shares=shares)
    waits = []
    for seed in range(30):
        trace = drawn(seed, shares, functions)
        record = simulate(world, [trace], load_bundle(policy), seed=seed)
        waits.append(regret_of(record, replace(bounds, work=work_of(trace, world))).mean_wait_s)
    error = np.std(waits, ddof=1) / np.sqrt(len(waits))
    least = bounds.unforeseen_s / len(trace)
    # Somebody who can foresee could do better.
    assert least > 1.2 * bounds.wait_s / len(trace)
    assert np.mean(waits) >= least - 3 * error
