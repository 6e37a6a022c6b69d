"""A leader's spans, by the ids of what gateways ask, what it decides and what nodes answer."""

from spans import kept

from inferx.core.commands import Copy, Create, GrantLease, RefuseLease, Suspend
from inferx.core.events import PodFailed, PodReady, PodSuspended, RouterJoined, RouterLost
from inferx.core.explain import Decision, Explanation
from inferx.core.types import FunctionId, LeaseId, NodeId, PodId, RouterId, Tier
from inferx.exec.clock import WallClock
from inferx.exec.scheduler.traces import EVENTS_LIMIT, DecisionTraces
from inferx.exec.tracing.context import TraceContext, parse
from inferx.exec.wire.names import FunctionNames

F, G = FunctionId(0), FunctionId(1)
R = RouterId(0)
ASK = TraceContext(7, 8, sampled=True)
OTHER = TraceContext(9, 10, sampled=True)


def begun(**more):
    there = kept()
    names = FunctionNames(("t/n/f@1", "t/n/g@1"))
    return there, DecisionTraces(there.recorder, WallClock(), names, epoch=3, **more)


def placed(function, pod, victims=(), kind="place"):
    why = Explanation(gpus=4, feasible=2)
    return Decision(1, kind, function, pod, 0, (0,), "cold", "", victims, why)


def create(sequence, pod, function=F):
    return Create(NodeId(0), 3, sequence, PodId(pod), function, ())


def suspend(sequence, pod, function=G):
    return Suspend(NodeId(0), 3, sequence, PodId(pod), function, ())


def grant(function=F):
    return GrantLease(R, LeaseId(1), function, PodId(5), 4, cold=True)


def test_from_an_ask_to_a_pod_that_is_there_is_one_tree():
    there, traces = begun()
    traces.asked(R, F, ASK.header)
    traces.decided(Decision(1, "defer", F, reason="no room"))
    traces.decided(placed(F, 5, victims=(2,), kind="evict"))
    leaves = parse(traces.sending(suspend(1, 2)))
    traces.heard(PodSuspended(NodeId(0), 3, 1, PodId(2)))
    starts = parse(traces.sending(create(2, 5)))
    # A command that is sent again is the same one.
    assert parse(traces.sending(create(2, 5))) == starts
    assert traces.trace_of(5) == f"{7:032x}"
    traces.heard(PodReady(NodeId(0), 3, 2, PodId(5)))
    traces.answered(grant())
    lease, decision = there.named("lease"), there.named("evict")
    commands = there.named("command suspend"), there.named("command create")
    assert lease.parent.span_id == ASK.span_id
    assert [(event.name, event.attributes["reason"]) for event in lease.events] == [
        ("deferred", "no room")
    ]
    assert decision.parent.span_id == lease.context.span_id
    assert {one.parent.span_id for one in commands} == {decision.context.span_id}
    assert [one.context.span_id for one in commands] == [leaves.span_id, starts.span_id]
    assert {span.context.trace_id for span in there.spans} == {7}
    assert lease.attributes["inferx.function"] == "f"
    assert lease.attributes["inferx.epoch"] == 3
    assert len(there.spans) == 4
    assert traces.trace_of(5) == ""


def test_what_the_scheduler_does_of_itself_is_in_no_trace():
    there, traces = begun()
    traces.asked(R, F, ASK._replace(sampled=False).header)
    traces.asked(R, F, "nonsense")
    traces.decided(placed(F, 5))
    assert traces.sending(create(1, 5)) == ""
    assert traces.sending(Copy(NodeId(0), 3, 2, F, Tier.REMOTE, Tier.NVME)) == ""
    traces.heard(PodReady(NodeId(0), 3, 1, PodId(5)))
    traces.answered(grant())
    assert there.spans == ()


def test_a_start_that_fails_says_why():
    there, traces = begun()
    traces.asked(R, F, ASK.header)
    traces.decided(placed(F, 5))
    traces.sending(create(1, 5))
    traces.heard(PodFailed(NodeId(0), 3, 1, PodId(5), "health"))
    traces.answered(RefuseLease(R, F, "function removed"))
    assert there.named("command create").status.description == "health"
    assert there.named("lease").status.description == "function removed"


def test_a_repeated_ask_is_one_and_another_request_s_is_another():
    there, traces = begun()
    for _ in range(3):
        traces.asked(R, F, ASK.header)
    assert there.spans == ()
    # The gateway asks for who waits longest: the first one has left.
    traces.asked(R, F, OTHER.header)
    assert there.named("lease").status.description == "asked no more"
    traces.answered(grant())
    assert [span.context.trace_id for span in there.spans] == [7, 9]


def test_a_gateway_that_is_gone_or_new_asks_no_more():
    for event in (RouterLost(R), RouterJoined(R, ())):
        there, traces = begun()
        traces.asked(R, F, ASK.header)
        traces.asked(RouterId(1), F, OTHER.header)
        traces.heard(event)
        assert [span.context.trace_id for span in there.spans] == [7]
        traces.decided(placed(F, 5))
        assert parse(traces.sending(create(1, 5))).trace_id == 9


def test_deferrals_are_told_within_a_bound():
    there, traces = begun()
    traces.asked(R, F, ASK.header)
    for _ in range(10 * EVENTS_LIMIT):
        traces.decided(Decision(1, "defer", F, reason="no room"))
    traces.answered(grant())
    assert len(there.named("lease").events) == EVENTS_LIMIT


def test_what_is_under_way_when_a_term_ends_is_told():
    there, traces = begun()
    traces.asked(R, F, ASK.header)
    traces.decided(placed(F, 5))
    starts = parse(traces.sending(create(1, 5)))
    traces.close()
    traces.close()
    command, lease = there.named("command create"), there.named("lease")
    assert command.context.span_id == starts.span_id
    assert command.status.description == lease.status.description == "the leader's term ended"
    assert len(there.spans) == 3


def test_what_nobody_answers_is_forgotten_within_a_bound():
    there, traces = begun(limit=3)
    traces.asked(R, F, ASK.header)
    for number in range(5):
        traces.decided(placed(F, number))
        traces.sending(create(number, number))
    assert [traces.trace_of(number) != "" for number in range(5)] == [
        False,
        False,
        True,
        True,
        True,
    ]
    unanswered = [span for span in there.spans if span.name == "command create"]
    assert [span.status.description for span in unanswered] == ["never answered"] * 2
    for number in range(5):
        traces.asked(RouterId(number), G, OTHER.header)
    traces.close()
    assert len([span for span in there.spans if span.name == "lease"]) == 3
