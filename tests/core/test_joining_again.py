"""A node whose line broke joins again: what was said meanwhile is said once more, at once."""

import msgspec
from small_cluster import function, node

from inferx.core.commands import Create, Stop
from inferx.core.events import (
    FoundPod,
    FunctionDefined,
    LeaseAsked,
    NodeDescribed,
    NodeJoined,
    PodReady,
    PodStuck,
    RouterJoined,
)
from inferx.core.machine.scheduler import Scheduler
from inferx.core.rng import stream
from inferx.core.types import FunctionId, NodeId, PodId, RouterId
from inferx.core.units import NS_PER_S
from inferx.load import load_bundle

S = NS_PER_S
NODES = [NodeId(0), NodeId(1)]
ROUTER = RouterId(0)


def begun() -> tuple[Scheduler, list[Create]]:
    """Return a scheduler of two nodes with a GPU each, and the start that it ordered on each."""
    made = Scheduler((), (), load_bundle("plain"), stream(1, "s"), routers=0)
    made.step(0, [NodeDescribed(n, node(n, gpus=1)) for n in NODES])
    made.step(0, [*(NodeJoined(n, 0) for n in NODES), RouterJoined(ROUTER)])
    functions = [FunctionId(f) for f in range(2)]
    made.step(0, [FunctionDefined(f, function(f"f{f}", milli=1000)) for f in functions])
    told = made.step(0, [LeaseAsked(ROUTER, f, 1, 0, 0, 1) for f in functions]).commands
    starts = [one for one in told if isinstance(one, Create)]
    assert sorted(one.node for one in starts) == NODES
    return made, sorted(starts, key=lambda one: one.node)


def busy(start: Create) -> FoundPod:
    return FoundPod(start.pod, start.function, start.gpus, "busy")


def test_what_a_node_has_not_answered_is_said_again_when_it_joins_again() -> None:
    scheduler, (first, second) = begun()
    step = scheduler.step(4 * S, [NodeJoined(NODES[0], 1, (busy(first),))])
    assert step.commands == (first,)
    assert scheduler.fleet.counters["commands_repeated"] == 1
    # Its time to answer begins anew; another node's runs on.
    assert scheduler.step(10 * S, ()).commands == (second,)
    assert scheduler.step(14 * S, ()).commands == (first,)
    scheduler.step(15 * S, [PodReady(NODES[0], 1, first.sequence, first.pod)])
    assert not scheduler.step(16 * S, [NodeJoined(NODES[0], 2, (busy(first),))]).commands


def test_a_start_whose_pod_is_not_reported_is_not_said_again() -> None:
    scheduler, (first, _) = begun()
    commands = scheduler.step(4 * S, [NodeJoined(NODES[0], 1)]).commands
    assert first not in commands
    assert PodId(first.pod) not in scheduler.cluster.pods
    # Its successor is ordered in its own time, and once.
    starts = [one for one in commands if isinstance(one, Create)]
    assert len({one.sequence for one in starts}) == len(starts)


def test_a_stop_whose_time_has_not_come_is_not_said_early() -> None:
    scheduler, (first, _) = begun()
    stuck = PodStuck(NODES[0], 1, first.sequence, first.pod, "health")
    scheduler.step(1 * S, [stuck])
    there = msgspec.structs.replace(busy(first), state="stuck")
    joined = NodeJoined(NODES[0], 1, (there,))
    assert not scheduler.step(int(1.5 * S), [joined]).commands
    stops = [one for one in scheduler.step(2 * S, ()).commands if isinstance(one, Stop)]
    assert [one.pod for one in stops] == [first.pod]
