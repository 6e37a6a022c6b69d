"""The kernel's steps, beside their floors: `make bench`. No absolute time is asserted.

*frequent*: one warm request through the router. *targeted*: placement and eviction at 64 and 4,096
GPUs under each bundle, beside one numpy pass over the same columns.
"""

import pytest

from benchmarks.workloads import requests, want
from inferx.core.events import LeaseGranted, NodeJoined, RequestArrived, RequestFinished
from inferx.core.machine.router import Router
from inferx.core.machine.scheduler import Scheduler
from inferx.core.rng import stream
from inferx.core.types import FunctionId, LeaseId, NodeId, PodId, RequestId, RouterId
from inferx.load import bundle_names, load_bundle
from inferx.spec.cluster import load_cluster
from inferx.spec.template import auto_functions

FUNCTIONS = auto_functions([f"f{i:04d}" for i in range(1000)], seed=1, template="auto:7b")


@pytest.mark.benchmark(group="frequent")
def test_a_warm_request_through_the_router(benchmark):
    router = Router(RouterId(0), FUNCTIONS[:64], load_bundle("default"), stream(1, "r"))
    router.step(0, (LeaseGranted(LeaseId(0), FunctionId(0), PodId(0), 32, False),))
    now = 0

    def one():
        nonlocal now
        now += 1000
        router.step(now, (RequestArrived(RequestId(now), FunctionId(0)),))
        router.step(now, (RequestFinished(RequestId(now), PodId(0)),))

    benchmark(one)


def cluster(gpus, name):
    bundle = load_bundle(name)
    nodes = load_cluster(f"p5.48xlarge={gpus // 8}")
    scheduler = Scheduler(nodes, FUNCTIONS, bundle, stream(1, "policy"))
    scheduler.assume_remote([FunctionId(f) for f in range(len(FUNCTIONS))])
    scheduler.step(0, [NodeJoined(NodeId(n), 0) for n in range(len(nodes))])
    return bundle, scheduler


@pytest.mark.benchmark(group="targeted")
@pytest.mark.parametrize("gpus", [64, 4096])
@pytest.mark.parametrize("name", bundle_names())
def test_placement(benchmark, name, gpus):
    bundle, scheduler = cluster(gpus, name)
    rng = stream(1, "policy")
    benchmark(lambda: bundle.placement.place(want(7, FUNCTIONS[7]), scheduler.view, rng))


@pytest.mark.benchmark(group="targeted")
@pytest.mark.parametrize("gpus", [64, 4096])
def test_one_numpy_pass_is_the_floor_of_placement(benchmark, gpus):
    _, scheduler = cluster(gpus, "default")
    free = scheduler.view.gpus.hbm_bytes_free

    def first_with_room():
        return (free >= 1 << 30).argmax()

    benchmark(first_with_room)


@pytest.mark.benchmark(group="frequent")
def test_drawing_requests_costs_little_beside_replaying_them(benchmark):
    benchmark(lambda: requests(10_000, 64, 200.0, 1.0))
