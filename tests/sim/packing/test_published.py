"""The authors' own curves, where someone has them beside the traces: every point of every curve.

Weng et al. 2023, USENIX ATC: figures 7 and 9 (pp. 1002 and 1004) for the default trace, figures 11
to 14 (pp. 1005 and 1006) for more GPU sharing, more GPUs a pod, GPU models and pods without GPUs.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from inferx.sim.packing.experiment import FGD_WORKLOADS, compare, read_published
from inferx.sim.packing.lists import read_nodes, read_pods
from inferx.sim.packing.orders import draw_order
from inferx.sim.packing.runs import PackJob, PackPolicy, run_jobs

FOLDER = os.environ.get("INFERX_TRACE_DIR")
EXACT = ("dotprod", "gpu-clustering", "gpu-packing", "best-fit", "fgd")


def openb(name: str) -> Path:
    if FOLDER is None:
        pytest.skip("INFERX_TRACE_DIR is not set")
    path = Path(FOLDER) / "openb" / name
    if not path.exists():
        pytest.skip(f"openb/{name} is not in INFERX_TRACE_DIR")
    return path


def oracle() -> Path:
    openb("openb_node_list_gpu_node.csv")
    folder = Path(FOLDER).parent / "oracles" / "fgd"
    if not folder.is_dir():
        pytest.skip("the authors' curves are not beside INFERX_TRACE_DIR")
    return folder


def run(workload: str, seed: int, policies: tuple[str, ...]):
    folder = oracle()
    job = PackJob(
        pods=openb(f"openb_pod_list_{workload}.csv"),
        nodes=openb("openb_node_list_gpu_node.csv"),
        orders=folder / "orders.npz",
        seed=seed,
        policies=tuple(PackPolicy(name, None) for name in policies),
        optimum=False,
    )
    return [one for some in run_jobs([job]) for one in some]


@pytest.mark.parametrize(
    ("workload", "seed"), list(zip(FGD_WORKLOADS, (42, 44, 46, 48, 51), strict=True))
)
def test_every_point_of_every_curve_is_the_authors(workload, seed):
    compared = compare(run(workload, seed, EXACT), read_published(oracle()))
    assert len(compared) == 2 * len(EXACT)
    for one in compared:
        assert one.most == 0.0, (one.workload, one.policy, one.metric)


def test_random_is_within_the_published_spread():
    published = read_published(oracle())
    (ours,) = run("default", 42, ("random",))
    theirs = np.array(
        [
            curve
            for (workload, policy, _, metric), curve in published.items()
            if (workload, policy, metric) == (ours.workload, "random", "alloc")
        ]
    )
    for load in (80, 100, 130):
        assert theirs[:, load].min() - 0.5 <= ours.curves.alloc[load] <= theirs[:, load].max() + 0.5


def test_order_of_our_own_asks_for_the_gpus_one_and_a_third_times():
    pods = read_pods(openb("openb_pod_list_default.csv"))
    nodes = read_nodes(openb("openb_node_list_gpu_node.csv"))
    order = draw_order(pods, nodes, 7)
    asked = sum(pods.shapes[row].milli * pods.shapes[row].gpus for row in order.pods.tolist())
    assert 1.29 < asked / nodes.gpu_count / 1000 <= 1.3
    assert set(order.pods.tolist()) == set(range(len(pods.names)))
    assert (order.pods == draw_order(pods, nodes, 7).pods).all()
    assert order.pods.tolist() != draw_order(pods, nodes, 8).pods.tolist()
