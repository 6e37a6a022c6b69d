"""Pods that cannot be ended, and snapshots that cannot be dropped: charged until they are gone."""

from dataclasses import replace

import pytest
from kernel_world import Body, World
from one_gpu_world import BIG, fail_stops, holding, until, world

from inferx.core.commands import Drop, Snapshot, Stop, Suspend
from inferx.core.events import FoundPod, NodeLost, PodFailed
from inferx.core.lifecycle import PodState
from inferx.core.machine.fleet import STOP_LIMIT
from inferx.core.protocols import Demote
from inferx.core.types import NO_FUNCTION, FunctionId, NodeId, PodId, Tier
from inferx.core.units import FOREVER_NS, NS_PER_MS, NS_PER_S
from inferx.policy.basics import FixedHold, NoPrewarm
from inferx.policy.default import bundle as default_bundle

S = NS_PER_S
MS = NS_PER_MS


def charged(w: World) -> tuple[int, int, int]:
    c = w.cluster
    return int(c.gpu_milli_charged[0]), int(c.gpu_hbm_charged[0]), int(c.node_host_charged[0])


def test_inv_1_a_pod_that_could_not_be_stopped_stays_charged_until_it_is_gone() -> None:
    w = world(holding(1))
    w.arrive(0)
    until(w, Stop)
    before = charged(w)
    assert all(before)
    fail_stops(w, STOP_LIMIT)
    w.run(100 * MS, w.check)
    assert charged(w) == before
    assert [p.state for p in w.cluster.pods.values()] == [PodState.TERMINATING]
    w.run(40 * S, w.check)
    assert charged(w) == (0, 0, 0)
    assert w.cluster.node_schedulable[0]
    assert w.scheduler.fleet.counters["stops_again"] == STOP_LIMIT


def test_a_start_that_failed_and_could_not_be_ended_is_made_again_elsewhere() -> None:
    w = world(holding(100), BIG, nodes=2, remote=False)
    w.arrive(0)
    w.run(100 * MS)
    (action,) = w.actions
    w.end(action, "health", stays=True)
    w.run(500 * MS, w.check)
    (stuck,) = [p for p in w.cluster.pods.values() if p.state is PodState.TERMINATING]
    assert charged(w)[0] == 1000
    w.run(800 * MS, w.check)
    started = [p for p in w.cluster.pods.values() if p.id != stuck.id]
    assert [p.node for p in started] == [1]
    w.settle()
    w.check_rest()


def test_a_failed_suspend_that_could_not_be_ended_keeps_gpu_and_host_memory() -> None:
    w = world(holding(1, Tier.DRAM))
    w.arrive(0)
    action = until(w, Suspend)
    before = charged(w)
    w.end(action, "checkpoint", stays=True)
    w.run(100 * MS, w.check)
    assert charged(w) == before
    w.settle()
    w.check_rest()
    assert not w.cluster.pods


def test_inv_6_who_waited_for_a_pod_that_could_not_be_ended_starts_elsewhere() -> None:
    w = world(holding(1000), BIG, nodes=2, remote=False)
    w.arrive(0)
    w.run(20 * S, w.check)
    w.cluster.set_schedulable(NodeId(1), yes=False)
    w.arrive(1)
    leaving = until(w, Suspend, Snapshot, Stop)
    w.cluster.set_schedulable(NodeId(1), yes=True)
    w.end(leaving, "device error", stays=True)
    fail_stops(w, STOP_LIMIT)
    w.run(60 * S, w.check)
    assert w.ended == {0: "finished", 1: "finished"}
    assert sorted(b.node for b in w.bodies.values()) == [0, 1]


def test_a_suspended_pod_that_waited_for_one_that_could_not_be_ended_stays_suspended() -> None:
    w = world(holding(1000), BIG, remote=False)
    w.arrive(1)
    w.run(20 * S, w.check)
    (first,) = w.cluster.pods.values()
    w.scheduler.fleet.sink(first, Tier.DRAM)
    w.tell_scheduler()
    w.run(10 * S, w.check)
    w.arrive(0)
    w.run(20 * S, w.check)
    w.arrive(1)
    leaving = until(w, Suspend, Snapshot, Stop)
    assert first.state is PodState.INIT
    w.end(leaving, "device error", stays=True)
    w.run(100 * MS, w.check)
    assert first.state is PodState.STANDBY
    assert first.gpus == ()
    w.run(20 * S, w.check)
    # The other one could be ended after all.
    assert w.ended == {0: "finished", 1: "finished", 2: "finished"}
    assert first.state is PodState.READY


def test_after_too_many_failed_stops_a_node_is_closed_and_emptied_and_the_pod_stays_charged() -> (
    None
):
    w = world(holding(1, Tier.ABSENT), BIG, nodes=2, remote=False)
    w.arrive(0)
    fail_stops(w, STOP_LIMIT)
    assert w.cluster.node_schedulable[0]
    fail_stops(w, 1)
    w.run(10 * MS, w.check)
    assert w.scheduler.fleet.counters["nodes_unhealthy"] == 1
    assert not w.cluster.node_schedulable[0]
    (pod,) = w.cluster.pods.values()
    assert w.scheduler.fleet.gave_up(pod.id)
    w.arrive(1)
    w.run(200 * S, w.check)
    assert w.ended == {0: "finished", 1: "finished"}
    assert w.cluster.gpu_milli_charged[0] == 1000
    assert sorted(w.bodies) == [pod.id]
    w.settle()
    assert not w.cluster.pods


def test_a_pod_that_was_given_up_is_stopped_by_a_new_agent() -> None:
    w = world(holding(1))
    w.arrive(0)
    fail_stops(w, STOP_LIMIT + 1)
    w.run(200 * S, w.check)
    (pod,) = w.cluster.pods.values()
    assert w.scheduler.fleet.gave_up(pod.id)
    w.restart(0)
    w.report(0)
    w.run(10 * S, w.check)
    assert not w.bodies
    assert not w.cluster.pods


def test_a_pod_that_was_given_up_and_ends_by_itself_is_free() -> None:
    w = world(holding(1))
    w.arrive(0)
    fail_stops(w, STOP_LIMIT + 1)
    w.run(S, w.check)
    (body,) = w.bodies.values()
    w.crash(body)
    w.run(S, w.check)
    assert charged(w) == (0, 0, 0)


def test_an_orphan_for_which_there_is_no_room_is_stopped_again_too() -> None:
    w = world(holding(1000), BIG, remote=False)
    w.arrive(0)
    w.run(20 * S, w.check)
    (body,) = w.bodies.values()
    # Given up while it ran; comes back with one pod more than the node has room for.
    w.detect(0)
    w.restart(0)
    other = replace(body, pod=body.pod + 100, gpus=())
    w.bodies[other.pod] = other
    w.report(0)
    raw = replace(body, pod=body.pod + 200)
    w.scheduler._joining.adopting.end_orphan(
        NodeId(0), FoundPod(raw.pod, FunctionId(0), raw.gpus, "ready")
    )
    w.tell_scheduler()
    assert raw.pod not in w.cluster.pods
    w.run(400 * MS)
    stop = next(a for a in w.actions if a.perform.command.pod == raw.pod)
    w.bodies[raw.pod] = replace(raw, gpus=())
    w.end(stop, "processes outlive it")
    w.run(5 * S, w.check)
    assert not w.bodies
    assert not w.scheduler.fleet._stops


def test_a_lost_node_takes_pods_that_could_not_be_ended_with_it() -> None:
    w = world(holding(1))
    w.arrive(0)
    fail_stops(w, 2)
    w.run(100 * MS)
    w.tell_scheduler(NodeLost(NodeId(0)))
    w.check()
    assert not w.cluster.pods
    assert not w.scheduler.fleet._stops


def test_a_stop_that_waits_for_its_time_is_forgotten_when_the_pod_ends() -> None:
    w = world(holding(1))
    w.arrive(0)
    fail_stops(w, 1)
    w.run(10 * MS)
    (pod,) = w.cluster.pods.values()
    assert len(w.scheduler.fleet.outbox) == 1
    w.tell_scheduler(PodFailed(NodeId(0), 1, -1, pod.id, "exited"))
    assert len(w.scheduler.fleet.outbox) == 0


@pytest.mark.parametrize("ends_while", ["nobody leads", "it is led anew"])
def test_a_new_leader_stops_what_its_predecessor_could_not_end(ends_while: str) -> None:
    w = world(holding(1))
    w.arrive(0)
    action = until(w, Stop)
    if ends_while == "nobody leads":
        w.end(action, "processes outlive it")
    w.elect()
    w.connect_node(0)
    w.connect_router(0)
    w.check()
    if ends_while == "it is led anew":
        w.end(action, "processes outlive it")
    w.run(5 * MS, w.check)
    assert [p.state for p in w.cluster.pods.values()] == [PodState.TERMINATING]
    assert charged(w)[0] == 250
    fail_stops(w, 2)
    w.settle()
    w.check_rest()
    assert not w.cluster.pods


def test_a_pod_of_no_known_function_that_could_not_be_ended_is_stopped_again() -> None:
    w = world(holding(1))
    w.run(S)
    w.scheduler._joining.adopting.end_orphan(
        NodeId(0), FoundPod(PodId(9), NO_FUNCTION, (), "ready")
    )
    w.tell_scheduler()
    w.bodies[PodId(9)] = Body(PodId(9), FunctionId(0), 0, (), "serving", 0)
    for _ in range(2):
        w.end(until(w, Stop), "processes outlive it")
    w.run(20 * S, w.check)
    assert not w.bodies


def test_a_start_that_waits_for_others_too_is_given_up_with_its_node() -> None:
    w = world(holding(1000), BIG, remote=False)
    w.arrive(0)
    w.run(20 * S, w.check)
    w.arrive(1)
    leaving = until(w, Suspend, Snapshot, Stop)
    (waiting,) = [p for p in w.cluster.pods.values() if p.state is PodState.INIT]
    # An orphan that has no room cannot be ended, and the node is closed for it.
    raw = FoundPod(PodId(9), FunctionId(1), (0,), "ready")
    w.scheduler._joining.adopting.end_orphan(NodeId(0), raw)
    w.scheduler.fleet._stops[raw.pod] = STOP_LIMIT
    w.tell_scheduler()
    w.bodies[raw.pod] = Body(raw.pod, FunctionId(1), 0, (), "serving", 0)
    w.end(until(w, Stop), "processes outlive it")
    assert leaving in w.actions
    w.run(10 * MS, w.check)
    assert waiting.state is PodState.GONE
    assert not w.cluster.node_schedulable[0]


class Drops:
    """Drops the snapshot of function 0 once."""

    def __init__(self) -> None:
        self.left = 1

    def promote(self, view, rng):
        del view, rng
        self.left -= 1
        return [Demote(FunctionId(0), NodeId(0), Tier.NVME)] if self.left >= 0 else []


def test_a_snapshot_that_could_not_be_dropped_is_charged_and_a_source_again() -> None:
    drops = Drops()
    policy = replace(
        default_bundle(),
        keep_alive=FixedHold(FOREVER_NS, Tier.DRAM),
        prewarm=NoPrewarm(),
        control_period_ns=S,
    )
    w = world(replace(policy, prewarm=drops), on_disk=[0])
    free = int(w.cluster.node_nvme_free[0])
    action = until(w, Drop)
    assert not w.cluster.nvme[0, 0]
    w.end(action, "in use")
    w.run(10 * MS, w.check)
    assert w.cluster.nvme[0, 0]
    assert w.cluster.node_nvme_free[0] == free
    drops.left = 1
    until(w, Drop)
    w.run(S, w.check)
    assert not w.cluster.nvme[0, 0]
    assert w.cluster.node_nvme_free[0] > free


def test_a_node_that_is_drained_already_is_not_given_up_twice() -> None:
    w = world(holding(1))
    w.arrive(0)
    until(w, Stop)
    w.drain(0)
    fail_stops(w, STOP_LIMIT + 1)
    w.run(S, w.check)
    assert "nodes_unhealthy" not in w.scheduler.fleet.counters
    assert all(charged(w))
