"""The agent machine: order, repetition, epochs."""

import pytest

from inferx.core.commands import (
    Copy,
    Create,
    Drop,
    NodeCommand,
    Perform,
    Report,
    Restore,
    Resume,
    Snapshot,
    Stop,
    Suspend,
)
from inferx.core.events import (
    CommandAccepted,
    CommandRefused,
    Fact,
    LeaderChanged,
    Performed,
    PhaseTiming,
    PodExited,
    PodFailed,
    PodFound,
    PodGone,
    PodReady,
    PodStuck,
    PodSuspended,
    SnapshotCopied,
    SnapshotDropped,
    SnapshotTaken,
)
from inferx.core.machine import agent as agent_module
from inferx.core.machine.agent import EPOCH, Agent
from inferx.core.machine.step import Record
from inferx.core.types import NodeId, Tier

NODE = NodeId(0)


def create(sequence: int, pod: int, gpu: int = 0, *, epoch: int = 1) -> Create:
    return Create(NODE, epoch, sequence, pod, 0, (gpu,))


def performs(out: tuple) -> list[tuple[int, object]]:
    return [(c.action, c.command) for c in out if isinstance(c, Perform)]


def facts(out: tuple) -> list[object]:
    return [c.fact for c in out if isinstance(c, Report)]


def tell(agent: Agent, *events: object) -> tuple:
    step = agent.step(0, events)
    assert step.deadline_ns is None
    return step.commands


PHASES = (PhaseTiming("x", 1, 2),)


@pytest.mark.parametrize(
    ("command", "fact"),
    [
        (Create(0, 1, 5, 7, 0, (0,)), PodReady(0, 1, 5, 7, PHASES)),
        (Restore(0, 1, 5, 7, 0, (0,), Tier.NVME, False), PodReady(0, 1, 5, 7, PHASES)),
        (Restore(0, 1, 5, 7, 0, (), Tier.NVME, False), PodSuspended(0, 1, 5, 7, PHASES)),
        (Resume(0, 1, 5, 7, 0, (0,)), PodReady(0, 1, 5, 7, PHASES)),
        (Suspend(0, 1, 5, 7, 0, (0,)), PodSuspended(0, 1, 5, 7, PHASES)),
        (Snapshot(0, 1, 5, 7, 0, (0,), True), SnapshotTaken(0, 1, 5, 7, True, PHASES)),
        (Snapshot(0, 1, 5, 7, 0, (0,), False), SnapshotTaken(0, 1, 5, 7, False, PHASES)),
        (Stop(0, 1, 5, 7, 0, (0,)), PodGone(0, 1, 5, 7)),
        (Copy(0, 1, 5, 3, Tier.REMOTE, Tier.NVME), SnapshotCopied(0, 1, 5, 3, Tier.NVME)),
        (Drop(0, 1, 5, 3, Tier.NVME), SnapshotDropped(0, 1, 5, 3, Tier.NVME)),
    ],
)
def test_each_command_is_answered_by_its_fact_once_and_again_when_it_is_repeated(
    command: object, fact: object
) -> None:
    agent = Agent(NODE)
    assert performs(tell(agent, command)) == [(0, command)]
    assert facts(tell(agent, command)) == [CommandAccepted(0, 1, 5)]
    assert facts(tell(agent, Performed(0, PHASES))) == [fact]
    # It is not carried out again: its fact is told again.
    assert tell(agent, command) == (Report(fact),)


@pytest.mark.parametrize(
    ("command", "fact"),
    [
        (create(5, 7), PodFailed(0, 1, 5, 7, "broken")),
        (Suspend(0, 1, 5, 7, 0, (0,)), PodFailed(0, 1, 5, 7, "broken")),
        (Stop(0, 1, 5, 7, 0, (0,)), PodStuck(0, 1, 5, 7, "broken")),
        (Copy(0, 1, 5, 3, Tier.REMOTE, Tier.NVME), SnapshotCopied(0, 1, 5, 3, Tier.NVME, False)),
        (Drop(0, 1, 5, 3, Tier.NVME), SnapshotDropped(0, 1, 5, 3, Tier.NVME, False)),
    ],
)
def test_a_failed_action_is_answered_by_one_fact(command: object, fact: object) -> None:
    agent = Agent(NODE)
    tell(agent, command)
    assert facts(tell(agent, Performed(0, (), "broken"))) == [fact]


def test_starts_on_one_gpu_wait_for_each_other_and_others_do_not() -> None:
    agent = Agent(NODE)
    out = tell(agent, create(1, 1, 0), create(2, 2, 0), create(3, 3, 1), create(4, 4, 0))
    assert [c.pod for _, c in performs(out)] == [1, 3]
    # A copy does not wait for anything.
    copy = Copy(0, 1, 5, 3, Tier.REMOTE, Tier.NVME)
    assert performs(tell(agent, copy)) == [(2, copy)]
    assert [c.pod for _, c in performs(tell(agent, Performed(0)))] == [2]
    assert [c.pod for _, c in performs(tell(agent, Performed(3)))] == [4]


def test_actions_on_one_pod_run_in_the_order_of_their_commands() -> None:
    agent = Agent(NODE)
    suspend, resume = Suspend(0, 1, 2, 1, 0, (0,)), Resume(0, 1, 3, 1, 0, (1,))
    out = tell(agent, create(1, 1, 0), suspend, resume, create(4, 9, 0))
    assert [c for _, c in performs(out)] == [create(1, 1, 0)]
    # The suspend is next; the other create has waited for the GPU only, and goes as well.
    assert [c for _, c in performs(tell(agent, Performed(0)))] == [suspend, create(4, 9, 0)]
    assert [c for _, c in performs(tell(agent, Performed(1)))] == [resume]


def test_a_command_that_waited_for_a_pod_that_died_fails_but_a_stop_does_not() -> None:
    agent = Agent(NODE)
    suspend, stop = Suspend(0, 1, 2, 1, 0, (0,)), Stop(0, 1, 3, 1, 0, (0,))
    tell(agent, create(1, 1), suspend, stop)
    out = tell(agent, Performed(0, (), "broken"))
    assert facts(out) == [PodFailed(0, 1, 1, 1, "broken"), PodFailed(0, 1, 2, 1, "pod is gone")]
    assert performs(out) == [(1, stop)]


def test_a_pod_that_left_with_its_snapshot_is_gone() -> None:
    agent = Agent(NODE)
    tell(agent, Snapshot(0, 1, 1, 7, 0, (0,), True), Performed(0))
    out = tell(agent, Suspend(0, 1, 2, 7, 0, (0,)))
    assert facts(out) == [PodFailed(0, 1, 2, 7, "pod is gone")]


def test_inv_8_a_command_of_an_older_epoch_is_refused() -> None:
    agent = Agent(NODE)
    tell(agent, create(1, 1, epoch=2))
    assert tell(agent, create(9, 5, 1)) == (Report(CommandRefused(0, 1, 9)),)
    # The same sequence of another leader is another command.
    assert performs(tell(agent, create(1, 6, 1, epoch=3))) == [(1, create(1, 6, 1, epoch=3))]


def test_inv_8_what_an_older_leader_ordered_and_has_not_begun_is_void() -> None:
    agent = Agent(NODE)
    tell(agent, create(1, 1), create(2, 2))
    out = tell(agent, create(1, 3, 1, epoch=2))
    assert facts(out) == [CommandRefused(0, 1, 2)]
    assert [c.pod for _, c in performs(out)] == [3]
    # What it had begun ends, and the newer leader is told what has come of it.
    out = tell(agent, Performed(0))
    assert facts(out) == [PodFound(0, 1, "ready")]
    assert performs(out) == []


def test_only_so_many_facts_and_deaths_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module, "REMEMBERED", 2)
    agent = Agent(NODE)
    for n in range(4):
        tell(agent, Stop(0, 1, n, n, 0, ()), Performed(n))
    assert len(agent._facts) == len(agent._dead) == 2
    assert facts(tell(agent, Stop(0, 1, 3, 3, 0, ()))) == [PodGone(0, 1, 3, 3)]


def test_inv_5_time_never_goes_back() -> None:
    agent = Agent(NODE)
    agent.step(5, ())
    with pytest.raises(AssertionError, match="INV-5"):
        agent.step(4, ())


def test_a_newer_epoch_is_durable_before_it_is_obeyed_and_fences_after_a_restart() -> None:
    agent = Agent(NODE)
    first = agent.step(0, (create(1, 1, epoch=3),))
    assert first.persist == (Record(EPOCH, b"3"),)
    assert agent.step(0, (create(2, 2, gpu=1, epoch=3),)).persist == ()
    restarted = Agent(NODE, epoch=3)
    assert facts(tell(restarted, create(1, 1, epoch=2))) == [CommandRefused(0, 2, 1)]
    assert restarted.step(0, (create(3, 3, epoch=3),)).persist == ()


def test_a_pod_that_ends_by_itself_is_told_once_and_takes_no_commands_any_more() -> None:
    agent = Agent(NODE)
    tell(agent, create(1, 7), Performed(0))
    gone = PodExited(7, "exited")
    assert facts(tell(agent, gone, gone)) == [PodFailed(0, 1, -1, 7, "exited")]
    late = tell(agent, Suspend(0, 1, 2, 7, 0, (0,)))
    assert facts(late) == [PodFailed(0, 1, 2, 7, "pod is gone")]


def test_a_pod_that_ends_while_it_is_worked_on_is_left_to_that_answer() -> None:
    agent = Agent(NODE)
    tell(agent, create(1, 7), Performed(0), Suspend(0, 1, 2, 7, 0, (0,)))
    assert tell(agent, PodExited(7, "exited")) == ()
    assert facts(tell(agent, Performed(1, (), "checkpoint"))) == [
        PodFailed(0, 1, 2, 7, "checkpoint")
    ]


@pytest.mark.parametrize("command", [create(5, 7), Suspend(0, 1, 5, 7, 0, (0,))])
def test_a_failed_pod_that_could_not_be_ended_is_stuck_and_can_be_stopped_again(
    command: object,
) -> None:
    agent = Agent(NODE)
    tell(agent, command)
    out = tell(agent, Performed(0, (), "broken", stays=True))
    assert facts(out) == [PodStuck(0, 1, 5, 7, "broken")]
    stop = Stop(0, 1, 6, 7, 0, (0,))
    assert performs(tell(agent, stop)) == [(1, stop)]
    assert facts(tell(agent, Performed(1, (), "broken"))) == [PodStuck(0, 1, 6, 7, "broken")]
    # Its process may end after all, by itself.
    assert facts(tell(agent, PodExited(7, "exited"))) == [PodFailed(0, 1, -1, 7, "exited")]


@pytest.mark.parametrize(
    ("command", "error", "told"),
    [
        (Snapshot(0, 1, 1, 7, 0, (0,), leave=False), "", PodFound(0, 7, "ready")),
        (Snapshot(0, 1, 1, 7, 0, (0,), leave=True), "", PodFailed(0, 2, -1, 7, "left")),
        (Suspend(0, 1, 1, 7, 0, (0,)), "", PodFound(0, 7, "suspended")),
        (Resume(0, 1, 1, 7, 0, (0,)), "device", PodFailed(0, 2, -1, 7, "left")),
        (Stop(0, 1, 1, 7, 0, (0,)), "", PodFailed(0, 2, -1, 7, "left")),
    ],
)
def test_a_newer_leader_is_told_what_came_of_what_an_older_one_began(
    command: NodeCommand, error: str, told: Fact
) -> None:
    agent = Agent(NODE)
    tell(agent, command)
    (join,) = tell(agent, LeaderChanged(2))
    assert [found.pod for found in join.busy] == [7]
    assert facts(tell(agent, Performed(0, (), error))) == [told]


def test_what_has_not_begun_when_a_leader_connects_never_does() -> None:
    agent = Agent(NODE)
    tell(agent, create(1, 1), create(2, 2), Drop(0, 1, 3, 0, Tier.NVME))
    (join,) = tell(agent, LeaderChanged(1))
    assert [found.pod for found in join.busy] == [1]
    # The end of a deletion means nothing to somebody else.
    tell(agent, LeaderChanged(2))
    assert facts(tell(agent, Performed(1))) == []
    assert performs(tell(agent, Performed(0))) == []
    # Ordered again, by the same leader or another, it is another order.
    assert [c.pod for _, c in performs(tell(agent, create(2, 2, epoch=2)))] == [2]
