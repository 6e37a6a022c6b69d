"""Fair queueing in whole runs: tenants of one function that asks for more than it gets."""

import msgspec
import numpy as np
import pytest

from inferx.core.units import NS_PER_S
from inferx.load import load_bundle
from inferx.sim.driver import simulate
from inferx.sim.profile import load_profile
from inferx.sim.workload.trace import make_trace
from inferx.sim.world import World
from inferx.spec.cluster import load_cluster
from inferx.spec.template import auto_functions

REQUESTS, COUNTED = 600, 150
TENANT = np.arange(REQUESTS) % 3 // 2
"""The first tenant asks twice as often, and for answers five times as long."""


def served(policy):
    """Requests and weighted tokens of each tenant among the first to begin; all wait for long."""
    (spec,) = auto_functions(["f"], seed=1, template="auto:7b")
    spec = msgspec.structs.replace(
        spec, slots=2, queue_len=REQUESTS, queue_timeout_ns=10**6 * NS_PER_S
    )
    trace = make_trace(
        np.arange(REQUESTS, dtype=np.int64) * NS_PER_S // 10,
        function=np.zeros(REQUESTS, np.int32),
        input_tokens=np.where(TENANT == 0, 100, 300),
        output_tokens=np.where(TENANT == 0, 100, 20),
        tenant=TENANT,
        tenants=("a", "b"),
        names=("f",),
    )
    world = World(
        nodes=load_cluster("p5.4xlarge=1"),
        functions=(spec,),
        profile=load_profile("criu-memfd"),
    )
    q = simulate(world, [trace], load_bundle(policy), seed=1).requests
    assert (q.finished_ns > 0).all()
    first = np.argsort(q.started_ns, kind="stable")[:COUNTED]
    tokens = q.input_tokens + 2 * q.output_tokens
    counts = np.bincount(TENANT[first])
    return counts.tolist(), np.bincount(TENANT[first], tokens[first]).tolist()


@pytest.mark.parametrize("policy", ["plain", "weighted-fair", "virtual-token-counter"])
def test_service_is_by_rate_by_request_or_by_token(policy):
    counts, tokens = served(policy)
    if policy == "plain":
        assert counts == [100, 50]
    elif policy == "weighted-fair":
        assert counts == [75, 75]
    else:
        # The proven bound: twice the tokens of two slots, two for each token.
        assert abs(tokens[0] - tokens[1]) <= 2 * 2 * 2 * 320
        assert counts[0] > counts[1]
