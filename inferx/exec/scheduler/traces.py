"""A leader's spans: from a gateway's question for a pod, by a decision, to a pod that is there.

What belongs together is found by ids outside the machine, which knows of no trace: an ask by its
gateway and function, a decision by its function, a command by its sequence number.

Laws:
1. A span begins with what a gateway asked in a trace that is recorded; what the scheduler does of
   itself, as prewarming, is in none.
2. What is remembered is bounded, and forgotten with the term.
"""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from inferx.core.commands import Copy, Drop, GrantLease, NodeCommand, RefuseLease
from inferx.core.events import (
    PodFailed,
    PodGone,
    PodReady,
    PodStuck,
    PodSuspended,
    RouterJoined,
    RouterLost,
    SchedulerEvent,
    SnapshotTaken,
)
from inferx.core.explain import Decision
from inferx.core.types import FunctionId, PodId, RouterId
from inferx.exec.clock import Clock
from inferx.exec.logs import function_ids
from inferx.exec.tracing.context import TraceContext, new_span_id, parse
from inferx.exec.tracing.recorder import Attributes, Event, Recorder
from inferx.exec.wire.names import FunctionNames

__all__ = ["DecisionTraces"]

LIMIT: Final = 10_000
"""Asks, pods and commands that are followed at once; more are not."""
EVENTS_LIMIT: Final = 32
"""Deferrals of one ask that are told."""
TERM_ENDED: Final = "the leader's term ended"
_STARTS: Final = frozenset(("place", "evict"))
_ANSWERS: Final = (PodReady, PodSuspended, PodGone, PodFailed, PodStuck, SnapshotTaken)


@dataclass(slots=True)
class _Ask:
    """A gateway that lacks slots of a function, for a request whose trace is recorded."""

    context: TraceContext
    parent_id: int
    since_ns: int
    deferred: list[Event] = field(default_factory=list[Event])


class _Told(NamedTuple):
    """A command that a node has not answered."""

    name: str
    context: TraceContext
    parent_id: int
    pod: PodId
    function: FunctionId
    since_ns: int


class DecisionTraces:
    """One term's.

    Args:
        recorder: Takes spans.
        clock: The time.
        names: The functions'.
        epoch: The leader's.
        limit: How many asks, pods and commands are followed at once.
    """

    def __init__(
        self,
        recorder: Recorder,
        clock: Clock,
        names: FunctionNames,
        *,
        epoch: int,
        limit: int = LIMIT,
    ) -> None:
        self._recorder = recorder
        self._clock = clock
        self._names = names
        self._epoch = epoch
        self._limit = limit
        self._asks: dict[FunctionId, dict[RouterId, _Ask]] = {}
        self._asking = 0
        self._pods: dict[PodId, TraceContext] = {}
        """Pods that were started or made to leave for an ask, and the span of that decision."""
        self._told: dict[int, _Told] = {}

    def asked(self, router: RouterId, function: FunctionId, traceparent: str) -> None:
        """Take in an ask of a gateway; one that is repeated is the first one still."""
        caller = parse(traceparent)
        if caller is None or not caller.sampled:
            return
        older = self._asks.get(function, {}).get(router)
        if older is not None:
            if (older.context.trace_id, older.parent_id) == caller[:2]:
                return
            # A gateway asks for who waits longest: the one before it has left.
            self._close(function, router, {}, "asked no more")
        if self._asking >= self._limit:
            return
        self._asking += 1
        context = caller._replace(span_id=new_span_id())
        ask = _Ask(context, caller.span_id, self._clock.now_ns())
        self._asks.setdefault(function, {})[router] = ask

    def decided(self, decision: Decision) -> None:
        """Take in a decision, as it is made."""
        asks = self._asks.get(FunctionId(decision.function))
        if asks is None:
            return
        ask, now_ns = next(iter(asks.values())), self._clock.now_ns()
        if decision.kind not in _STARTS:
            if decision.kind == "defer" and len(ask.deferred) < EVENTS_LIMIT:
                ask.deferred.append(Event("deferred", now_ns, {"reason": decision.reason}))
            return
        context = ask.context._replace(span_id=new_span_id())
        why = decision.explanation
        self._recorder.record(
            decision.kind,
            context,
            ask.context.span_id,
            ask.since_ns,
            now_ns,
            attributes={
                **self._about(FunctionId(decision.function)),
                "inferx.pod": decision.pod,
                "inferx.start": decision.start,
                "inferx.victims": len(decision.victims),
                **({} if why is None else {"inferx.feasible_gpus": why.feasible}),
            },
        )
        for pod in (decision.pod, *decision.victims):
            if pod >= 0:
                self._pods[PodId(pod)] = context
        while len(self._pods) > self._limit:
            # Of nodes that were lost: nobody tells of their pods.
            del self._pods[next(iter(self._pods))]

    def trace_of(self, pod: int) -> str:
        """Return the trace that a pod is started or leaves in; empty where there is none."""
        found = self._pods.get(PodId(pod))
        return "" if found is None else f"{found.trace_id:032x}"

    def sending(self, command: NodeCommand) -> str:
        """Return the `traceparent` that goes with a command; empty where there is none."""
        if isinstance(command, Copy | Drop):
            return ""
        told = self._told.get(command.sequence)
        if told is None:
            parent = self._pods.get(command.pod)
            if parent is None:
                return ""
            if len(self._told) >= self._limit:
                self._end(next(iter(self._told)), "never answered")
            name = f"command {type(command).__name__.lower()}"
            context = parent._replace(span_id=new_span_id())
            told = _Told(
                name,
                context,
                parent.span_id,
                command.pod,
                command.function,
                self._clock.now_ns(),
            )
            self._told[command.sequence] = told
        return told.context.header

    def heard(self, event: SchedulerEvent) -> None:
        """Take in what a node tells."""
        if isinstance(event, RouterJoined | RouterLost):
            for function in [f for f, asks in self._asks.items() if event.router in asks]:
                self._close(function, event.router, {}, "gateway joined anew")
            return
        if not isinstance(event, _ANSWERS):
            return
        self._pods.pop(event.pod, None)
        why = event.reason if isinstance(event, PodFailed | PodStuck) else ""
        self._end(event.sequence, why)

    def close(self) -> None:
        """Record what is under way when the term ends: others' spans are parts of it."""
        for sequence in tuple(self._told):
            self._end(sequence, TERM_ENDED)
        for function, asks in tuple(self._asks.items()):
            for router in tuple(asks):
                self._close(function, router, {}, TERM_ENDED)

    def _end(self, sequence: int, error: str) -> None:
        told = self._told.pop(sequence, None)
        if told is None:
            return
        self._recorder.record(
            told.name,
            told.context,
            told.parent_id,
            told.since_ns,
            self._clock.now_ns(),
            kind="client",
            attributes={**self._about(told.function), "inferx.pod": told.pod},
            error=error,
        )

    def answered(self, command: GrantLease | RefuseLease) -> None:
        """Take in that an ask is answered."""
        pod: Attributes = {}
        error = ""
        if isinstance(command, GrantLease):
            pod = {"inferx.pod": command.pod, "inferx.cold": command.cold}
        else:
            error = command.reason
        self._close(command.function, command.router, pod, error)

    def _close(self, function: FunctionId, router: RouterId, pod: Attributes, error: str) -> None:
        asks = self._asks.get(function, {})
        ask = asks.pop(router, None)
        if ask is None:
            return
        self._asking -= 1
        if not asks:
            del self._asks[function]
        self._recorder.record(
            "lease",
            ask.context,
            ask.parent_id,
            ask.since_ns,
            self._clock.now_ns(),
            kind="server",
            attributes={**self._about(function), **pod},
            events=ask.deferred,
            error=error,
        )

    def _about(self, function: FunctionId) -> dict[str, str | int]:
        named = function_ids(self._names.name_of(function))
        about: dict[str, str | int] = {f"inferx.{key}": value for key, value in named.items()}
        return about | {"inferx.epoch": self._epoch}
