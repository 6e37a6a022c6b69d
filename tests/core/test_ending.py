"""Pods that somebody wants ended: whom they serve ends first, or fails once."""

import pytest
from kernel_world import World
from one_gpu_world import BIG, fail_stops, holding, until, world

from inferx.core.commands import Create, Restore, Resume, Snapshot, Stop, Suspend
from inferx.core.lifecycle import PodState
from inferx.core.machine.fleet import STOP_LIMIT
from inferx.core.types import PodId, Tier
from inferx.core.units import NS_PER_MS, NS_PER_S
from inferx.policy.default import bundle as default_bundle

S = NS_PER_S
MS = NS_PER_MS


def serving(**more) -> World:
    """A pod with a request on it."""
    w = world(holding(100), **more)
    w.arrive(0)
    for _ in range(400):
        w.run(100 * MS, w.check)
        if w.serving:
            return w
    raise AssertionError(w.state())


def only_pod(w: World) -> PodId:
    (pod,) = w.cluster.pods
    return pod


def rest(w: World) -> None:
    w.settle()
    w.check_rest()


def test_a_pod_that_is_to_end_serves_on_takes_nothing_more_and_is_stopped() -> None:
    w = serving()
    pod = only_pod(w)
    w.end_pod(pod)
    w.end_pod(pod)  # Asked again: it is under way.
    w.run(10 * MS, w.check)
    assert w.cluster.pods[pod].state is PodState.DRAINING
    later = w.arrive(0)
    w.run(40 * S, w.check)
    assert w.ended == {0: "finished", later: "finished"}
    assert pod not in w.cluster.pods
    assert pod not in w.bodies
    assert w.scheduler.fleet.counters["ends"] == 2
    assert "kills" not in w.scheduler.fleet.counters
    assert [d.reason for d in w.decisions if d.kind == "end"] == ["asked", "asked"]
    rest(w)


def test_inv_4_at_once_who_is_served_fails_once_and_is_counted() -> None:
    w = serving()
    pod = only_pod(w)
    w.arrive(0)
    w.end_pod(pod, now=True)
    assert w.cluster.pods[pod].state is PodState.TERMINATING
    assert w.cluster.pods[pod].leased_slots == 0
    w.check()
    later = w.arrive(0)
    w.run(40 * S, w.check)
    assert w.ended == {0: "failed", 1: "failed", later: "finished"}
    assert w.scheduler.fleet.counters["kills"] == 1
    assert [d.reason for d in w.decisions if d.kind == "end"] == ["now"]
    rest(w)


def test_one_that_drains_ends_at_once_when_that_is_asked() -> None:
    w = serving()
    pod = only_pod(w)
    w.end_pod(pod)
    w.end_pod(pod, now=True)
    assert w.cluster.pods[pod].state is PodState.TERMINATING
    w.run(10 * S, w.check)
    assert w.ended == {0: "failed"}
    rest(w)


def test_one_that_is_put_to_sleep_for_others_ends_instead() -> None:
    w = serving()
    pod = w.cluster.pods[only_pod(w)]
    w.scheduler.fleet.sink(pod, Tier.DRAM)
    w.end_pod(pod.id)
    assert pod.sink_to is Tier.ABSENT
    rest(w)
    assert "suspends" not in w.scheduler.fleet.counters


def test_an_idle_pod_is_stopped_and_a_kept_one_comes_back() -> None:
    w = world(holding(100))
    w.arrive(0)
    w.run(20 * S)
    pod = only_pod(w)
    w.end_pod(pod, now=True)
    assert "kills" not in w.scheduler.fleet.counters, "nobody was served"
    w.end_pod(pod)  # It is being stopped.
    w.run(5 * S, w.check)
    assert not w.cluster.pods
    w.end_pod(pod)  # It is not there.
    w.end_pod(999, now=True)
    rest(w)


@pytest.mark.parametrize("now", [False, True])
@pytest.mark.parametrize(
    ("doing", "then", "remote"),
    [
        (Create, Tier.ABSENT, False),
        (Restore, Tier.ABSENT, True),
        (Suspend, Tier.DRAM, True),
        (Snapshot, Tier.NVME, False),
        (Resume, Tier.DRAM, True),
    ],
)
def test_what_is_being_done_to_a_pod_is_waited_for(doing, then, remote, now) -> None:
    w = world(holding(1, then), remote=remote)
    w.arrive(0)
    if doing is Resume:
        until(w, Suspend)
        w.run(2 * S)
        w.arrive(0)
    pod = until(w, doing).perform.command.pod
    w.end_pod(pod, now=now)
    w.check()
    state = w.cluster.pods[pod].state
    assert state not in (PodState.TERMINATING, PodState.READY)
    rest(w)
    assert pod not in w.cluster.pods
    assert set(w.ended.values()) == {"finished"}


def test_one_that_is_started_for_its_snapshot_alone_makes_none() -> None:
    w = world(holding(1), remote=False)
    pod = w.scheduler.fleet.start(0, (0,), (), bakes=True)
    w.tell_scheduler()
    until(w, Create)
    w.end_pod(pod.id)
    rest(w)
    assert "snapshots" not in w.scheduler.fleet.counters
    assert pod.id not in w.cluster.pods


def test_a_suspended_pod_is_stopped() -> None:
    w = world(holding(1, Tier.DRAM))
    w.arrive(0)
    until(w, Suspend)
    w.run(2 * S)
    pod = only_pod(w)
    assert w.cluster.pods[pod].state is PodState.STANDBY
    w.end_pod(pod)
    assert w.cluster.pods[pod].state is PodState.TERMINATING
    rest(w)
    assert not w.bodies


def test_a_start_that_waits_for_room_is_given_up_and_made_anew() -> None:
    w = world(default_bundle(), BIG, remote=False)
    w.arrive(0)
    w.run(20 * S, w.check)
    w.arrive(1)
    leaving = until(w, Suspend, Snapshot, Stop).perform.command.pod
    (waiting,) = [p for p in w.cluster.pods.values() if p.state is PodState.INIT]
    w.end_pod(waiting.id)
    w.check()
    assert waiting.id not in w.cluster.pods
    assert leaving in w.cluster.pods
    rest(w)
    assert set(w.ended.values()) == {"finished"}


def test_a_suspended_pod_that_waits_for_room_to_resume_is_stopped() -> None:
    w = world(holding(1, Tier.DRAM), BIG)
    w.arrive(0)
    until(w, Suspend)
    w.run(2 * S)
    w.arrive(1)
    w.run(6 * S, w.check)
    w.arrive(0)
    w.run(10 * MS, w.check)
    for _ in range(100):
        waiting = [p for p in w.cluster.pods.values() if p.state is PodState.INIT]
        if waiting:
            break
        w.run(100 * MS, w.check)
    (one,) = waiting
    assert one.start is Tier.DRAM
    w.end_pod(one.id)
    assert one.state is PodState.TERMINATING
    rest(w)
    assert set(w.ended.values()) == {"finished"}


def test_one_that_was_given_up_is_stopped_once_more() -> None:
    w = world(holding(1))
    w.arrive(0)
    until(w, Stop)
    fail_stops(w, STOP_LIMIT + 1)
    w.run(100 * MS, w.check)
    pod = only_pod(w)
    assert w.scheduler.fleet.gave_up(pod)
    w.end_pod(pod)
    w.run(5 * S, w.check)
    assert not w.cluster.pods
    rest(w)


def test_what_is_asked_of_a_leader_that_gathers_is_done_when_it_knows() -> None:
    w = serving()
    pod = only_pod(w)
    w.elect()
    w.end_pod(pod)
    w.connect_node(0)
    assert not w.scheduler.fleet.outbox
    w.connect_router(0)
    assert w.cluster.pods[pod].state is PodState.DRAINING
    rest(w)
    assert w.ended == {0: "finished"}
    assert pod not in w.cluster.pods
