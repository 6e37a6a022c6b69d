"""Bugs that walks found, shrunk to what they need; and what production does with a bad policy."""

from dataclasses import replace

import numpy as np
import pytest
from kernel_rules import walk
from kernel_world import World, function, node

from inferx.core.commands import (
    Copy,
    Create,
    Drop,
    GrantLease,
    Restore,
    Snapshot,
    Stop,
    Suspend,
)
from inferx.core.errors import LocalProtocolError, PolicyError
from inferx.core.events import (
    CommandAccepted,
    CommandRefused,
    Fact,
    FoundPod,
    LeaseAsked,
    LeaseRecalled,
    LeaseRefused,
    LeaseReturned,
    LeaseRevoked,
    LoadReported,
    NodeDraining,
    NodeJoined,
    PodFailed,
    PodFound,
    PodGone,
    PodReady,
    PodStuck,
    PodSuspended,
    RequestArrived,
    RequestFinished,
    SnapshotCopied,
    SnapshotDropped,
    SnapshotTaken,
)
from inferx.core.lifecycle import PodState
from inferx.core.machine import router as router_module
from inferx.core.machine.answers import answers
from inferx.core.machine.fleet import IDS_PER_EPOCH
from inferx.core.machine.outbox import RETRY_LIMIT
from inferx.core.machine.scheduler import Scheduler
from inferx.core.machine.serving import RETRY_WANTS
from inferx.core.protocols import Defer, Demote, Evict, Place, PolicyBundle, Promote, Retain
from inferx.core.rng import stream
from inferx.core.types import FunctionId, GpuId, NodeId, PodId, RequestId, RouterId, Tier
from inferx.core.units import FOREVER_NS, GIB, NS_PER_MS, NS_PER_S
from inferx.policy import plain
from inferx.policy.basics import FixedHold, NeverEvict, NoPrewarm, OnDemand
from inferx.policy.default import bundle as default_bundle

S = NS_PER_S


def calm(**more: object) -> PolicyBundle:
    """The default, without what it does of its own accord."""
    base = {
        "keep_alive": FixedHold(FOREVER_NS, Tier.DRAM),
        "prewarm": NoPrewarm(),
        "eviction": NeverEvict(),
    }
    return replace(default_bundle(), **{**base, **more})


def world(bundle: PolicyBundle | None = None, **more) -> World:
    more.setdefault("nodes", (node("a-0"),))
    more.setdefault("functions", (function("f"),))
    return World(bundle or calm(), **more)


class Once:
    """A slot that gives scripted answers, then stays out of the way."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)

    def _next(self, otherwise: object) -> object:
        return self.answers.pop(0) if self.answers else otherwise

    def place(self, want, view, rng):
        return self._next(Defer("script"))

    def evict(self, want, view, rng):
        return self._next(Defer("script"))

    def promote(self, view, rng):
        return self._next(())

    def targets(self, view):
        return self._next(None)

    def target(self, function, view):
        return 1


def sent(w: World, kind: type) -> list[str]:
    return [line for line in w.log if f"scheduler -> {kind.__name__} " in line]


# -- routers ---
def test_a_lost_router_is_granted_nothing_again() -> None:
    w = world(routers=2, on_disk=[0])
    for _ in range(3):
        w.arrive(0, 1)
    late = LeaseAsked(RouterId(1), FunctionId(0), 5, 0, 0, 99)
    w.run(6 * S)
    assert w.cluster.pods
    w.lose_router(1)
    w.run(10 * NS_PER_MS)
    assert not any(p.leases for p in w.cluster.pods.values())
    w.tell_scheduler(late)
    w.tell_scheduler(LoadReported(RouterId(1), S, (0,), (4,), (4_000,), (4,)))
    assert not any(p.leases for p in w.cluster.pods.values())
    assert w.cluster.fn_queued[0] == 0
    w.settle()
    w.check_rest()


def test_a_repeated_grant_does_not_bring_a_lease_back() -> None:
    w = world(on_disk=[0])
    w.arrive(0)
    w.run(4003 * NS_PER_MS)
    (grant,) = [m.payload for m in w.wire if m.to == "router"]
    w.run(10 * S)
    assert not w.routers[0]._pods
    w.tell_router(0, grant)
    assert not w.routers[0]._pods


@pytest.mark.parametrize("first", [LeaseRecalled, LeaseRevoked])
def test_a_grant_that_was_overtaken_is_ignored_and_a_recall_answered(first: type) -> None:
    w = world(on_disk=[0])
    w.arrive(0)
    w.run(4003 * NS_PER_MS)
    (grant,) = [m.payload for m in w.wire if m.to == "router"]
    w.wire.clear()
    before = len(w.log)
    w.tell_router(0, first(grant.lease, grant.pod))
    w.tell_router(0, first(grant.lease, grant.pod))
    returned = [line for line in w.log[before:] if "ReturnLease" in line]
    assert len(returned) == (first is LeaseRecalled)
    w.tell_router(0, grant)
    assert not w.routers[0]._pods
    assert w.routers[0].waiting() == 1


def test_a_router_remembers_only_so_many_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router_module, "REMEMBERED", 2)
    w = world()
    for lease in range(5):
        w.tell_router(0, LeaseRevoked(lease, 0))
    assert list(w.routers[0]._over) == [3, 4]


def test_a_refused_demand_ends_its_queue_and_keeps_the_count() -> None:
    w = world(calm(placement=Once()))
    w.arrive(0)
    w.arrive(0)
    w.tell_router(0, LeaseRefused(FunctionId(0), "no"))
    router = w.routers[0]
    assert (router.refused, router.waiting()) == (2, 0)
    for request in range(2):
        w.ended[RequestId(request)] = "no"
    w.check()


def test_a_router_is_told_of_the_end_of_what_it_never_sent() -> None:
    w = world()
    with pytest.raises(LocalProtocolError, match="pod 7"):
        w.routers[0].step(0, (RequestFinished(RequestId(0), 7),))
    with pytest.raises(AssertionError, match="INV-5"):
        w.routers[0].step(-1, ())


def test_a_request_may_wait_as_long_as_it_says() -> None:
    w = world(calm(placement=Once()))
    w.arrive(0, deadline_ns=2 * S)
    w.run(3 * S)
    assert w.ended == {0: "queue timeout"}
    w.check()


def test_a_full_queue_refuses() -> None:
    w = world(calm(placement=Once()), functions=(function("f", queue_len=2),))
    for _ in range(3):
        w.arrive(0)
    assert w.ended == {2: "queue full"}
    assert w.routers[0].queued(FunctionId(0)) == 2
    assert w.routers[0].inflight(FunctionId(0)) == 0


def test_slots_that_one_router_returns_go_to_the_other_that_lacks_them() -> None:
    w = world(routers=2, functions=(function("f", slots=1, max_replica=1),), on_disk=[0])
    w.arrive(0, 0)
    w.run(5 * S)
    w.arrive(0, 1)
    w.run(5 * S)
    assert w.ended == {0: "finished", 1: "finished"}


# -- nodes ---
def test_a_restarted_agent_is_not_sent_what_its_dead_pods_were_told() -> None:
    w = world()
    w.arrive(0)
    w.run(S)
    w.restart(0)
    w.report(0)
    w.run(40 * S)
    # The pod that was being created is gone; its successor is the only one.
    assert len(w.bodies) == len(w.cluster.pods) == 1
    assert w.ended == {0: "finished"}


def test_pods_that_wait_are_not_launched_into_a_failing_list() -> None:
    big = [function(name, hbm_bytes=70 * GIB) for name in "ab"]
    one = (node("a-0", gpus=1),)
    eviction = plain.bundle().eviction
    w = world(calm(eviction=eviction), nodes=one, functions=big)
    w.arrive(0)
    w.run(16 * S)
    w.arrive(1)
    w.run(5 * NS_PER_MS)
    # The first function's pod is being suspended, the second's waits for it. The agent restarts.
    assert {p.state for p in w.cluster.pods.values()} == {PodState.SUSPENDING, PodState.INIT}
    w.restart(0)
    w.report(0)
    w.settle()
    w.check_rest()
    assert w.ended[1] == "finished"


def test_a_restarted_agents_word_on_its_disk_is_taken() -> None:
    w = world(functions=(function("f"), function("g")), on_disk=[0])
    w.restart(0)
    w.disk[0] = {1}
    w.report(0)
    w.check()
    assert w.cluster.nvme[0].tolist() == [False, True]
    # A snapshot that was on its way and has come is charged once.
    w.tell_scheduler(NodeJoined(NodeId(0), 1))  # A repeated report says nothing new.
    assert w.cluster.nvme[0].tolist() == [False, True]


def test_what_is_on_its_way_to_a_disk_is_charged_once_when_the_agent_restarts() -> None:
    w = world(calm(prewarm=Once([Promote(FunctionId(0), NodeId(0), Tier.NVME)])))
    w.run(S)
    assert list(w.scheduler.fleet.disks.arriving) == [(0, 0)]
    w.disk[0].add(0)
    w.restart(0)
    w.report(0)
    w.check()
    w.settle()
    w.check_rest()
    assert w.cluster.nvme[0, 0]


def test_a_drained_node_stays_closed_when_its_agent_restarts() -> None:
    w = world(nodes=(node("a-0"), node("a-1")), on_disk=[0])
    w.drain(0)
    w.drain(0)
    w.restart(0)
    w.report(0)
    assert w.cluster.node_schedulable.tolist() == [False, True]
    w.lose(0)
    w.detect(0)
    w.detect(0)
    w.restart(0)
    w.report(0)
    assert w.cluster.node_schedulable.tolist() == [True, True]


def test_a_pod_that_becomes_ready_or_suspended_on_a_drained_node_is_stopped() -> None:
    w = world(nodes=(node("a-0"), node("a-1", gpu_type="B")), on_disk=[0])
    w.arrive(0)
    w.run(S)
    w.drain(0)
    w.run(20 * S)
    assert [p.node for p in w.cluster.pods.values()] == [1]
    w = world(calm(keep_alive=FixedHold(0, Tier.DRAM)), on_disk=[0])
    w.arrive(0)
    w.run(7100 * NS_PER_MS)
    assert [p.state for p in w.cluster.pods.values()] == [PodState.SUSPENDING]
    w.drain(0)
    w.run(5 * S)
    assert not w.cluster.pods
    assert not w.bodies


def test_nothing_is_brought_to_a_closed_node() -> None:
    moves = [Promote(FunctionId(0), NodeId(0), tier) for tier in (Tier.NVME, Tier.DRAM, Tier.HBM)]
    w = world(calm(prewarm=Once((), moves)))
    w.lose(0)
    w.detect(0)
    w.run(30 * S)
    assert not w.scheduler.fleet.disks.arriving
    assert not w.scheduler.fleet.outbox


def test_a_snapshot_that_is_being_read_is_not_dropped() -> None:
    demote = [Demote(FunctionId(0), NodeId(0), Tier.NVME)]
    w = world(calm(prewarm=Once((), demote, demote), control_period_ns=S), on_disk=[0])
    w.arrive(0)
    w.run(1500 * NS_PER_MS)
    assert w.cluster.nvme[0, 0]
    w.run(10 * S)
    assert w.ended == {0: "finished"}
    w = world(calm(prewarm=Once((), demote, demote), control_period_ns=S), on_disk=[0])
    w.run(5 * S)
    assert not w.cluster.nvme[0, 0]
    assert not w.disk[0]
    w.check()


def test_demoting_from_host_memory_sinks_suspended_pods() -> None:
    moves = [Promote(FunctionId(0), NodeId(0), Tier.DRAM)]
    demote = [Demote(FunctionId(0), NodeId(0), Tier.DRAM)]
    script = Once(moves, (), (), (), (), (), demote)
    w = world(calm(prewarm=script, control_period_ns=S), on_disk=[0])
    w.run(5500 * NS_PER_MS)
    assert [p.state for p in w.cluster.pods.values()] == [PodState.STANDBY]
    w.run(5 * S)
    assert not w.cluster.pods
    w.check()


def test_demoting_from_a_gpu_sinks_the_pod_that_is_idle_and_none_that_serves() -> None:
    demote = [Demote(FunctionId(0), NodeId(0), Tier.HBM)]
    keep = FixedHold(FOREVER_NS, Tier.DRAM)
    script = Once((), demote, (), (), (), (), (), (), (), demote)
    w = world(calm(prewarm=script, keep_alive=keep, control_period_ns=S), on_disk=[0])
    w.arrive(0)
    w.run(3500 * NS_PER_MS)
    (pod,) = w.cluster.pods.values()
    served = pod.state
    w.run(12 * S)
    assert w.ended == {0: "finished"}
    assert served is not PodState.SUSPENDING
    assert [p.state for p in w.cluster.pods.values()] == [PodState.STANDBY]
    w.check()


def test_a_suspended_pod_is_not_the_source_of_the_start_that_evicts_it() -> None:
    script = Once()
    w = world(calm(eviction=script, keep_alive=FixedHold(0, Tier.DRAM)), on_disk=[0])
    w.arrive(0)
    w.run(10 * S)
    (standby,) = w.cluster.pods.values()
    assert standby.state is PodState.STANDBY
    asking = w.scheduler._ask
    asking.policies = replace(asking.policies, placement=Once())
    script.answers.append(Evict((GpuId(0),), ((standby.id, Tier.ABSENT),)))
    w.arrive(0)
    w.run(20 * S)
    assert standby.state is PodState.GONE
    assert w.ended[1] == "finished"


def test_a_snapshot_pod_gets_no_room_that_only_a_suspended_one_would_bring() -> None:
    spec = function("f", host_bytes=30 * GIB, device_bytes=30 * GIB)
    moves = [Promote(FunctionId(0), NodeId(0), Tier.NVME)]
    nodes = (node("a-0", host_bytes=70 * GIB),)
    script = Once()
    bundle = calm(prewarm=script, keep_alive=FixedHold(0, Tier.DRAM), control_period_ns=S)
    w = world(bundle, nodes=nodes, functions=(spec,), remote=False)
    w.arrive(0)
    w.run(20 * S)
    assert [p.state for p in w.cluster.pods.values()] == [PodState.STANDBY]
    script.answers.extend([moves] * 5)
    w.tell_scheduler(LoadReported(RouterId(0), S, (), (), (), ()))
    w.run(10 * S)
    w.check()
    assert len(sent(w, Create)) >= 1
    assert len({line.split("pod=")[1].split()[0] for line in sent(w, Create)}) == 1


def test_a_pod_that_is_started_to_be_snapshotted_leaves_one_behind() -> None:
    moves = [Promote(FunctionId(0), NodeId(0), Tier.NVME)]
    w = world(calm(prewarm=Once(moves)), remote=False)
    w.run(30 * S)
    assert w.cluster.nvme[0, 0]
    assert w.cluster.remote[0, 0]
    assert not w.cluster.pods
    w.check()
    # Where there is no more room on the disk when it is ready, it just ends.
    w = world(calm(prewarm=Once(moves)), remote=False)
    w.run(S)
    w.cluster.node_nvme_free[0] -= 150 * GIB
    w.run(30 * S)
    w.cluster.node_nvme_free[0] += 150 * GIB
    assert not w.cluster.nvme[0, 0]
    assert not w.cluster.pods
    w.check()


def test_a_node_that_never_answers_is_lost() -> None:
    w = world()
    w.arrive(0)
    w.run(NS_PER_MS)
    for _ in range(RETRY_LIMIT + 1):
        assert w.cluster.node_alive[0]
        w.wire.clear()
        w.advance(w.scheduler.fleet.outbox.deadline_ns())
    assert not w.cluster.node_alive[0]
    assert not w.cluster.pods
    assert not w.scheduler.fleet.outbox
    w.check()


def test_a_sign_of_life_keeps_a_node_from_being_lost() -> None:
    w = world()
    w.arrive(0)
    w.run(NS_PER_MS)
    (command,) = w.scheduler.fleet.outbox.unanswered()
    for _ in range(RETRY_LIMIT * 3):
        w.wire.clear()
        w.tell_scheduler(CommandAccepted(NodeId(0), 1, command.sequence))
        w.advance(w.scheduler.fleet.outbox.deadline_ns())
    assert w.cluster.node_alive[0]
    w.tell_scheduler(CommandAccepted(NodeId(0), 1, 999))


def test_an_old_commands_refusal_is_counted() -> None:
    w = world()
    w.tell_scheduler(CommandRefused(NodeId(0), 1, 1))
    assert w.scheduler.fleet.counters["commands_refused"] == 1


def test_facts_of_another_epoch_and_of_unknown_pods_are_ignored() -> None:
    w = world()
    w.arrive(0)
    w.run(2 * NS_PER_MS)
    w.tell_scheduler(PodReady(NodeId(0), 7, 1, 0))
    assert [p.state for p in w.cluster.pods.values()] == [PodState.RESTORING]
    w.tell_scheduler(PodFailed(NodeId(0), 1, -1, 99, "crashed"))
    w.tell_scheduler(NodeDraining(NodeId(0), S))
    with pytest.raises(AssertionError, match="INV-5"):
        w.scheduler.step(-1, ())


def test_an_orphan_is_stopped_and_what_it_answers_means_nothing() -> None:
    w = world()
    w.lose(0)
    w.detect(0)
    w.restart(0)
    w.boots[0] = 3
    w.node_deaf[0] = False
    orphan = FoundPod(PodId(77), FunctionId(0), (GpuId(0),), "ready")
    w.tell_scheduler(NodeJoined(NodeId(0), 3, (orphan,)))
    assert len(sent(w, Stop)) == 1
    w.settle()
    w.check_rest()
    assert w.scheduler.fleet.counters["orphans"] == 1


def test_an_orphan_that_does_not_fit_its_own_node_is_stopped_and_not_charged() -> None:
    w = world()
    w.lose(0)
    w.detect(0)
    w.restart(0)
    w.node_deaf[0] = False
    orphans = tuple(
        FoundPod(PodId(pod), FunctionId(0), (GpuId(0),), "suspended" if pod == 94 else "ready")
        for pod in range(90, 96)
    )
    w.tell_scheduler(NodeJoined(NodeId(0), 3, orphans))
    w.check()
    # Four fit the GPU, one is suspended and holds none.
    assert sorted(w.cluster.pods) == [90, 91, 92, 93, 94]
    assert int(w.cluster.gpu_hbm_open[0]) == 0
    w.settle()
    w.check_rest()
    assert len(sent(w, Stop)) == 6


def test_several_commands_that_were_never_answered_lose_their_node_once() -> None:
    w = world(functions=(function("f"), function("g")))
    w.arrive(0)
    w.arrive(1)
    w.run(NS_PER_MS)
    assert len(w.scheduler.fleet.outbox) == 2
    while w.cluster.node_alive[0]:
        w.wire.clear()
        w.advance(w.scheduler.fleet.outbox.deadline_ns())
    assert w.scheduler.fleet.counters["nodes_lost"] == 1


def test_a_pod_is_snapshotted_while_it_serves_on_and_its_hold_waits() -> None:
    w = world(calm(keep_alive=FixedHold(2 * S, Tier.ABSENT)), on_disk=[])
    w.arrive(0)
    w.run(9 * S)
    (pod,) = w.cluster.pods.values()
    assert pod.state is PodState.READY
    assert not w.cluster.nvme[0, 0] or w.disk[0]
    w.cluster.nvme[0, 0] = False
    w.cluster.release_nvme(NodeId(0), FunctionId(0))
    w.disk[0].clear()
    w.scheduler.fleet._take(pod, leave=False)
    w.tell_scheduler()
    w.run(S + 100 * NS_PER_MS)
    assert pod.state is PodState.SNAPSHOTTING
    w.check()
    w.run(2500 * NS_PER_MS)
    assert pod.state is PodState.READY
    assert w.cluster.nvme[0, 0]
    w.settle()
    w.check_rest()


def test_after_many_wants_in_a_row_did_not_fit_the_rest_wait() -> None:
    class Counts(Once):
        asked = 0

        def place(self, want, view, rng):
            self.asked += 1
            return Defer("no")

    policy = Counts()
    functions = tuple(function(f"f{i}") for i in range(20))
    w = world(calm(placement=policy), functions=functions)
    for f in range(20):
        w.arrive(f)
    w.run(10 * NS_PER_MS)
    assert policy.asked == 20
    w.scheduler._serving.room_came()
    w.tell_scheduler()
    assert policy.asked == 20 + RETRY_WANTS


def wrong_answers(pod: int, function: int) -> list[Fact]:
    """What a broken node may say of its first command, which is to start a pod."""
    of = (NodeId(0), 1, 1)
    return [
        SnapshotCopied(*of, FunctionId(function), Tier.NVME),
        SnapshotDropped(*of, FunctionId(function), Tier.NVME),
        PodSuspended(*of, PodId(pod)),
        PodGone(*of, PodId(pod)),
        SnapshotTaken(*of, PodId(pod), left=True),
        PodReady(*of, PodId(pod + 1)),
        PodReady(NodeId(1), 1, 1, PodId(pod)),
    ]


def test_a_node_that_answers_otherwise_than_it_was_asked_is_not_believed() -> None:
    w = world(nodes=(node("a-0"), node("a-1")))
    w.arrive(0)
    w.run(NS_PER_MS)
    (pod,) = w.cluster.pods.values()
    before, wrong = pod.state, wrong_answers(pod.id, 0)
    w.tell_scheduler(*wrong)
    assert w.scheduler.fleet.counters["wrong_answers"] == len(wrong)
    assert pod.state is before
    w.settle()
    w.check_rest()
    assert w.routers[0].finished == 1


@pytest.mark.parametrize(
    ("command", "fact", "fits"),
    [
        (Restore, PodReady, True),
        (Restore, PodSuspended, False),
        (Restore, PodGone, False),
        (Copy, SnapshotCopied, True),
        (Copy, SnapshotDropped, False),
        (Drop, SnapshotDropped, True),
        (Drop, SnapshotCopied, False),
        (Suspend, PodSuspended, True),
        (Suspend, PodReady, False),
        (Snapshot, SnapshotTaken, True),
        (Snapshot, PodGone, False),
        (Stop, PodGone, True),
        (Stop, PodStuck, True),
        (Stop, PodFailed, True),
        (Stop, SnapshotTaken, False),
    ],
)
def test_each_command_has_its_answers(command: type, fact: type, fits: bool) -> None:
    of, pod, gpus = (NodeId(0), 1, 1), (PodId(7), FunctionId(0)), (GpuId(0),)
    asked = {
        Copy: lambda: Copy(*of, FunctionId(0), Tier.REMOTE, Tier.NVME),
        Drop: lambda: Drop(*of, FunctionId(0), Tier.NVME),
        Restore: lambda: Restore(*of, *pod, gpus, Tier.NVME, keep=False),
        Snapshot: lambda: Snapshot(*of, *pod, gpus, leave=True),
    }.get(command, lambda: command(*of, *pod, gpus))()
    told = {
        SnapshotCopied: lambda: SnapshotCopied(*of, FunctionId(0), Tier.NVME),
        SnapshotDropped: lambda: SnapshotDropped(*of, FunctionId(0), Tier.NVME),
        SnapshotTaken: lambda: SnapshotTaken(*of, PodId(7), left=True),
        PodFailed: lambda: PodFailed(*of, PodId(7), "load"),
        PodStuck: lambda: PodStuck(*of, PodId(7), "load"),
    }.get(fact, lambda: fact(*of, PodId(7)))()
    assert answers(told, asked) is fits


def test_a_restore_into_host_memory_ends_there() -> None:
    of = (NodeId(0), 1, 1)
    command = Restore(*of, PodId(7), FunctionId(0), (), Tier.NVME, keep=False)
    assert answers(PodSuspended(*of, PodId(7)), command)
    assert not answers(PodReady(*of, PodId(7)), command)


def test_a_node_speaks_for_its_own_pods_alone() -> None:
    w = world(nodes=(node("a-0"), node("a-1")))
    w.arrive(0)
    w.settle()
    (pod,) = w.cluster.pods.values()
    other = NodeId(1 - pod.node)
    w.tell_scheduler(PodFailed(other, 1, -1, pod.id, "oom"), PodFound(other, pod.id, "stuck"))
    assert w.cluster.pods == {pod.id: pod}
    assert pod.state is PodState.READY


def test_a_lease_is_given_back_by_who_holds_it() -> None:
    w = world(routers=2, on_disk=[0])
    w.arrive(0)
    w.run(5 * S)
    (pod,) = w.cluster.pods.values()
    (lease,) = pod.leases.values()
    other = RouterId(1 - lease.router)
    w.tell_scheduler(LeaseReturned(other, lease.id, pod.id, failed=True))
    assert pod.leases == {lease.id: lease}


def test_a_client_that_leaves_while_it_is_served_changes_nothing() -> None:
    w = world(on_disk=[0])
    request = w.arrive(0)
    w.run(5 * S)
    w.cancel(request, 0, 0)
    assert w.routers[0].cancelled == 0
    w.run(5 * S)
    assert w.ended == {request: "finished"}
    with pytest.raises(LocalProtocolError, match="hot path"):
        w.routers[0]._rare(RequestArrived(RequestId(9), FunctionId(0)))


# -- leases ---
def test_a_lease_that_failed_ends_its_pod() -> None:
    w = world(on_disk=[0])
    w.arrive(0)
    w.run(5 * S)
    (pod,) = w.cluster.pods.values()
    (lease,) = pod.leases
    w.run(1500 * NS_PER_MS)
    w.tell_scheduler(LeaseReturned(RouterId(0), lease, pod.id, True))
    assert pod.state is PodState.TERMINATING


# -- scaling ---
def test_targets_scale_out_and_in() -> None:
    script = Once(np.array([3], np.int32), None, None, np.array([1], np.int32))
    bundle = calm(scaling=script, control_period_ns=5 * S, settle_ns=60 * S)
    w = world(bundle, functions=(function("f", max_replica=3),), on_disk=[0])
    w.run(6 * S)
    assert w.cluster.live(FunctionId(0)) == 3
    w.run(20 * S)
    assert w.cluster.live(FunctionId(0)) == 1
    w.check()


def test_a_function_whose_starts_fail_is_not_scaled_out_while_it_waits() -> None:
    class Two(OnDemand):
        def targets(self, view):
            return np.array([2], np.int32)

    bundle = calm(scaling=Two(), control_period_ns=S // 4)
    w = world(bundle, on_disk=[0])
    w.run(100 * NS_PER_MS)
    for action in list(w.actions):
        w.end(action, "broken")
    w.run(100 * NS_PER_MS)
    w.run(S // 2)
    assert not w.cluster.pods
    w.run(10 * S)
    assert w.cluster.live(FunctionId(0)) == 2


def test_a_failed_restore_that_nobody_waited_for_holds_no_request_back() -> None:
    moves = [Promote(FunctionId(0), NodeId(0), Tier.DRAM)]
    w = world(calm(prewarm=Once(moves), control_period_ns=S // 4), on_disk=[0])
    w.run(100 * NS_PER_MS)
    (action,) = w.actions
    w.end(action, "broken")
    w.run(100 * NS_PER_MS)
    assert not w.cluster.pods
    w.arrive(0)
    w.run(100 * NS_PER_MS)
    assert w.cluster.live(FunctionId(0)) == 1


def test_the_last_pods_of_a_function_with_replicas_are_kept() -> None:
    bundle = calm(keep_alive=FixedHold(0, Tier.DRAM))
    w = world(bundle, functions=(function("f", min_replica=1),), on_disk=[0])
    w.run(20 * S)
    assert [p.state for p in w.cluster.pods.values()] == [PodState.READY]


def test_room_first_evicts_and_asks_again() -> None:
    script = Once()
    w = world(calm(placement=Once(Place((GpuId(0),))), eviction=script), on_disk=[0])
    w.arrive(0)
    w.run(10 * S)
    (pod,) = w.cluster.pods.values()
    script.answers.append(Evict((), ((pod.id, Tier.ABSENT),)))
    w.scheduler._serving.serve(FunctionId(0))
    w.scheduler.placing.want(FunctionId(0), prewarmed=True)
    assert pod.state is PodState.TERMINATING


# -- epochs ---
def test_a_new_leader_reuses_no_id() -> None:
    functions, nodes = (function("f"),), (node("a-0"),)
    for epoch in (1, 2, 3):
        leader = Scheduler(nodes, functions, calm(), stream(1, "x"), epoch=epoch)
        leader.step(0, (NodeJoined(NodeId(0), 0),))
        ask = LeaseAsked(RouterId(0), FunctionId(0), 1, 0, 0, 1)
        (command,) = leader.step(0, (ask,)).commands
        assert command.pod == (epoch - 1) * IDS_PER_EPOCH
        ready = PodReady(NodeId(0), epoch, command.sequence, command.pod)
        grants = [c for c in leader.step(S, (ready,)).commands if isinstance(c, GrantLease)]
        assert [g.lease for g in grants] == [(epoch - 1) * IDS_PER_EPOCH]


def test_inv_8_of_two_leaders_only_the_newer_one_acts() -> None:
    w = world(functions=(function("f", max_replica=4),))
    w.arrive(0)
    w.run(14 * S)
    old, pods = w.scheduler, set(w.bodies)
    w.elect()
    w.connect_router(0)
    w.connect_node(0)
    assert set(w.cluster.pods) == pods
    agent, now = w.agents[0], w.now_ns
    # The old one still believes that it leads.
    late = old.step(now, (LeaseAsked(RouterId(0), FunctionId(0), 9, 2, 0, 50),)).commands
    late = [c for c in late if isinstance(c, Create | Restore)]
    assert late
    answers = [c.fact for c in agent.step(now, late).commands]
    assert answers == [CommandRefused(NodeId(0), 1, c.sequence) for c in late]
    for fact in answers:
        old.step(now, (fact,))
    assert old.fleet.counters["commands_refused"] == len(late)


# -- production ---
class Bad:
    """Every answer is wrong, or an error."""

    def admit(self, request, queued, view):
        raise ValueError

    def route(self, request, candidates, view, rng):
        raise ValueError

    def place(self, want, view, rng):
        raise ValueError

    def evict(self, want, view, rng):
        return Evict((), ())

    def retain(self, function, at, view):
        return Retain(-1, at)

    def promote(self, view, rng):
        return [Promote(FunctionId(-1), NodeId(0), Tier.HBM)]

    def target(self, function, view):
        raise ValueError

    def targets(self, view):
        return np.zeros(99, np.int32)

    def observe(self, now_ns, event):
        raise ValueError

    def explain(self, want, view):
        raise ValueError


class Nonsense:
    """No answer is of its type, the right one of a wrong shape included."""

    def place(self, want, view, rng):
        return Place(("0",))

    def evict(self, want, view, rng):
        return Evict((GpuId(0),), ((0, 3, 4),))

    def retain(self, function, at, view):
        return Retain(1.5, None)

    def promote(self, view, rng):
        return "none"

    def target(self, function, view):
        return "1"

    def targets(self, view):
        return [0.5]

    def admit(self, request, queued, view):
        return True

    def route(self, request, candidates, view, rng):
        return "0"

    def observe(self, now_ns, event):
        return event.no_such_field


SLOTS = ("placement", "eviction", "keep_alive", "prewarm", "scaling", "observers")


def with_bad(slot: str, bad: object) -> PolicyBundle:
    if slot == "eviction":
        return calm(eviction=bad, placement=Once())
    return calm(**{slot: (bad,) if slot == "observers" else bad})


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("kind", [Bad, Nonsense])
def test_a_bad_policy_is_counted_in_production_and_raises_in_a_strict_run(
    slot: str, kind: type
) -> None:
    def run(*, strict: bool) -> World:
        w = world(with_bad(slot, kind()), strict=strict, on_disk=[0], explain=True)
        w.arrive(0)
        w.run(40 * S)
        return w

    w = run(strict=False)
    assert w.scheduler.fleet.counters["policy_errors"] > 0
    w.check()
    w.settle()
    with pytest.raises(PolicyError):
        run(strict=True)


def test_a_bad_explanation_is_left_out_in_production() -> None:
    class Explains(type(default_bundle().placement)):
        def explain(self, want, view):
            raise ValueError

    placement = default_bundle().placement
    broken = Explains(**{name: getattr(placement, name) for name in placement.__dataclass_fields__})
    w = world(calm(placement=broken), strict=False, on_disk=[0], explain=True)
    w.arrive(0)
    w.run(10 * S)
    placed = [d for d in w.decisions if d.kind == "place"]
    assert placed[0].explanation is None
    assert w.ended == {0: "finished"}


@pytest.mark.parametrize("slot", ["admission", "routing"])
def test_a_bad_gateway_policy_is_counted_in_production(slot: str) -> None:
    def run(*, strict: bool, bad: object) -> World:
        bundle = calm(**{slot: bad})
        spec = function("f", slots=1, max_replica=2)
        w = world(bundle, strict=strict, functions=(spec,), on_disk=[0])
        for _ in range(2):
            w.arrive(0)
        w.run(6500 * NS_PER_MS)
        w.arrive(0)
        w.run(20 * S)
        return w

    class Wrong(Bad):
        def route(self, request, candidates, view, rng):
            return 99

    for bad in (Bad(), Wrong(), Nonsense()):
        w = run(strict=False, bad=bad)
        assert w.routers[0].policy_errors > 0
        assert set(w.ended.values()) == {"finished"}
        with pytest.raises(PolicyError, match=slot):
            run(strict=True, bad=bad)


def test_a_strict_run_passes_a_policy_error_of_its_own_on() -> None:
    w = world(calm(placement=Once(Place((GpuId(99),)))))
    w.arrive(0)
    with pytest.raises(PolicyError, match="no GPU 99"):
        w.run(S)


def test_the_walks_meet_every_kind_of_trouble() -> None:
    """What the walks claim to cover, they must meet."""
    counters: dict[str, int] = {}
    for seed in range(60):
        kernel = walk(seed, 60)
        for name, count in kernel.world.scheduler.fleet.counters.items():
            counters[name] = counters.get(name, 0) + count
    for name in (
        "commands_repeated",
        "evictions",
        "forced_drains",
        "nodes_lost",
        "orphans",
        "pods_failed",
        "policy_errors",
        "recalls",
        "snapshots",
        "stops",
        "stops_again",
        "suspends",
        "starts_cold",
        "starts_restore-nvme",
        "starts_restore-remote",
        "starts_resume",
    ):
        assert counters.get(name, 0) > 0, name
