"""A bound is what nobody beats: bundles on small traces, through the whole simulator."""

from itertools import pairwise

import numpy as np
import pytest

from inferx.core.rng import stream
from inferx.core.types import FunctionSpec
from inferx.core.units import GIB, NS_PER_S
from inferx.load import load_bundle
from inferx.sim.driver import simulate
from inferx.sim.oracle.regret import bounds_of, regret_of
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
