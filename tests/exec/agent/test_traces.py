"""An agent's spans: a command's action, and its steps where they lay in it."""

import time

import pytest
from spans import kept

from inferx.core.commands import Restore
from inferx.core.types import FunctionId, NodeId, PodId, Tier
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.traces import LIMIT, ActionTraces
from inferx.exec.tracing.context import TraceContext

ASK = TraceContext(7, 8, sampled=True)


def command(sequence=1, epoch=1):
    return Restore(NodeId(0), epoch, sequence, PodId(5), FunctionId(0), (), Tier.NVME, keep=False)


def phases():
    steps = Phases()
    with steps.step("outer"), steps.step("inner", 10):
        time.sleep(0.001)
    with pytest.raises(AgentError), steps.step("wake"):
        raise AgentError("no")
    return steps


def test_steps_lie_in_their_action_where_they_were():
    there = kept()
    traces = ActionTraces(there.recorder)
    began_ns = time.time_ns()
    traces.told(command(), ASK.header)
    trace = traces.performed(
        command(), "t/n/f@1", phases(), began_ns, time.time_ns() + 10**9, "wake"
    )
    assert trace == f"{7:032x}"
    action = there.named("restore")
    outer, inner, wake = (there.named(f"phase {name}") for name in ("outer", "inner", "wake"))
    assert action.parent.span_id == ASK.span_id
    assert {one.parent.span_id for one in (outer, inner, wake)} == {action.context.span_id}
    assert began_ns <= outer.start_time <= inner.start_time <= inner.end_time <= outer.end_time
    assert outer.end_time <= wake.start_time <= wake.end_time <= action.end_time
    assert inner.attributes["inferx.moved_bytes"] == 10
    assert (action.status.description, wake.status.description) == ("wake", "wake")
    assert outer.status.description is None
    assert action.attributes["inferx.version"] == "1"


def test_a_command_of_no_recorded_trace_or_another_epoch_is_in_none():
    there = kept()
    traces = ActionTraces(there.recorder)
    traces.told(command(1), ASK._replace(sampled=False).header)
    traces.told(command(2), "nonsense")
    traces.told(command(3, epoch=1), ASK.header)
    for one in (command(1), command(2), command(3, epoch=2)):
        assert traces.performed(one, "", Phases(), 1, 2, "") == ""
    assert there.spans == ()


def test_commands_that_are_never_performed_are_forgotten():
    traces = ActionTraces(kept().recorder)
    for sequence in range(LIMIT + 1):
        traces.told(command(sequence), ASK.header)
    assert traces.performed(command(0), "", Phases(), 1, 2, "") == ""
    assert traces.performed(command(1), "", Phases(), 1, 2, "")
