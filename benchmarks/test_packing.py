"""Packing, beside a plain loop of the same rule: `make bench`. No absolute time is asserted.

*simulation*: the published default workload under each published rule, 1,213 nodes and about 10,900
arrivals; the plain loop looks at every node for every arrival, so it gets the first twenty arrivals
only, and its time is to be multiplied by more than five hundred. *targeted*: one decision of each
rule in the placement slot, 1,024 GPUs and 1,000 functions.
"""

import os
from pathlib import Path

import pytest

from benchmarks.test_kernel import FUNCTIONS, cluster
from benchmarks.workloads import want
from inferx.core.rng import stream
from inferx.policy.packing import rules
from inferx.policy.packing.fragmentation import Fragmentation, fragment, typical_pods
from inferx.policy.packing.published import PUBLISHED, _descent
from inferx.policy.packing.shapes import fits, placed, tightest_gpus
from inferx.sim.packing.lists import read_nodes, read_pods
from inferx.sim.packing.orders import draw_order
from inferx.sim.packing.replay import PublishedChooser, pack

PLAIN = 20


@pytest.fixture(scope="module")
def openb():
    folder = Path(os.environ.get("INFERX_TRACE_DIR", "absent")) / "openb"
    if not folder.is_dir():
        pytest.skip("INFERX_TRACE_DIR names no folder with openb/ in it")
    pods = read_pods(folder / "openb_pod_list_default.csv")
    nodes = read_nodes(folder / "openb_node_list_gpu_node.csv")
    order = draw_order(pods, nodes, 42)
    arrivals = [pods.shapes[row] for row in order.pods.tolist()]
    return arrivals, nodes.states, order.rank.tolist(), typical_pods(pods.shapes)


def replay(policy, arrivals, nodes, rank, typical):
    measure = Fragmentation(typical)

    def at_work(states):
        return PublishedChooser(PUBLISHED[policy](measure), states, stream(42, "packing"))

    return pack(arrivals, nodes, rank, at_work, measure).nodes


def plain_fgd(arrivals, nodes, rank, typical):
    """Fragmentation gradient descent, every node looked at for every arrival."""
    rows = sorted(range(len(nodes)), key=rank.__getitem__)
    states, where = [nodes[row] for row in rows], []
    for pod in arrivals:
        best, at, on = -1, -1, ()
        for row, (model, cpu_milli, _, left, _, _) in enumerate(states):
            if not fits(pod, states[row]):
                continue
            before = fragment(model, cpu_milli, left, typical)
            share = [(g,) for g, free in enumerate(left) if free >= pod.milli]
            whole = [tightest_gpus(pod, states[row]) if pod.gpus else ()]
            for gpus in share if pod.shares else whole:
                after = [free - pod.milli * (g in gpus) for g, free in enumerate(left)]
                score = _descent(
                    before - fragment(model, cpu_milli - pod.cpu_milli, after, typical)
                )
                if score > best:
                    best, at, on = score, row, gpus
        where.append(rows[at] if at >= 0 else -1)
        if at >= 0:
            states[at] = placed(pod, states[at], on)
    return tuple(where)


@pytest.mark.benchmark(group="packing-simulation")
@pytest.mark.parametrize("policy", PUBLISHED)
def test_the_default_workload(benchmark, openb, policy):
    benchmark.pedantic(replay, (policy, *openb), rounds=3, iterations=1)


@pytest.mark.benchmark(group="packing-simulation")
def test_plain_loop_of_fgd_for_twenty_arrivals(benchmark, openb):
    arrivals, *rest = openb
    some = (arrivals[:PLAIN], *rest)
    plain = benchmark.pedantic(plain_fgd, some, rounds=1, iterations=1)
    assert plain == replay("fgd", *some)


@pytest.mark.benchmark(group="packing-targeted")
@pytest.mark.parametrize("name", rules())
def test_decision_at_1024_gpus(benchmark, name):
    _, scheduler = cluster(1024, "default")
    rule, rng = rules()[name](), stream(1, "policy")
    benchmark(lambda: rule.place(want(7, FUNCTIONS[7]), scheduler.view, rng))
