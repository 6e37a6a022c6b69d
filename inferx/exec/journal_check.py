"""What several machines did together, from their journals: what no machine alone can know.

Each journal is replayed, and their steps are taken in the order of their times: those of all
schedulers (each of its own epoch), gateways and agents of a cluster, whose hosts' clocks agree.
What is on a GPU is what its agent was at: a pod counts from when its start, restore or resume is
begun until the agent has seen its end, also while nobody leads.

Rules, with the invariants that they are of:
- INV-1: the pods on a GPU have no more of it than there is; a pod that is there is not started
  again, nor elsewhere; each scheduler's own books balance after each step.
- INV-8: an agent carries out nothing of an older epoch than it has followed, also before it was
  started anew; and there is one leader an epoch.
- INV-10: a pod is sent no more requests at a time than it has slots, a gateway sends each request
  once, and a lease is one gateway's.
"""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from inferx.core.commands import (
    Create,
    Dispatch,
    NodeCommand,
    Perform,
    Restore,
    Resume,
    Snapshot,
    Stop,
    Suspend,
)
from inferx.core.events import (
    LeaderChanged,
    LeaseGranted,
    NodeJoined,
    Performed,
    PodExited,
    RequestFailed,
    RequestFinished,
)
from inferx.core.journal import Divergence, JournalError, JournalReader, Replayed, replaying
from inferx.core.machine.scheduler import Scheduler
from inferx.core.machine.step import Machine
from inferx.core.types import GpuId, LeaseId, PodId, RequestId
from inferx.core.units import MILLI_PER_GPU
from inferx.exec.journal import LoadBundle, make

__all__ = ["Checked", "Finding", "check_journals"]

_Start = Create | Restore | Resume
_LAST: Final = 1
"""After the last step of a journal comes its end."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One breach: when, in whose journal, of which invariant, and what was done."""

    at_ns: int
    journal: str
    invariant: str
    what: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of a check: how much was looked at, and what is wrong with it."""

    steps: Mapping[str, int]
    starts: int
    dispatches: int
    epochs: tuple[int, ...]
    findings: tuple[Finding, ...]


@dataclass(slots=True)
class _Source:
    """A journal that is being read."""

    name: str
    reader: JournalReader
    machine: Machine[Any, Any]
    order: int
    running: dict[int, NodeCommand] = field(default_factory=dict[int, NodeCommand])
    """Of an agent: what it is at."""
    serving: dict[RequestId, PodId] = field(default_factory=dict[RequestId, PodId])
    """Of a gateway: its requests that are on pods."""
    sent: set[RequestId] = field(default_factory=set[RequestId])


@dataclass(slots=True)
class _Pod:
    """What a scheduler ordered."""

    milli_gpu: int
    hbm_bytes: int
    slots: int


@dataclass(slots=True)
class _Node:
    """A node as its leaders describe it, and what its agents have done."""

    hbm_bytes: int = 0
    epoch: int = 0
    held: dict[PodId, tuple[tuple[GpuId, ...], int]] = field(
        default_factory=dict[PodId, tuple[tuple[GpuId, ...], int]]
    )
    """Pods on its GPUs: which, and which of its agents put them there, counted."""
    agents: int = 0


def check_journals(paths: Sequence[Path], load: LoadBundle) -> Checked:
    """Check journals of one cluster against each other.

    Raises:
        JournalError: One cannot be read.
    """
    with ExitStack() as stack:
        sources = [
            _opened(stack.enter_context(_open(path)), path, load, order)
            for order, path in enumerate(paths)
        ]
        return _Check(sources).run()


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise JournalError(f"{path}: {error.strerror or error}") from error


def _opened(file: BinaryIO, path: Path, load: LoadBundle, order: int) -> _Source:
    try:
        reader = JournalReader(file)
        return _Source(str(path), reader, make(reader.machine, reader.config, load), order)
    except JournalError as error:
        raise JournalError(f"{path}: {error}") from error


class _Check:
    """Takes steps in order of time, and notes what breaks a rule."""

    def __init__(self, sources: Sequence[_Source]) -> None:
        self._sources = sources
        self._pods: dict[PodId, _Pod] = {}
        self._nodes: dict[str, _Node] = {}
        self._where: dict[PodId, str] = {}
        self._load: dict[PodId, int] = {}
        self._leases: dict[LeaseId, str] = {}
        self._leaders: dict[int, str] = {}
        self._steps = {source.name: 0 for source in sources}
        self._starts = self._dispatches = 0
        self._findings: list[Finding] = []
        self._now_ns = 0

    def run(self) -> Checked:
        for source in self._sources:
            if source.reader.machine == "scheduler":
                epoch = int(source.reader.config["epoch"])
                if epoch in self._leaders:
                    text = f"epoch {epoch} is {self._leaders[epoch]}'s as well"
                    self._find(source, "INV-8", text)
                self._leaders[epoch] = source.name
        merged = heapq.merge(*(self._read(source) for source in self._sources))
        for now_ns, _, _, source_number, step in merged:
            self._now_ns = now_ns
            self._take(self._sources[source_number], step)
        return Checked(
            self._steps,
            self._starts,
            self._dispatches,
            tuple(sorted(self._leaders)),
            tuple(self._findings),
        )

    def _read(
        self, source: _Source
    ) -> Iterator[tuple[int, int, int, int, Replayed | Divergence | None]]:
        """Yield steps with what they are sorted by: who orders comes before who obeys."""
        kind, number, now_ns = source.reader.machine, 0, 0
        rank = {"scheduler": 0, "agent": 1, "router": 2}[kind]
        for one in replaying(kind, source.machine, source.reader):
            now_ns, number = one.now_ns, number + 1
            yield now_ns, rank, number, source.order, one
        yield now_ns, rank, number + _LAST, source.order, None

    def _find(self, source: _Source, invariant: str, what: str) -> None:
        self._findings.append(Finding(self._now_ns, source.name, invariant, what))

    def _take(self, source: _Source, step: Replayed | Divergence | None) -> None:
        if step is None:
            # What a gateway had sent ended with it, for its connections did.
            for pod in source.serving.values():
                self._load[pod] -= 1
            return
        self._steps[source.name] += 1
        if isinstance(step, Divergence):
            text = f"step {step.entry} comes out otherwise: {step.error or step.got}"
            self._find(source, "INV-7", text)
            return
        match source.reader.machine:
            case "scheduler":
                assert isinstance(source.machine, Scheduler)
                self._scheduler(source, source.machine, step)
            case "agent":
                self._agent(source, step)
            case _:
                self._router(source, step)

    # -- schedulers ---
    def _scheduler(self, source: _Source, machine: Scheduler, step: Replayed) -> None:
        cluster = machine.cluster
        try:
            cluster.check(list(machine.fleet.disks.arriving))
        except AssertionError as error:
            self._find(source, "INV-1", f"its books do not balance: {error}")
        for event in step.events:
            if isinstance(event, NodeJoined):
                self._joined(machine, event)
        for command in step.step.commands:
            if isinstance(command, _Start) and command.gpus:
                self._order(machine, command)

    def _node(self, name: str) -> _Node:
        return self._nodes.setdefault(name, _Node())

    def _order(self, machine: Scheduler, command: _Start) -> None:
        spec = machine.cluster.functions[command.function]
        node = self._node(machine.cluster.nodes[command.node].name)
        node.hbm_bytes = machine.cluster.nodes[command.node].hbm_bytes
        pod = self._pods.setdefault(command.pod, _Pod(spec.milli_gpu, spec.hbm_bytes, 0))
        pod.slots = max(pod.slots, spec.slots)

    def _joined(self, machine: Scheduler, event: NodeJoined) -> None:
        """What an agent that began anew does not report is not there any more."""
        node = self._node(machine.cluster.nodes[event.node].name)
        there = {found.pod for found in event.pods if found.state != "suspended"}
        for pod, (_, agent) in list(node.held.items()):
            if agent != node.agents and pod not in there:
                self._leave(node, pod)

    # -- agents ---
    def _agent(self, source: _Source, step: Replayed) -> None:
        name = str(source.reader.config.get("name", ""))
        node = self._node(name)
        if self._steps[source.name] == 1:
            node.agents += 1
            epoch = int(source.reader.config["epoch"])
            if epoch < node.epoch:
                text = f"it begins at epoch {epoch}, its node had followed {node.epoch}"
                self._find(source, "INV-8", text)
        for event in step.events:
            match event:
                case LeaderChanged() if event.epoch:
                    node.epoch = max(node.epoch, event.epoch)
                case Performed():
                    command = source.running.pop(event.action, None)
                    if command is not None:
                        self._performed(node, command, event)
                case PodExited():
                    self._leave(node, event.pod)
                case _:
                    epoch = getattr(event, "epoch", 0)
                    node.epoch = max(node.epoch, epoch)
        for command in step.step.commands:
            if isinstance(command, Perform):
                source.running[command.action] = command.command
                self._begun(source, name, node, command.command)

    def _begun(self, source: _Source, name: str, node: _Node, command: NodeCommand) -> None:
        if command.epoch < node.epoch:
            told = f"{type(command).__name__} of epoch {command.epoch} after {node.epoch}"
            self._find(source, "INV-8", told)
        if not isinstance(command, _Start) or not command.gpus:
            return
        self._starts += 1
        pod = command.pod
        if pod in self._where:
            text = f"pod {pod} is started, and is on GPUs of {self._where[pod]}"
            self._find(source, "INV-1", text)
            return
        ordered = self._pods.get(pod)
        if ordered is None:
            self._find(source, "INV-8", f"pod {pod} is started, which no scheduler ordered")
            return
        node.held[pod] = command.gpus, node.agents
        self._where[pod] = name
        for gpu in command.gpus:
            on_it = [self._pods[one] for one, (gpus, _) in node.held.items() if gpu in gpus]
            milli = sum(one.milli_gpu for one in on_it)
            hbm = sum(one.hbm_bytes for one in on_it)
            if milli > MILLI_PER_GPU or hbm > node.hbm_bytes:
                self._find(
                    source,
                    "INV-1",
                    f"GPU {gpu} of {name} has {len(on_it)} pods with pod {pod}: {milli} of"
                    f" {MILLI_PER_GPU} milli, {hbm} of {node.hbm_bytes} bytes",
                )

    def _performed(self, node: _Node, command: NodeCommand, ended: Performed) -> None:
        match command:
            case Create() | Restore() | Resume() | Suspend() | Snapshot() | Stop():
                failed = bool(ended.error)
                stays = failed and (ended.stays or isinstance(command, Stop))
                left = isinstance(command, Suspend | Stop) or (
                    isinstance(command, Snapshot) and command.leave
                )
                if (failed or left) and not stays:
                    self._leave(node, command.pod)
            case _:
                pass

    def _leave(self, node: _Node, pod: PodId) -> None:
        if node.held.pop(pod, None) is not None:
            del self._where[pod]

    # -- gateways ---
    def _router(self, source: _Source, step: Replayed) -> None:
        for event in step.events:
            match event:
                case RequestFinished() | RequestFailed():
                    if source.serving.pop(event.request, None) is not None:
                        self._load[event.pod] -= 1
                case LeaseGranted():
                    whose = str(source.reader.config["name"])
                    if self._leases.setdefault(event.lease, whose) != whose:
                        text = f"lease {event.lease} is {self._leases[event.lease]}'s as well"
                        self._find(source, "INV-10", text)
                case _:
                    pass
        for command in step.step.commands:
            if isinstance(command, Dispatch):
                self._dispatched(source, command)

    def _dispatched(self, source: _Source, command: Dispatch) -> None:
        request, pod = command.request, command.pod
        self._dispatches += 1
        if request in source.sent:
            self._find(source, "INV-10", f"request {request} is sent again, to pod {pod}")
        source.sent.add(request)
        source.serving[request] = pod
        load = self._load[pod] = self._load.get(pod, 0) + 1
        ordered = self._pods.get(pod)
        if ordered is None:
            self._find(source, "INV-3", f"a request is sent to pod {pod}, which nobody ordered")
        elif load > ordered.slots:
            text = f"pod {pod} has {load} requests and {ordered.slots} slots"
            self._find(source, "INV-10", text)
