"""A peer that speaks nonsense does not end a machine: what passes the wire's checks is survived."""

from typing import Any

import pytest
from grpc_fuzz import messages
from hypothesis import given
from hypothesis import strategies as st
from small_cluster import function, node

from inferx.core import commands, events
from inferx.core.machine.fleet import IDS_PER_EPOCH
from inferx.core.types import FunctionId, NodeId, RequestId, RouterId, Tier
from inferx.core.units import NS_PER_MS, NS_PER_S
from inferx.exec.journal import make
from inferx.exec.wire import wire_pb2 as pb
from inferx.exec.wire.codec import FROM_NODE, FROM_ROUTER, TO_NODE, TO_ROUTER, Codec
from inferx.exec.wire.names import FunctionNames, Peer
from inferx.exec.wire.sense import WireError
from inferx.load import load_bundle

NAMES = ("t/n/f@1", "t/n/g@2")
WORDS = (*NAMES, "ready", "suspended", "moving", "busy", "stuck", "load", "oom")
NUMBERS = tuple(IDS_PER_EPOCH + n for n in range(-1, 4))
GPUS = 2
PEERS = Peer(0, 0, GPUS), Peer(1, GPUS, GPUS)
STEPS = 12


def specs() -> list[Any]:
    return [function(name, gib=30) for name in NAMES]


class Machine:
    """One machine, its outstanding commands, and the time."""

    def __init__(self, kind: str, **config: Any) -> None:
        self.machine: Any = make(kind, config, load_bundle)
        self.now_ns = NS_PER_S
        self.said: list[Any] = []
        self.codec = Codec(FunctionNames(NAMES))

    def step(self, *taken: Any, after_ns: int = NS_PER_MS) -> None:
        self.now_ns += after_ns
        self.said += self.machine.step(self.now_ns, taken).commands

    def hear(self, direction: Any, message: Any, peer: int = 0) -> None:
        try:
            event = self.codec.heard(direction, message, PEERS[peer])
        except WireError:
            return
        self.step(event)


def answer_to(command: Any) -> Any:
    """Return what a good node says of a command; None where it is no node's."""
    of = (command.node, command.epoch, command.sequence) if hasattr(command, "sequence") else ()
    match command:
        case commands.Create() | commands.Restore() | commands.Resume():
            return events.PodReady(*of, command.pod)
        case commands.Suspend():
            return events.PodSuspended(*of, command.pod)
        case commands.Snapshot():
            return events.SnapshotTaken(*of, command.pod, command.leave)
        case commands.Stop():
            return events.PodGone(*of, command.pod)
        case commands.Copy():
            return events.SnapshotCopied(*of, command.function, command.target)
        case commands.Drop():
            return events.SnapshotDropped(*of, command.function, command.tier)
        case _:
            return None


def wrong_answer(command: Any, kind: int) -> Any:
    """Return what answers a command, and is no answer to it: of another kind, or pod."""
    if not hasattr(command, "sequence"):
        return None
    of = (command.node, command.epoch, command.sequence)
    pod, function = getattr(command, "pod", 0), getattr(command, "function", 0)
    return (
        events.PodReady(*of, pod),
        events.PodSuspended(*of, pod),
        events.PodGone(*of, pod),
        events.PodFailed(*of, pod, "odd"),
        events.PodStuck(*of, pod, "odd"),
        events.SnapshotTaken(*of, pod, left=True),
        events.SnapshotTaken(*of, pod, left=False),
        events.SnapshotCopied(*of, function, Tier.DRAM),
        events.SnapshotDropped(*of, function, Tier.DRAM),
        events.PodReady(*of, pod + 1),
        events.PodGone(*of, pod + 1),
        events.PodReady(NodeId(1 - command.node), *of[1:], pod),
    )[kind]


def a_scheduler() -> Machine:
    """Return one that has a node and a router, and a pod on its way for each function."""
    made = Machine(
        "scheduler", policy="default", settings={}, seed=1, name="s", epoch=1,
        awaited_nodes=0, awaited_routers=0,
    )  # fmt: skip
    for number, spec in enumerate(specs()):
        made.step(events.FunctionDefined(FunctionId(number), spec))
    for number in range(2):
        made.step(events.NodeDescribed(NodeId(number), node(number, GPUS)))
        made.step(events.NodeJoined(NodeId(number), 1), events.RouterJoined(RouterId(number)))
    for number in range(len(NAMES)):
        made.step(events.LeaseAsked(RouterId(0), FunctionId(number), 1, 0, made.now_ns, 1))
    assert any(isinstance(one, commands.Create) for one in made.said)
    return made


def moves(*spoken: Any) -> Any:
    said = st.one_of(
        *(
            st.tuples(st.just(direction), st.tuples(strategy, st.integers(0, 1)))
            for direction, strategy in spoken
        )
    )
    waits = st.tuples(st.just("wait"), st.sampled_from([NS_PER_MS, NS_PER_S, 60 * NS_PER_S]))
    answers = st.tuples(st.just("answer"), st.integers(0, 3))
    wrong = st.tuples(st.just("wrong"), st.tuples(st.integers(0, 3), st.integers(0, 11)))
    return st.lists(st.one_of(said, said, answers, wrong, waits), max_size=STEPS)


FROM_NODES = messages(pb.FromNode, WORDS, numbers=NUMBERS)
FROM_ROUTERS = messages(pb.FromRouter, WORDS, numbers=NUMBERS)


@given(moves((FROM_NODE, FROM_NODES), (FROM_ROUTER, FROM_ROUTERS)))
def test_a_scheduler_survives_what_nodes_and_gateways_say(told: list[Any]) -> None:
    made = a_scheduler()
    for how, what in told:
        if how == "wait":
            made.step(after_ns=what)
        elif how == "answer":
            if what < len(made.said) and (event := answer_to(made.said.pop(what))) is not None:
                made.step(event)
        elif how == "wrong":
            index, kind = what
            if index < len(made.said):
                event = wrong_answer(made.said.pop(index), kind)
                if event is not None:
                    made.step(event)
        else:
            made.hear(how, *what)
        made.machine.cluster.check()


TO_ROUTERS = messages(pb.ToRouter, WORDS, numbers=NUMBERS)


@given(moves((TO_ROUTER, TO_ROUTERS)))
def test_a_gateway_survives_what_a_scheduler_says(told: list[Any]) -> None:
    made = Machine("router", policy="default", settings={}, seed=1, name="router/0", router=0)
    for number, spec in enumerate(specs()):
        made.step(events.FunctionDefined(FunctionId(number), spec))
    made.step(events.LeaderChanged(1))
    request = 0
    for how, what in told:
        if how == "wait":
            made.step(after_ns=what)
        elif how in {"answer", "wrong"}:
            request += 1
            made.step(events.RequestArrived(RequestId(request), FunctionId(request % len(NAMES))))
            for one in [one for one in made.said if isinstance(one, commands.Dispatch)]:
                made.step(events.RequestFinished(one.request, one.pod))
            made.said.clear()
        else:
            made.hear(how, *what)


@given(moves((TO_NODE, messages(pb.ToNode, WORDS, numbers=NUMBERS))))
def test_an_agent_survives_what_a_scheduler_says(told: list[Any]) -> None:
    made = Machine("agent", node=0, epoch=0)
    for how, what in told:
        if how == "wait":
            made.step(after_ns=what)
        elif how in {"answer", "wrong"}:
            performs = [one for one in made.said if isinstance(one, commands.Perform)]
            made.said.clear()
            for one in performs:
                made.step(events.Performed(one.action, error="" if how == "answer" else "load"))
        else:
            made.hear(how, *what)


@pytest.mark.parametrize("direction", [FROM_NODE, FROM_ROUTER, TO_ROUTER, TO_NODE])
def test_what_is_empty_means_nothing(direction: Any) -> None:
    with pytest.raises(WireError):
        Codec(FunctionNames(NAMES)).heard(direction, direction.envelope(), PEERS[0])
