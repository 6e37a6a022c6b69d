"""What the benchmarks run: drawn requests, nodes of eight H100, pods that are wanted."""

import numpy as np

from inferx.core.rng import stream
from inferx.core.types import FunctionId, FunctionSpec, Want, want_of
from inferx.core.units import NS_PER_S
from inferx.sim.profile import load_profile
from inferx.sim.workload.trace import Trace, make_trace
from inferx.sim.world import World
from inferx.spec.cluster import load_cluster
from inferx.spec.template import auto_functions

__all__ = ["requests", "want", "world"]


def requests(count: int, functions: int, rate: float, alpha: float, seed: int = 1) -> Trace:
    """Draw Poisson arrivals of token requests with Zipf popularity."""
    rng = stream(seed, "benchmark")
    share = 1.0 / np.arange(1, functions + 1) ** alpha
    return make_trace(
        arrival_ns=np.cumsum(rng.exponential(NS_PER_S / rate, count)).astype(np.int64),
        function=rng.choice(functions, count, p=share / share.sum()).astype(np.int32),
        input_tokens=np.full(count, 500, np.int32),
        output_tokens=rng.geometric(1 / 100, count).astype(np.int32),
        names=[f"f{index:04d}" for index in range(functions)],
    )


def world(trace: Trace, nodes: int, prepared: str) -> World:
    """Return nodes of eight H100 for a trace's functions."""
    return World(
        nodes=load_cluster(f"p5.48xlarge={nodes}"),
        functions=auto_functions(trace.names, seed=1, template="auto:7b"),
        profile=load_profile("criu-memfd"),
        prepared=prepared,
    )


def want(function: int, spec: FunctionSpec) -> Want:
    """Return the want of one pod of a function."""
    return want_of(FunctionId(function), spec)
