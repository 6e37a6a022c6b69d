"""One term of a leading scheduler: the machine, what it is told, and who carries out its word.

A term begins by gathering: the nodes and gateways that are registered are called, and tell what
they run and hold. Whoever does not within `GATHER_S` is given up. Then the machine decides.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import grpc

from inferx.core.commands import (
    GrantLease,
    RecallLease,
    RefuseLease,
    RevokeLease,
    SchedulerCommand,
)
from inferx.core.events import (
    NodeJoined,
    NodeLost,
    PhaseTiming,
    PodFailed,
    PodGone,
    PodReady,
    RouterJoined,
    RouterLost,
    SchedulerEvent,
)
from inferx.core.explain import Decision
from inferx.core.machine.scheduler import Scheduler
from inferx.core.machine.step import Record
from inferx.core.types import FunctionId, NodeId, PodId, RouterId
from inferx.exec.clock import Clock
from inferx.exec.driver import Driver
from inferx.exec.functions import KINDS, FunctionBook
from inferx.exec.identity.audit import Audit
from inferx.exec.journal import Journal, LoadBundle, make, open_journal
from inferx.exec.logs import ids
from inferx.exec.metrics.scheduler import SchedulerCounts, Timed
from inferx.exec.scheduler.decision_audit import DecisionAudit
from inferx.exec.scheduler.decision_log import tell
from inferx.exec.scheduler.election import Leadership
from inferx.exec.scheduler.node_book import NodeBook, resources_of
from inferx.exec.scheduler.nodes import NodeLines
from inferx.exec.scheduler.routers import RouterLines
from inferx.exec.scheduler.traces import DecisionTraces
from inferx.exec.state.objects.envelope import encode
from inferx.exec.state.objects.informer import Informer
from inferx.exec.state.objects.mirror import Changed
from inferx.exec.tracing.recorder import Recorder
from inferx.exec.wire.codec import Codec

__all__ = ["GATHER_S", "Started", "Term", "TermConfig"]

GATHER_S = 2.0
"""How long a new leader waits for those who are registered."""
DECISIONS_KEPT = 10_000
STARTS_KEPT = 10_000
"""Pods of which it is remembered how they were started."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TermConfig:
    """What every term of a scheduler is run with.

    Attributes:
        load: Finds policies.
        policy: Name of the bundle, as the command line has it.
        settings: Of the bundle.
        seed: Of its random streams.
        journals: Folder that journals are written to; None writes none.
        credentials: Of the channels to nodes; None is in the clear.
        audit: Takes every decision with its reason; None keeps no record.
        recorder: Takes spans; None traces nothing.
    """

    load: LoadBundle
    policy: str = "default"
    settings: Mapping[str, int | float | bool | str] = field(
        default_factory=dict[str, int | float | bool | str]
    )
    seed: int = 1
    journals: Path | None = None
    credentials: grpc.ChannelCredentials | None = None
    audit: Audit | None = None
    recorder: Recorder | None = None


class Started(NamedTuple):
    """A pod's start: when it was ordered, when its node said it is ready, and what it took."""

    ordered_ns: int
    ready_ns: int
    phases: tuple[PhaseTiming, ...]


class Term:
    """Runs the scheduler machine for as long as this process leads.

    Args:
        config: What it is run with.
        leadership: This term's.
        informer: Copies of functions, policies, tenants, nodes and gateways, listed already.
        clock: The time.
        counts: Told of what happens.
    """

    def __init__(
        self,
        config: TermConfig,
        leadership: Leadership,
        informer: Informer,
        clock: Clock,
        counts: SchedulerCounts,
    ) -> None:
        self._counts = counts
        self._leadership = leadership
        self._informer = informer
        self._clock = clock
        self.epoch = epoch = leadership.epoch
        self.book = FunctionBook()
        self.decisions: deque[Decision] = deque(maxlen=DECISIONS_KEPT)
        self.starts: OrderedDict[PodId, Started] = OrderedDict()
        """How pods were started, the latest last."""
        self._traces: DecisionTraces | None = None
        if config.recorder is not None:
            names = self.book.names
            self._traces = DecisionTraces(config.recorder, clock, names, epoch=epoch)
        self._addresses: dict[PodId, str] = {}
        gateways = sorted(one.name for one in informer.all("gateway"))
        readable = (one for one in informer.all("node_info") if resources_of(one) is not None)
        self._known = sorted(readable, key=lambda one: one.name)
        made_of = {
            "policy": config.policy,
            "settings": dict(config.settings),
            "seed": config.seed,
            "name": f"scheduler/{epoch}",
            "epoch": epoch,
            "awaited_nodes": len(self._known),
            "awaited_routers": len(gateways),
        }
        self.audit = DecisionAudit(
            config.audit,
            epoch,
            name_of=lambda function: self.book.names.name_of(FunctionId(function)),
            node_of=lambda node: self.node_name(NodeId(node)) if node >= 0 else "",
        )
        machine = make("scheduler", made_of, config.load, on_decision=self._decided, explain=True)
        assert isinstance(machine, Scheduler)
        self.machine = machine
        self.journal: Journal | None = None
        if config.journals is not None:
            name = f"scheduler-{epoch}"
            self.journal = open_journal(config.journals, name, "scheduler", made_of, machine)
        self._driver: Driver[SchedulerEvent, SchedulerCommand] = Driver(
            f"scheduler/{epoch}", Timed(self.journal or machine, counts), clock, self
        )
        self._codec = Codec(self.book.names)
        self._silent_nodes = {NodeId(node) for node in range(len(self._known))}
        self._silent_routers = {RouterId(number) for number in range(len(gateways))}
        self.nodes = NodeLines(
            epoch=epoch,
            codec=self._codec,
            clock=clock,
            post=self.post,
            locate=self._locate,
            deploy=self._function_object,
            credentials=config.credentials,
        )
        self._node_book = NodeBook(self.nodes, self._driver.post)
        self.routers = RouterLines(
            epoch=epoch,
            codec=self._codec,
            clock=clock,
            post=self.post,
            address_of=lambda pod: self._addresses.get(pod, ""),
            awaited={name: RouterId(number) for number, name in enumerate(gateways)},
            traced=None if self._traces is None else self._traces.asked,
        )

    async def run(self) -> None:
        """Lead until cancelled, or deposed."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._leadership.hold(), name="leadership")
                # All functions are known before the first node tells what it runs.
                for kind in KINDS:
                    for one in self._informer.all(kind):
                        self._object_changed(Changed(None, one))
                for node in self._known:
                    self._node_book.changed(node)
                tasks.create_task(self._follow_objects(), name="objects")
                tasks.create_task(self._driver.run(), name="scheduler")
                tasks.create_task(self._gather(), name="gathering")
        finally:
            if self._traces is not None:
                self._traces.close()
            self.routers.close()
            await self.nodes.close()
            if self.journal is not None:
                self.journal.close()

    def post(self, event: SchedulerEvent) -> None:
        """Tell the machine something."""
        if isinstance(event, NodeJoined | NodeLost):
            self._silent_nodes.discard(event.node)
        elif isinstance(event, RouterJoined | RouterLost):
            self._silent_routers.discard(event.router)
        elif isinstance(event, PodGone | PodFailed):
            self._addresses.pop(event.pod, None)
        elif isinstance(event, PodReady):
            self._started(event)
        if self._traces is not None:
            self._traces.heard(event)
        self._counts.heard(event, self._clock.now_ns())
        self._driver.post(event)

    def _decided(self, decision: Decision) -> None:
        """Take note of a decision; called inside a step."""
        self.decisions.append(decision)
        self._counts.decided(decision)
        self.audit.decided(decision)
        if self._traces is not None:
            self._traces.decided(decision)
        tell(decision, self.book.names, self.machine.cluster, self.epoch, self._traces)

    async def _gather(self) -> None:
        await asyncio.sleep(GATHER_S)
        for node in sorted(self._silent_nodes):
            _log.warning(
                "node %s did not answer in %.0f s",
                self._known[node].name,
                GATHER_S,
                extra=ids(node=self._known[node].name, epoch=self.epoch),
            )
            self.post(NodeLost(node))
        for router in sorted(self._silent_routers):
            _log.warning("gateway %d did not join in %.0f s", router, GATHER_S)
            self.post(RouterLost(router))

    # -- effects of the machine ---
    async def persist(self, records: tuple[Record, ...]) -> None:
        """Make records durable, or raise that this is no longer the leader."""
        await self._leadership.persist(records)

    def send(self, command: SchedulerCommand) -> None:
        """Send a command on its way."""
        if isinstance(command, GrantLease | RevokeLease | RecallLease | RefuseLease):
            if self._traces is not None and isinstance(command, GrantLease | RefuseLease):
                self._traces.answered(command)
            self.routers.send(command)
            if isinstance(command, GrantLease):
                self._count_lease(command)
        else:
            self._counts.ordered(command, self._clock.now_ns())
            traces = self._traces
            self.nodes.send(command, "" if traces is None else traces.sending(command))

    def _started(self, ready: PodReady) -> None:
        pod = self.machine.cluster.pods.get(ready.pod)
        if pod is None:
            return
        self.starts[ready.pod] = Started(pod.started_ns, self._clock.now_ns(), ready.phases)
        self.starts.move_to_end(ready.pod)
        while len(self.starts) > STARTS_KEPT:
            self.starts.popitem(last=False)

    def _count_lease(self, lease: GrantLease) -> None:
        pod = self.machine.cluster.pods.get(lease.pod)
        if pod is not None:
            self._counts.granted(
                lease.function,
                self.book.names.name_of(lease.function),
                self.node_name(pod.node),
                cold=lease.cold,
                now_ns=self._clock.now_ns(),
            )

    # -- objects ---
    async def _follow_objects(self) -> None:
        async for changed in self._informer.changes():
            self._object_changed(changed)

    def _object_changed(self, changed: Changed) -> None:
        kind = changed.key.type
        if kind == "node_info":
            if changed.new is not None:
                self._node_book.changed(changed.new)
        elif kind != "gateway":
            for event in self.book.take(changed):
                self._driver.post(event)

    def _locate(self, pod: PodId, address: str) -> None:
        self._addresses[pod] = address

    def _function_object(self, function: FunctionId) -> bytes:
        return encode(self.book.by_id(function).object)

    # -- questions ---
    def node(self, name: str) -> NodeId | None:
        """Return a node's id in this term; None if none is called so."""
        return self._node_book.id_of(name)

    def node_name(self, node: NodeId) -> str:
        """Return what a node is called."""
        return self.machine.cluster.nodes[node].name

    def address_of(self, pod: PodId) -> str:
        """Return where a pod serves; "" where it is not known."""
        return self._addresses.get(pod, "")
