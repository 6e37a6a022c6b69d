"""A leader dies and another takes over: what ran runs on, and what is held stays held."""

import msgspec
import pytest
from kernel_world import NODES, World, function

from inferx.core.commands import Create, GrantLease, ReportLeases, Restore, RevokeLease, Stop
from inferx.core.errors import LocalProtocolError
from inferx.core.events import (
    FoundPod,
    FunctionDefined,
    HeldLease,
    LeaderChanged,
    LeaderLost,
    LeaseAsked,
    LeaseGranted,
    LeaseReturned,
    NodeDescribed,
    NodeJoined,
    NodeLost,
    PodFound,
    PodGone,
    PodSuspended,
    RequestArrived,
    RequestFinished,
    RouterJoined,
    RouterLost,
)
from inferx.core.lifecycle import PodState
from inferx.core.machine.router import Router
from inferx.core.machine.scheduler import Scheduler
from inferx.core.rng import stream
from inferx.core.types import FunctionId, GpuId, LeaseId, NodeId, PodId, RequestId, RouterId, Tier
from inferx.core.units import NS_PER_S
from inferx.load import load_bundle

S = NS_PER_S


def world(**more) -> World:
    return World(load_bundle("plain"), nodes=NODES[:1], functions=(function("f"),), **more)


def said(w: World, kind: type) -> int:
    return sum(f"scheduler -> {kind.__name__} " in line for line in w.log)


def connect(w: World) -> None:
    for router in range(len(w.routers)):
        w.connect_router(router)
    for node in range(len(w.nodes)):
        w.connect_node(node)


def test_requests_in_service_and_warm_pods_outlive_their_leader() -> None:
    w = world()
    for _ in range(2):
        w.arrive(0)
    w.run(5 * S)
    assert len(w.serving) == 2
    starts = said(w, Create) + said(w, Restore)
    w.elect()
    connect(w)
    w.run(3 * S)
    w.arrive(0)
    w.settle()
    w.check_rest()
    assert set(w.ended.values()) == {"finished"}
    assert said(w, Create) + said(w, Restore) == starts
    assert said(w, Stop) == 0


def test_nothing_is_decided_before_all_who_are_awaited_are_here_or_given_up() -> None:
    w = world(routers=2)
    w.elect()
    w.arrive(0)
    w.connect_node(0)
    w.connect_router(0)
    w.run(5 * S)
    assert said(w, Create) + said(w, Restore) == 0
    w.tell_scheduler(RouterLost(RouterId(1)))
    w.run(5 * S)
    assert said(w, Create) + said(w, Restore) == 1


def test_what_a_node_is_busy_with_is_charged_and_then_taken_over() -> None:
    w = world()
    w.arrive(0)
    w.run(S)
    w.elect()
    connect(w)
    (pod,) = w.cluster.pods.values()
    assert pod.found
    assert pod.holds_gpu
    w.settle()
    w.check_rest()
    # It was started for a request that waited through the change, and serves it.
    assert set(w.ended.values()) == {"finished"}
    assert len(w.cluster.pods) == 1


def test_a_pod_that_was_being_suspended_is_taken_over_suspended() -> None:
    w = world(on_disk=[0])
    w.arrive(0)
    w.run(20 * S)
    (pod,) = w.cluster.pods.values()
    w.scheduler.fleet.sink(pod, Tier.DRAM)
    w.tell_scheduler()
    w.run(S // 2)
    w.elect()
    connect(w)
    w.run(10 * S)
    (pod,) = w.cluster.pods.values()
    assert pod.state is PodState.STANDBY
    w.settle()
    w.check_rest()


def test_a_pod_of_a_node_that_was_given_up_is_stopped_when_it_comes_back() -> None:
    w = world()
    w.arrive(0)
    w.run(20 * S)
    w.elect()
    w.connect_router(0)
    w.tell_scheduler(NodeLost(NodeId(0)))
    w.connect_node(0)
    w.settle()
    w.check_rest()
    assert said(w, Stop) == 1
    assert w.scheduler.fleet.counters["orphans"] == 1


# -- one message at a time ---
def leader(epoch: int = 2, **awaited) -> Scheduler:
    return Scheduler(
        NODES[:1],
        (function("f"),),
        load_bundle("plain"),
        stream(1, "x"),
        epoch=epoch,
        routers=0,
        **awaited,
    )


def held(lease: int, pod: int, slots: int = 1) -> HeldLease:
    return HeldLease(LeaseId(lease), PodId(pod), FunctionId(0), slots)


def found(pod: int, state: str = "ready", f: int = 0) -> FoundPod:
    return FoundPod(PodId(pod), FunctionId(f), (GpuId(0),), state)


def test_a_lease_of_a_pod_that_nobody_reports_is_revoked() -> None:
    s = leader(awaited_nodes=[NodeId(0)], awaited_routers=[RouterId(0)])
    assert s.step(0, (RouterJoined(RouterId(0), (held(4, 9),)),)).commands == ()
    step = s.step(1, (NodeJoined(NodeId(0), 0),))
    assert step.commands == (RevokeLease(RouterId(0), LeaseId(4), PodId(9)),)


def test_leases_of_more_slots_than_a_pod_has_are_revoked() -> None:
    s = leader(awaited_nodes=[NodeId(0)], awaited_routers=[RouterId(0), RouterId(1)])
    s.step(0, (NodeJoined(NodeId(0), 0, (found(9),)),))
    s.step(0, (RouterJoined(RouterId(0), (held(4, 9, slots=2),)),))
    step = s.step(0, (RouterJoined(RouterId(1), (held(5, 9),)),))
    assert RevokeLease(RouterId(1), LeaseId(5), PodId(9)) in step.commands
    assert s.cluster.pods[PodId(9)].leased_slots == 2


def test_a_lease_that_is_another_routers_is_revoked_and_stays_the_others() -> None:
    s = leader(awaited_nodes=[NodeId(0)], awaited_routers=[RouterId(0), RouterId(1)])
    s.step(0, (NodeJoined(NodeId(0), 0, (found(9),)),))
    s.step(0, (RouterJoined(RouterId(0), (held(4, 9),)),))
    step = s.step(0, (RouterJoined(RouterId(1), (held(4, 9),)),))
    assert RevokeLease(RouterId(1), LeaseId(4), PodId(9)) in step.commands
    s.step(1, (RouterLost(RouterId(1)),))
    assert s.cluster.pods[PodId(9)].leased_slots == 1
    s.step(2, (LeaseReturned(RouterId(0), LeaseId(4), PodId(9), failed=False),))
    assert s.cluster.pods[PodId(9)].leased_slots == 0
    s.cluster.check()


def test_a_lease_that_a_router_does_not_hold_is_taken_back() -> None:
    s = leader(awaited_nodes=[NodeId(0)], awaited_routers=[RouterId(0)])
    s.step(0, (NodeJoined(NodeId(0), 0, (found(9),)),))
    s.step(0, (RouterJoined(RouterId(0), (held(4, 9),)),))
    assert s.cluster.pods[PodId(9)].leases
    s.step(1, (RouterJoined(RouterId(0)),))
    assert not s.cluster.pods[PodId(9)].leases
    s.cluster.check()


def test_a_pod_of_a_function_that_is_no_more_is_stopped_without_being_charged() -> None:
    s = leader(awaited_nodes=[NodeId(0)])
    step = s.step(0, (NodeJoined(NodeId(0), 0, (found(9, f=-1),)),))
    assert [type(c) for c in step.commands] == [Stop]
    assert not s.cluster.pods
    s.cluster.check()


def test_news_of_a_pod_that_is_known_otherwise_changes_nothing() -> None:
    s = leader(awaited_nodes=[NodeId(0)])
    s.step(0, (NodeJoined(NodeId(0), 0, (found(9),)),))
    s.step(0, (PodFound(NodeId(0), PodId(9), "suspended"), PodFound(NodeId(0), PodId(8), "ready")))
    assert s.cluster.pods[PodId(9)].state is PodState.READY


def test_a_node_that_nobody_described_joins_with_the_next_id() -> None:
    s = leader(epoch=1)
    s.step(0, (NodeDescribed(NodeId(1), NODES[2]),))
    step = s.step(0, (NodeJoined(NodeId(1), 0),))
    assert step.commands == ()
    assert s.view.gpus.schedulable.tolist() == [False, False, True]
    assert s.view.nodes.platform.tolist() == [0, 1]
    with pytest.raises(LocalProtocolError, match="node 3 is new, expected 2"):
        s.step(0, (NodeDescribed(NodeId(3), NODES[2]),))


# -- routers ---
def router() -> Router:
    return Router(RouterId(0), (function("f"),), load_bundle("plain"), stream(1, "x"))


def arrived(request: int) -> RequestArrived:
    return RequestArrived(RequestId(request), FunctionId(0))


def test_a_router_tells_a_new_leader_what_it_holds_and_what_it_lacks() -> None:
    r = router()
    r.step(0, (arrived(1), LeaseGranted(LeaseId(4), FunctionId(0), PodId(9), 1, cold=True)))
    r.step(0, (arrived(2),))
    report, ask = r.step(1, (LeaderChanged(2),)).commands
    assert report == ReportLeases(RouterId(0), (held(4, 9),))
    assert ask.slots == 1


def test_a_router_that_has_lost_its_leader_sends_nothing_more_to_its_pods() -> None:
    r = router()
    r.step(0, (LeaseGranted(LeaseId(4), FunctionId(0), PodId(9), 2, cold=True), arrived(1)))
    r.step(1, (LeaderLost(),))
    (ask,) = r.step(2, (arrived(2),)).commands
    assert ask.slots == 1
    report, _ = r.step(3, (LeaderChanged(2),)).commands
    assert report == ReportLeases(RouterId(0), ())
    # The pod is leased to it anew while the old request is on it: its slot is not free.
    dispatched = r.step(4, (LeaseGranted(LeaseId(7), FunctionId(0), PodId(9), 2, cold=False),))
    assert [c.request for c in dispatched.commands] == [2]
    assert r.step(5, (arrived(3),)).commands[0].slots == 1
    done = r.step(6, (RequestFinished(RequestId(1), PodId(9)),))
    assert [c.request for c in done.commands] == [3]
    assert (r.waiting(), r.running()) == (0, 2)


def test_an_idle_pod_is_forgotten_with_its_leader() -> None:
    r = router()
    r.step(0, (LeaseGranted(LeaseId(4), FunctionId(0), PodId(9), 2, cold=True),))
    r.step(1, (LeaderLost(),))
    r.step(2, (LeaseGranted(LeaseId(7), FunctionId(0), PodId(9), 1, cold=False),))
    (report,) = r.step(3, (LeaderChanged(2),)).commands
    assert report == ReportLeases(RouterId(0), (held(7, 9),))


def test_fewer_slots_than_are_in_use_are_handed_out_only_as_they_come_free() -> None:
    r = router()
    r.step(0, (LeaseGranted(LeaseId(4), FunctionId(0), PodId(9), 2, cold=True),))
    r.step(0, (arrived(1), arrived(2)))
    r.step(1, (LeaderLost(),))
    r.step(2, (LeaseGranted(LeaseId(7), FunctionId(0), PodId(9), 1, cold=False), arrived(3)))
    assert r.step(3, (RequestFinished(RequestId(1), PodId(9)),)).commands == ()
    done = r.step(4, (RequestFinished(RequestId(2), PodId(9)),))
    assert [c.request for c in done.commands] == [3]


def test_leases_are_granted_by_a_new_leader_to_a_router_that_joins_later() -> None:
    w = world()
    w.arrive(0)
    w.run(20 * S)
    w.elect()
    w.connect_node(0)
    w.tell_scheduler(RouterLost(RouterId(0)))
    w.connect_router(0)
    w.arrive(0)
    w.settle()
    w.check_rest()
    assert said(w, GrantLease) == 2


@pytest.mark.parametrize("policy", ["default", "boot-window", "newsvendor", "scale-to-zero"])
def test_a_policy_is_asked_nothing_while_there_is_no_node(policy: str) -> None:
    s = Scheduler((), (), load_bundle(policy), stream(1, "x"), routers=0, strict=True)
    s.step(0, (RouterJoined(RouterId(0)),))
    s.step(S, (FunctionDefined(FunctionId(0), function("f")),))
    ask = LeaseAsked(RouterId(0), FunctionId(0), 1, 0, 0, 1)
    assert s.step(2 * S, (ask,)).commands == ()
    s.step(60 * S, ())
    s.step(61 * S, (NodeDescribed(NodeId(0), NODES[0]), NodeJoined(NodeId(0), 0)))
    s.step(62 * S, (msgspec.structs.replace(ask, sequence=2),))
    assert s.cluster.pods


def test_a_lease_that_comes_back_while_others_are_awaited_frees_its_pod_later() -> None:
    s = leader(awaited_nodes=[NodeId(0)], awaited_routers=[RouterId(0), RouterId(1)])
    s.step(0, (NodeJoined(NodeId(0), 0, (found(9),)),))
    s.step(0, (RouterJoined(RouterId(0), (held(4, 9),)),))
    s.step(1, (LeaseReturned(RouterId(0), LeaseId(4), PodId(9), failed=False),))
    assert not s.cluster.pods[PodId(9)].leases
    s.step(2, (RouterLost(RouterId(1)), LeaseAsked(RouterId(0), FunctionId(0), 1, 0, 0, 1)))
    assert s.cluster.pods[PodId(9)].leases


def test_a_busy_pod_has_come_to_rest_when_its_node_reports_again() -> None:
    s = leader(awaited_nodes=[NodeId(0)])
    s.step(0, (NodeJoined(NodeId(0), 0, (found(9, "moving"),)),))
    assert s.cluster.pods[PodId(9)].found
    s.step(1, (NodeJoined(NodeId(0), 1, (found(9, "suspended"),)),))
    assert s.cluster.pods[PodId(9)].state is PodState.STANDBY
    s.cluster.check()


def test_a_pod_that_a_node_has_no_memory_for_is_stopped_and_not_charged() -> None:
    big = function("f", host_bytes=NODES[0].host_bytes + 1)
    s = Scheduler(
        NODES[:1],
        (big,),
        load_bundle("plain"),
        stream(1, "x"),
        epoch=2,
        routers=0,
        awaited_nodes=[NodeId(0)],
    )
    step = s.step(0, (NodeJoined(NodeId(0), 0, (found(9),)),))
    assert [type(c) for c in step.commands] == [Stop]
    assert not s.cluster.pods


def crowded() -> World:
    """A world where a want waits for its victim to leave, and an orphan lies in its place."""
    half = function("half", milli_gpu=500)
    whole = function("whole", milli_gpu=1000, hbm_bytes=70 << 30)
    w = World(
        load_bundle("plain"),
        nodes=(msgspec.structs.replace(NODES[0], gpus=1),),
        functions=(half, whole),
        on_disk=[0, 1],
    )
    w.arrive(0)
    w.run(20 * S)
    w.arrive(1)
    w.run(S // 4)
    (victim,) = (pod for pod in w.cluster.pods.values() if pod.blocks >= 0)
    w.reports[0] += 1
    there = (found(victim.id, "busy"), FoundPod(PodId(77), FunctionId(0), (GpuId(0),), "ready"))
    w.tell_scheduler(NodeJoined(NodeId(0), w.reports[0] + 1, there))
    assert w.cluster.pods[PodId(77)].state is PodState.TERMINATING
    return w


def test_a_place_that_an_orphan_holds_is_waited_for() -> None:
    w = crowded()
    starts = said(w, Restore)
    victim = next(pod for pod in w.cluster.pods.values() if pod.blocks >= 0)
    stop = next(c for c in w.scheduler.fleet.outbox.unanswered() if c.pod == victim.id)
    w.tell_scheduler(PodSuspended(NodeId(0), 1, stop.sequence, victim.id))
    w.check()
    assert said(w, Restore) == starts
    orphan = next(c for c in w.scheduler.fleet.outbox.unanswered() if c.pod == 77)
    w.tell_scheduler(PodGone(NodeId(0), 1, orphan.sequence, PodId(77)))
    assert said(w, Restore) == starts + 1
    w.check()


def test_who_waits_for_an_orphan_is_forgotten_with_its_node() -> None:
    w = crowded()
    victim = next(pod for pod in w.cluster.pods.values() if pod.blocks >= 0)
    stop = next(c for c in w.scheduler.fleet.outbox.unanswered() if c.pod == victim.id)
    w.tell_scheduler(PodSuspended(NodeId(0), 1, stop.sequence, victim.id))
    w.tell_scheduler(NodeLost(NodeId(0)))
    w.check()
    assert not w.cluster.pods


def test_a_lease_that_is_given_back_before_its_pod_is_reported_is_not_entered() -> None:
    w = world()
    w.arrive(0)
    w.run(5 * S)
    assert w.serving
    w.elect()
    w.connect_router(0)
    w.run(60 * S, w.check)
    assert w.ended == {0: "finished"}
    assert not w.wire, "the lease went back"
    w.connect_node(0)
    w.check()
    assert [pod.leased_slots for pod in w.cluster.pods.values()] == [0]
    w.settle()
    w.check_rest()


def test_what_a_router_held_that_is_lost_before_its_pod_is_reported_is_free() -> None:
    w = world()
    w.arrive(0)
    w.run(5 * S)
    assert w.serving
    w.elect()
    w.connect_router(0)
    w.lose_router(0)
    w.run(S // 10, w.check)
    w.connect_node(0)
    w.check()
    assert [pod.leased_slots for pod in w.cluster.pods.values()] == [0]
