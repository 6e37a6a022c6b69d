"""What a real cluster's journals and its clients' clocks tell of a run, as a simulation's record.

Whoever reads a record cannot tell which it was: the same summary, tables and page are made of it.
The simulator's own books are kept here, told by journals instead of by modelled devices.

Laws:
1. Instants of clients (arrival, first token, end) are clients'; all others are the machines' own:
   what they were told, and when they were told it. Both are read off one host's clock.
2. What was before the first arrival counts from then on; what was after the last end, not at all.
3. A request waited for a start exactly as in a simulation: it came before its pod was ready.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec.structs import replace

from inferx.core.commands import Create, Dispatch, Restore, Resume, Snapshot, Stop, Suspend
from inferx.core.errors import InferXError
from inferx.core.events import (
    FunctionDefined,
    PodFailed,
    PodGone,
    PodReady,
    PodSuspended,
    RequestArrived,
    RequestFailed,
    RequestFinished,
    SnapshotTaken,
)
from inferx.core.explain import Decision
from inferx.core.types import FunctionSpec, NodeSpec, Tier
from inferx.sim.decisions import DecisionLog
from inferx.sim.ledger import Ledger
from inferx.sim.node import DOING
from inferx.sim.record import Cause, Outcome, RequestColumns, RunRecord

__all__ = ["Asked", "Heard", "ObservedError", "observe"]

MERGE_NS = 1_000_000_000
"""As in a simulated world: shorter pauses do not split a pod's work in the timeline."""
SKEW_NS = 5_000_000
"""How much later than a gateway noted a request its sender may believe to have sent it."""

_CAUSE = {
    Tier.REMOTE: Cause.RESTORE_REMOTE,
    Tier.NVME: Cause.RESTORE_NVME,
    Tier.DRAM: Cause.RESUME,
}


class ObservedError(InferXError):
    """Journals that are not of one run, or of another one than the requests."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One step of a machine: when, what it was told, what it commanded.

    Attributes:
        machine: 0 is the scheduler; others are routers.
    """

    now_ns: int
    machine: int
    events: Sequence[Any]
    commands: Sequence[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request as its client saw it; nanoseconds since 1970, -1 for never."""

    function: str
    input_tokens: int
    output_tokens: int
    sent_ns: int
    first_ns: int
    ended_ns: int
    outcome: Outcome
    why: str


def observe(
    heard: Iterable[Heard],
    asked: Sequence[Asked],
    decisions: Sequence[Decision],
    *,
    nodes: Sequence[NodeSpec],
    functions: Sequence[FunctionSpec],
    policy: str,
    seed: int,
    counters: dict[str, int],
) -> RunRecord:
    """Return the record of a run.

    Args:
        heard: Every step of the one scheduler and of all routers, in order of time.
        asked: Every request, in order of `sent_ns`; those that were never sent are left out.
        decisions: The scheduler's, with its own times.
        nodes: As they are numbered by the scheduler.
        functions: The same; as the policy slices them.
        policy: What the record says of whose they were.
        seed: Of the machines' streams.
        counters: Of the scheduler.

    Raises:
        ObservedError: The journals are of another run, or of more than one.
    """
    if not asked:
        raise ObservedError("no request was sent; expected at least one")
    return _Observer(asked, nodes, functions).record(heard, decisions, policy, seed, counters)


class _Observer:
    def __init__(
        self,
        asked: Sequence[Asked],
        nodes: Sequence[NodeSpec],
        functions: Sequence[FunctionSpec],
    ) -> None:
        self._asked = asked
        self._nodes = nodes
        self._functions = functions
        self._zero_ns = asked[0].sent_ns
        self._end_ns = max(max(one.ended_ns, one.sent_ns) for one in asked)
        self._names: dict[tuple[int, int], str] = {}
        """(router, its number of a function) -> name."""
        self._rows: dict[tuple[int, int], int] = {}
        """(router, its number of a request) -> row."""
        self._unmet: dict[str, deque[int]] = {}
        for row, one in enumerate(asked):
            self._unmet.setdefault(one.function, deque()).append(row)
        self._started = np.full(len(asked), -1, np.int64)
        self._cause = np.zeros(len(asked), np.int8)
        self._pod = np.full(len(asked), -1, np.int64)
        self._ready: dict[int, tuple[int, Cause]] = {}
        self._starting: dict[int, Cause] = {}
        self._placed: dict[int, tuple[int, int, tuple[int, ...]]] = {}
        """Pod -> node, function, GPUs, as last commanded."""
        self._latest: dict[int, int] = {}
        """Pod -> number of its latest command."""
        self._inflight: dict[int, int] = {}
        gpus = sum(node.gpus for node in nodes)
        self._busy = [[0, 0, 0] for _ in range(gpus)]
        """GPU -> pods at work on it, since when, and nanoseconds until then."""
        self._ledger = Ledger(functions, gpus, MERGE_NS)

    def record(
        self,
        heard: Iterable[Heard],
        decisions: Sequence[Decision],
        policy: str,
        seed: int,
        counters: dict[str, int],
    ) -> RunRecord:
        for step in heard:
            if step.now_ns > self._end_ns:
                break
            now = max(0, step.now_ns - self._zero_ns)
            for event in step.events:
                if step.machine:
                    self._routed(now, step, event)
                else:
                    self._told(now, event)
            for command in step.commands:
                self._commanded(now, step.machine, command)
        span_ns = self._end_ns - self._zero_ns
        self._ledger.finish(span_ns)
        for gpu in self._busy:
            if gpu[0]:
                gpu[2] += span_ns - gpu[1]
        log = DecisionLog()
        for one in decisions:
            if one.at_ns <= self._end_ns:
                log.take(replace(one, at_ns=max(0, one.at_ns - self._zero_ns)))
        return RunRecord(
            policy=policy,
            seed=seed,
            span_ns=span_ns,
            nodes=tuple(self._nodes),
            functions=tuple(self._functions),
            requests=self._requests(),
            refusals={
                row: (one.ended_ns - self._zero_ns, one.why)
                for row, one in enumerate(self._asked)
                if one.outcome is Outcome.REFUSED
            },
            decisions=log.rows,
            spans=self._ledger.spans,
            gpu_busy_ns=np.array([gpu[2] for gpu in self._busy], np.int64),
            gpu_allocated_milli_ns=self._ledger.milli_ns,
            gpu_resident_byte_ns=self._ledger.byte_ns,
            counters=dict(sorted(counters.items())),
        )

    def _requests(self) -> RequestColumns:
        index = {spec.name: number for number, spec in enumerate(self._functions)}
        for one in self._asked:
            if one.function not in index:
                raise ObservedError(f"the journals know of no function {one.function}")

        def since(name: str) -> np.ndarray:
            at = np.array([getattr(one, name) for one in self._asked], np.int64)
            return np.where(at < 0, -1, at - self._zero_ns)

        done = np.array([one.outcome is Outcome.FINISHED for one in self._asked])
        lost = done & (self._started < 0)
        if lost.any():
            row = int(lost.argmax())
            raise ObservedError(f"request {row} was answered, and no journal tells of it")
        return RequestColumns(
            function=np.array([index[one.function] for one in self._asked], np.int32),
            input_tokens=np.array([one.input_tokens for one in self._asked], np.int32),
            output_tokens=np.array([one.output_tokens for one in self._asked], np.int32),
            arrived_ns=since("sent_ns"),
            started_ns=self._started,
            first_ns=since("first_ns"),
            finished_ns=np.where(done, since("ended_ns"), -1),
            outcome=np.array([one.outcome for one in self._asked], np.int8),
            cause=self._cause,
            pod=self._pod,
        )

    # -- the scheduler ---
    def _told(self, now: int, event: object) -> None:
        match event:
            case PodReady():
                self._ready[event.pod] = now, self._starting.get(event.pod, Cause.WARM)
                self._enter(now, event.pod, "idle")
            case PodSuspended():
                self._ledger.release(now, event.pod)
                self._enter(now, event.pod, "standby")
            case SnapshotTaken():
                self._ledger.disks.wrote(now, *self._placed[event.pod][:2])
                if event.left:
                    self._leave(now, event.pod)
                else:
                    self._enter(now, event.pod, "idle")
            case PodGone() | PodFailed():
                self._leave(now, event.pod)
            case _:
                pass

    def _leave(self, now: int, pod: int) -> None:
        self._ledger.release(now, pod)
        self._ledger.leave(now, pod)
        self._ready.pop(pod, None)

    def _commanded(self, now: int, machine: int, command: object) -> None:
        match command:
            case Create() | Restore() | Resume():
                self._ledger.charge(now, command.pod, command.function, command.gpus)
                self._starting[command.pod] = (
                    Cause.COLD
                    if isinstance(command, Create)
                    else Cause.RESUME
                    if isinstance(command, Resume)
                    else _CAUSE[command.source]
                )
            case Suspend() | Snapshot() | Stop():
                pass
            case Dispatch(request, pod):
                self._dispatched(now, self._rows.get((machine, request)), pod)
                return
            case _:
                return
        pod = command.pod
        if self._latest.get(pod) == command.sequence:
            return  # It is repeated.
        self._latest[pod] = command.sequence
        self._placed[pod] = command.node, command.function, command.gpus
        self._enter(now, pod, DOING[type(command)])

    def _enter(self, now: int, pod: int, state: str) -> None:
        node, function, gpus = self._placed[pod]
        spec = self._functions[function]
        off = state in {"standby", "suspending", "resuming"} or not gpus
        self._ledger.enter(
            now,
            pod,
            state,
            function=function,
            node=node,
            gpus=() if state == "standby" else gpus,
            host_bytes=spec.host_bytes + (spec.device_bytes if off else 0),
        )

    # -- routers ---
    def _routed(self, now: int, step: Heard, event: object) -> None:
        match event:
            case FunctionDefined(function, spec):
                self._names[step.machine, function] = spec.name
            case RequestArrived(request, function):
                row = self._row_of(step.now_ns, self._names[step.machine, function])
                if row is not None:
                    self._rows[step.machine, request] = row
            case RequestFinished(request, pod) | RequestFailed(request, pod):
                row = self._rows.get((step.machine, request))
                if row is None:
                    return
                self._rests(now, pod)
                one = self._asked[row]
                if isinstance(event, RequestFailed) and one.outcome is Outcome.FINISHED:
                    # Its pod took no connection, and it asks for another turn.
                    self._unmet[one.function].appendleft(row)
            case _:
                pass

    def _row_of(self, now_ns: int, function: str) -> int | None:
        """Return the row of a request that has just arrived; None for one of somebody else's."""
        unmet = self._unmet.get(function)
        while unmet:
            one = self._asked[unmet[0]]
            if one.sent_ns > now_ns + SKEW_NS:
                break
            row = unmet.popleft()
            if one.ended_ns < 0 or now_ns <= one.ended_ns + SKEW_NS:
                return row
            # It was turned away before the router heard of it.
        return None

    def _dispatched(self, now: int, row: int | None, pod: int) -> None:
        if row is None:
            return
        self._started[row], self._pod[row] = now, pod
        ready_ns, cause = self._ready.get(pod, (-1, Cause.WARM))
        if self._asked[row].sent_ns - self._zero_ns < ready_ns:
            self._cause[row] = cause
        self._inflight[pod] = inside = self._inflight.get(pod, 0) + 1
        if inside == 1 and pod in self._placed:
            self._ledger.works(now, pod)
            for gpu in self._placed[pod][2]:
                at = self._busy[gpu]
                if not at[0]:
                    at[1] = now
                at[0] += 1

    def _rests(self, now: int, pod: int) -> None:
        self._inflight[pod] = inside = self._inflight.get(pod, 0) - 1
        if inside == 0 and pod in self._placed:
            self._ledger.rests(now, pod)
            for gpu in self._placed[pod][2]:
                at = self._busy[gpu]
                at[0] -= 1
                if not at[0]:
                    at[2] += now - at[1]
