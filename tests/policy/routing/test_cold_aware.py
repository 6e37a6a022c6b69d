"""Wait or wake: another pod only where waiting for one of those there are takes longer."""

import heapq

import msgspec
import numpy as np
import pytest
from small_cluster import add, cluster, function

from inferx.core.events import LoadReported
from inferx.core.lifecycle import PodState
from inferx.core.rng import stream
from inferx.core.types import FunctionId, RouterId
from inferx.core.units import MILLI_PER_GPU, NS_PER_S
from inferx.core.view import ClusterView
from inferx.load import load_bundle
from inferx.policy.routing.cold_aware import WaitOrWake, bundle, wait_s
from inferx.sim.driver import simulate
from inferx.sim.profile import load_profile
from inferx.sim.workload.trace import make_trace
from inferx.sim.world import World
from inferx.spec.cluster import load_cluster

S = NS_PER_S
F = FunctionId(0)


def report(policy, *, arrivals, inside, queued=0, seconds=1.0, router=0):
    window = int(seconds * S)
    event = LoadReported(
        RouterId(router), window, (0,), (arrivals,), (int(inside * 1000),), (queued,)
    )
    policy.observe(0, event)


def test_service_times_are_learned_by_littles_law():
    """Little 1961, Operations Research 9(3), pp. 383-387: L = lambda W.

    With a slot for everybody: 2.5 s each, at random.
    """
    rng = stream(1, "little")
    at = rng.exponential(0.5, 4_000).cumsum()
    service = rng.exponential(2.5, 4_000)
    policy = WaitOrWake(forget=1.0)
    for second in range(int(at[-1])):
        inside = np.clip(np.minimum(at + service, second + 1) - np.maximum(at, second), 0, None)
        report(policy, arrivals=int((at // 1 == second).sum()), inside=inside.sum())
    assert policy.service_s(F) == pytest.approx(service.mean(), rel=0.02)


def test_reports_with_somebody_waiting_at_either_end_teach_nothing():
    policy = WaitOrWake()
    assert policy.service_s(F) is None
    report(policy, arrivals=5, inside=50.0, queued=3)
    report(policy, arrivals=5, inside=50.0)
    assert policy.service_s(F) is None
    report(policy, arrivals=5, inside=50.0, queued=3, router=1)
    report(policy, arrivals=2, inside=3.0)
    assert policy.service_s(F) == pytest.approx(1.5)
    policy.observe(0, "something else")


@pytest.mark.parametrize(("waiting", "slots"), [(1, 1), (5, 2), (12, 4)])
def test_the_last_in_line_waits_as_long_as_erlangs_queue_says(waiting, slots):
    """Kleinrock 1975, Queueing Systems, vol. 1, section 3.5, M/M/c.

    With all c slots busy the n-th in line waits for n departures, n / c service times.
    """
    rng = stream(2, "erlang")
    total = 0.0
    for _ in range(4_000):
        busy = rng.exponential(3.0, slots).tolist()
        heapq.heapify(busy)
        for work in rng.exponential(3.0, waiting).tolist():
            begun = busy[0]
            heapq.heapreplace(busy, begun + work)
        total += begun
    assert total / 4_000 == pytest.approx(wait_s(waiting, slots, 3.0), rel=0.05)


def scene(*, queued, inflight, ready, starting=0, slots=2, most=8):
    spec = msgspec.structs.replace(function("f", 20), slots=slots, max_replica=most)
    c = cluster([spec], nodes=2, gpus=8)
    for pod in range(ready + starting):
        add(c, pod, 0, [pod], state=PodState.CREATING if pod >= ready else PodState.READY)
    c.fn_queued[0], c.fn_inflight[0] = queued, inflight
    return ClusterView(c, snapshots=True)


@pytest.mark.parametrize("service_s", [0.1, 3.0, 20.0, 400.0])
@pytest.mark.parametrize(("ready", "starting"), [(1, 0), (2, 1), (0, 1)])
@pytest.mark.parametrize("queued", [1, 6, 13])
def test_pods_are_as_many_as_make_waiting_shorter_than_starting(service_s, ready, starting, queued):
    view = scene(queued=queued, inflight=2 * ready, ready=ready, starting=starting)
    policy = WaitOrWake()
    report(policy, arrivals=10, inside=10 * service_s)
    start_s = view.node_restore_ns(F).min() / S
    needed = -(-(queued + 2 * ready) // 2)
    # The twin: the least number of pods that suffices, never less than there are.
    for naive in range(ready + starting, 100):
        over = queued - 2 * (naive - ready)
        if naive >= needed or max(0, over) * service_s / (2 * naive) <= start_s:
            break
    assert policy.target(F, view) == naive


def test_without_pods_or_knowledge_it_is_what_the_requests_need():
    policy = WaitOrWake()
    assert policy.target(F, scene(queued=5, inflight=2, ready=1)) == 4
    report(policy, arrivals=10, inside=1.0)
    assert policy.target(F, scene(queued=5, inflight=0, ready=0)) == 3
    assert policy.target(F, scene(queued=5, inflight=2, ready=1)) == 1
    assert policy.targets(scene(queued=5, inflight=2, ready=1)) is None


def test_where_no_node_takes_pods_a_start_seems_free_and_is_wanted():
    view = scene(queued=5, inflight=2, ready=1)
    policy = WaitOrWake()
    report(policy, arrivals=10, inside=1.0)
    for node in range(2):
        view._c.set_schedulable(node, yes=False)
    assert policy.target(F, view) == 4


def test_in_bursts_of_short_requests_nobody_waits_longer_than_for_the_pods_that_it_saves():
    """Requests one by one, then bursts that one pod works off sooner than another one starts."""
    spec = msgspec.structs.replace(
        function("f", 20, milli=MILLI_PER_GPU), slots=2, max_replica=4, queue_len=1_000
    )
    bursts = [at * S for at in range(0, 100, 5)]
    bursts += [at * S + k * S // 100 for at in range(120, 600, 30) for k in range(12)]
    trace = make_trace(
        np.array(bursts, np.int64),
        function=np.zeros(len(bursts), np.int32),
        duration_ns=np.full(len(bursts), S // 4),
        names=("f",),
    )
    world = World(
        nodes=load_cluster("p5.48xlarge=1"),
        functions=(spec,),
        profile=load_profile("criu-memfd"),
    )
    starts = {}
    for name in ("plain", "cold-aware"):
        record = simulate(world, [trace], load_bundle(name), seed=1)
        waits = record.requests.started_ns - record.requests.arrived_ns
        starts[name] = sum(decision.start != "" for decision in record.decisions)
        # The first one waited for a start.
        assert (record.requests.started_ns >= 0).all()
        assert waits.argmax() == 0
    assert starts == {"plain": 4, "cold-aware": 1}


@pytest.mark.parametrize("forget", [0.0, -1.0, 1.1])
def test_forgetting_has_limits(forget):
    with pytest.raises(ValueError, match="expected above 0, at most 1"):
        bundle(forget)
