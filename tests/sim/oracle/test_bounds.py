"""A bound is what nobody beats: bundles on small traces, through the whole simulator."""

from dataclasses import replace
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from inferx.core.rng import stream
from inferx.core.types import FunctionSpec
from inferx.core.units import GIB, NS_PER_S
from inferx.load import load_bundle
from inferx.sim.driver import simulate
from inferx.sim.oracle.keep_alive import on_demand_wait_s
from inferx.sim.oracle.regret import bounds_of, copied_into_host, regret_of
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
    on_demand = [bounds.on_demand.wait_s for bounds in found]
    slack = 1e-5 * (1 + max(on_demand))
    assert all(less <= more + slack for more, less in pairwise(waits))
    assert all(less <= more + slack for more, less in pairwise(on_demand))
    # With room for everybody only first starts are waited for.
    assert waits[-1] == pytest.approx(float(found[-1].work.first_starts_s().sum()), abs=1e-3)


# -- host memory ---
def with_host(nodes, gib):
    return tuple(msgspec.structs.replace(node, host_bytes=gib * GIB) for node in nodes)


def big_states(seed):
    """The random case with more state on each device, and the largest pod's state in GiB."""
    functions, trace = random_case(seed)
    times = 2 + seed % 2
    functions = tuple(
        msgspec.structs.replace(f, device_bytes=times * f.device_bytes) for f in functions
    )
    return functions, trace, max(f.device_bytes for f in functions) // GIB + 1


SHORT = (0, 2, 4)
"""Seeds whose functions do not all fit GPUs and host memory together."""
SUSPENDING = ("fixed-ttl", "greedy-dual", "lru", "plain")


@pytest.mark.parametrize("seed", SHORT)
def test_nobody_beats_a_bound_where_host_memory_is_short(seed):
    functions, trace, largest = big_states(seed)
    world = World(
        nodes=with_host(load_cluster("g6e.2xlarge=1"), largest + 1 + len(functions)),
        functions=functions,
        profile=load_profile("criu-memfd"),
        prepared=("none", "remote", "nvme")[seed // 2],
    )
    bounds = bounds_of(trace, world)
    for policy in (*SUSPENDING, "default", "inferx-reference"):
        record = simulate(world, [trace], load_bundle(policy), seed=seed)
        found = regret_of(record, bounds)
        copied = copied_into_host(record)
        assert not copied or policy not in SUSPENDING
        if found.on_demand_wait_s is not None:
            assert found.mean_wait_s >= found.on_demand_wait_s
            least = bounds.on_demand.wait_s if copied else bounds.on_demand.suspending_s
            assert found.on_demand_wait_s == least / found.requests


@pytest.mark.parametrize("seed", SHORT)
def test_the_bound_of_those_who_suspend_rises_as_host_memory_shrinks(seed):
    functions, trace, largest = big_states(seed)
    found = []
    for gib in (largest + 1, 2 * largest + 1, 400):
        nodes = with_host(load_cluster("g6e.2xlarge=1"), gib)
        world = World(nodes=nodes, functions=functions, profile=load_profile("criu-memfd"))
        found.append(on_demand_wait_s(work_of(trace, world)))
    assert all(bound.wait_s == pytest.approx(found[0].wait_s) for bound in found)
    held = [bound.suspending_s for bound in found]
    assert all(more >= less - 1e-4 * (1 + less) for more, less in pairwise(held))
    assert held[0] > 1.2 * held[-1]


def test_a_state_that_was_copied_before_anybody_asked_is_resumed_the_first_time():
    functions = functions_of([(40, 900), (20, 100)])
    trace = trace_of([(0.0, 0, 0.1), (100.0, 1, 0.1)], functions)
    world = World(
        nodes=load_cluster("g6e.2xlarge=1"),
        functions=functions,
        profile=load_profile("criu-memfd"),
    )
    bounds = bounds_of(trace, world, warmup_ns=60 * NS_PER_S)
    waits = {}
    for policy in ("default", "plain"):
        record = simulate(world, [trace], load_bundle(policy), seed=1)
        assert copied_into_host(record) == (policy == "default")
        found = regret_of(record, bounds)
        waits[policy] = found.mean_wait_s, found.on_demand_wait_s
        assert found.mean_wait_s >= found.on_demand_wait_s
    start_s, first_s = float(bounds.work.start_s[1]), float(bounds.work.below_s[1])
    assert waits["default"] == pytest.approx((start_s, start_s), abs=0.2)
    assert waits["plain"][1] == pytest.approx(first_s)
    assert first_s > start_s + 1.0


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
