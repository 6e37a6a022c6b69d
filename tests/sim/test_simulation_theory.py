"""The whole simulator, routers, leases and all, against closed forms of queueing theory.

One function with one pod of c slots, started before the requests come. Confidence intervals are of
batch means at 99 %; seeds are fixed, so a test either always passes or always fails.
"""

import math

import msgspec
import numpy as np
import pytest

from inferx.core.rng import stream
from inferx.load import load_bundle
from inferx.sim.driver import simulate
from inferx.sim.profile import load_profile
from inferx.sim.record import Outcome
from inferx.sim.stats import student_t_quantile
from inferx.sim.workload.trace import chunks_of, make_trace
from inferx.sim.world import World
from inferx.spec.cluster import load_cluster
from inferx.spec.template import auto_functions

NS = 10**9
HEAD_S = 600.0
"""Time for the pod to start, before the stationary part."""


def run(*, slots, rate, mean_s, count, timeout_s, seed):
    """Return waits in seconds and outcomes of M/M/c traffic after the pod is up."""
    rng = stream(seed, "theory")
    at = HEAD_S + np.cumsum(rng.exponential(1 / rate, count))
    trace = make_trace(
        # The first request only sets the origin of time.
        arrival_ns=(np.concatenate(([0.0], at)) * NS).astype(np.int64),
        duration_ns=(np.concatenate(([1.0], rng.exponential(mean_s, count))) * NS).astype(np.int64)
        + 1,
        names=["f"],
    )
    spec = msgspec.structs.replace(
        auto_functions(["f"], seed=1, template="auto:7b")[0],
        slots=slots,
        queue_len=10**6,
        queue_timeout_ns=timeout_s * NS,
        max_replica=1,
        linger_ns=10**6 * NS,
    )
    world = World(
        nodes=load_cluster("p5.4xlarge=1"), functions=(spec,), profile=load_profile("safetensors")
    )
    record = simulate(world, chunks_of(trace), load_bundle("dedicated"), seed=seed)
    table = record.requests
    return (table.started_ns - table.arrived_ns)[1:] / NS, table.outcome[1:]


def interval(values, batches=20):
    """Return mean and half-width of the 99 % interval of batch means."""
    means = np.array([part.mean() for part in np.array_split(values, batches)])
    half = student_t_quantile(batches - 1, 0.99) * means.std(ddof=1) / math.sqrt(batches)
    return float(means.mean()), float(half)


def erlang_b(servers, load):
    """Return the share of lost requests, by its recursion."""
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = load * blocked / (n + load * blocked)
    return blocked


@pytest.mark.parametrize(("slots", "rho"), [(1, 0.5), (1, 0.7), (4, 0.7), (3, 0.8)])
def test_waiting_for_a_slot_is_that_of_m_m_c(slots, rho):
    mean_s = 1.0
    load = rho * slots
    waits, outcome = run(
        slots=slots, rate=load / mean_s, mean_s=mean_s, count=60_000, timeout_s=10**6, seed=7
    )
    assert (outcome == Outcome.FINISHED).all()
    lost = erlang_b(slots, load)
    delayed = lost / (1 - rho * (1 - lost))
    expected = delayed * mean_s / (slots * (1 - rho))
    mean, half = interval(waits)
    assert half < 0.2 * expected, "the interval says something"
    assert abs(mean - expected) <= half


@pytest.mark.parametrize(("slots", "load"), [(1, 0.5), (4, 3.0), (10, 8.0)])
def test_refusals_without_a_queue_are_erlang_b(slots, load):
    _, outcome = run(slots=slots, rate=load, mean_s=1.0, count=60_000, timeout_s=0, seed=11)
    mean, half = interval((outcome == Outcome.REFUSED).astype(float))
    expected = erlang_b(slots, load)
    assert half < 0.15 * expected
    assert abs(mean - expected) <= half
