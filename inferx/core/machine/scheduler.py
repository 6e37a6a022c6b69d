"""The scheduler machine: leases pods to routers, and decides what runs where.

Laws:
1. `step` is the only mutator; same state and same input give the same output, byte for byte.
2. Every command is answered by exactly one event, or its node is declared lost.
3. Capacity is charged when decided and released only when the release is confirmed.
4. A command carries the leader's epoch; an agent refuses an older one.
5. A policy proposes, the kernel checks: an impossible proposal is a `PolicyError` in a strict run
   and a counted `Defer` in production.
6. A restore is at-most-once: a failed one is killed and decided anew.
7. Ties break by (time, class, sequence) and lowest id; no `hash()`, no set iteration.
"""

from collections.abc import Sequence
from typing import assert_never

from numpy.random import Generator

from inferx.core.cluster import Cluster
from inferx.core.commands import REMOVED, Copy, Drop, SchedulerCommand
from inferx.core.errors import LocalProtocolError
from inferx.core.events import (
    CommandAccepted,
    CommandRefused,
    FunctionDefined,
    FunctionRetired,
    LeaseAsked,
    LeaseReturned,
    LoadReported,
    NodeDescribed,
    NodeDraining,
    NodeJoined,
    NodeLost,
    PodEndAsked,
    PodFailed,
    PodFound,
    PodGone,
    PodReady,
    PodStuck,
    PodSuspended,
    RouterJoined,
    RouterLost,
    SchedulerEvent,
    SnapshotCopied,
    SnapshotDropped,
    SnapshotTaken,
)
from inferx.core.explain import DecisionSink
from inferx.core.machine.answers import Answer
from inferx.core.machine.asking import Asking
from inferx.core.machine.chronicle import Chronicle
from inferx.core.machine.control import Control
from inferx.core.machine.demand import Demand
from inferx.core.machine.ending import Ending
from inferx.core.machine.failing import Failing
from inferx.core.machine.fleet import Fleet, first_id
from inferx.core.machine.functions import Functions, as_sliced
from inferx.core.machine.joining import Joining
from inferx.core.machine.placing import Placing
from inferx.core.machine.resting import Resting
from inferx.core.machine.serving import Serving
from inferx.core.machine.step import Step
from inferx.core.machine.timers import HOLD, TICK, Timers
from inferx.core.pod import Pod
from inferx.core.protocols import PolicyBundle
from inferx.core.types import (
    NO_FUNCTION,
    FunctionId,
    FunctionSpec,
    LeaseId,
    NodeId,
    NodeSpec,
    PodId,
    RouterId,
)
from inferx.core.view import ClusterView

__all__ = ["Scheduler"]


class Scheduler:
    """Owns the cluster's state. `step` takes events in and gives commands out."""

    def __init__(
        self,
        nodes: Sequence[NodeSpec],
        functions: Sequence[FunctionSpec],
        policies: PolicyBundle,
        rng: Generator,
        *,
        epoch: int = 1,
        routers: int = 1,
        awaited_nodes: Sequence[NodeId] = (),
        awaited_routers: Sequence[RouterId] = (),
        strict: bool = True,
        on_decision: DecisionSink | None = None,
        explain: bool = False,
    ) -> None:
        """Start with no node joined.

        Args:
            nodes: The cluster as described; a node counts once `NodeJoined` has come.
            functions: The functions, by id.
            policies: The bundle; one object per run, for policies may learn.
            rng: The policies' random stream.
            epoch: The leader's epoch, carried by every command.
            routers: How many gateways share the pods, those that join apart.
            awaited_nodes: Nodes that an older leader knew: nothing is decided before they have
                joined or are lost.
            awaited_routers: Gateways of which the same holds.
            strict: Whether an impossible proposal raises; production counts it and defers.
            on_decision: Takes every decision as it is made.
            explain: Whether decisions carry their explanation.
        """
        whole_gpus = policies.whole_gpus
        specs = [as_sliced(spec, whole_gpus=whole_gpus) for spec in functions]
        self.cluster = cluster = Cluster(nodes, specs)
        self._epoch = epoch
        self._out: list[SchedulerCommand] = []
        self._tell = Chronicle(cluster, on_decision, explain=explain)
        self.fleet = Fleet(
            cluster,
            epoch=epoch,
            snapshots=policies.snapshots,
            out=self._out,
            on_left=self._pod_left,
        )
        self._ask = Asking(
            policies,
            cluster,
            rng,
            strict=strict,
            on_error=lambda: self.fleet.count("policy_errors"),
        )
        self._demand = Demand(cluster, routers=routers, first_lease=first_id(epoch), out=self._out)
        self.placing = Placing(cluster, self.fleet, self._ask, self._demand, self._tell)
        self._serving = Serving(cluster, self._ask, self._demand, self.placing)
        self._functions = Functions(
            cluster, self.fleet, self._demand, self.placing, self._tell, whole_gpus=whole_gpus
        )
        self._control = Control(
            cluster, self.fleet, self._ask, self.placing, self._tell, lambda: self._serving.room
        )
        self._timers = Timers()
        self._resting = Resting(
            cluster,
            self.fleet,
            self._ask,
            self._functions,
            self._serving,
            self._timers,
            self._tell,
            gathers=lambda: self._gathering,
        )
        self._failing = Failing(
            cluster,
            self.fleet,
            self.placing,
            self._serving,
            self._resting,
            self._timers,
            self._tell,
            close=lambda node: self._take(NodeDraining(node, cluster.now_ns)),
        )
        self._ending = Ending(
            cluster,
            self.fleet,
            self._demand,
            self._tell,
            withdraw=lambda pod: self._failing.withdraw(pod, "ended"),
        )
        self._ticking = False
        self._busy_ns = 0
        self._later: list[NodeDraining | FunctionRetired | PodEndAsked] = []
        """What must not be acted on before it is known who holds what."""
        self._joining = Joining(
            cluster,
            self.fleet,
            self._demand,
            nodes=awaited_nodes,
            routers=awaited_routers,
            epoch=epoch,
            out=self._out,
            on_found=self._resting.settle,
            on_missing=lambda pod: self._failing.failed(cluster.pods.get(pod), "not reported"),
        )
        self._gathering = self._joining.waits

    @property
    def view(self) -> ClusterView:
        """What policies see."""
        return self._ask.view

    # -- the machine ---
    def step(self, now_ns: int, events: Sequence[SchedulerEvent]) -> Step[SchedulerCommand]:
        """Take events in, give commands out."""
        c = self.cluster
        assert now_ns >= c.now_ns, "INV-5: time went back"
        c.now_ns = now_ns
        self._take_all(events)
        if events:
            self._busy_ns = now_ns
            if not self._ticking:
                self._ticking = True
                self._timers.arm(now_ns, TICK)
        for node in self.fleet.outbox.repeat():
            self._lose(node, "never answered")
        if self._gathering and not self._joining.waits:
            self._gathered()
        deadline = None
        if not self._gathering:
            self._serving.work()
            while (deadline := self._timers.next_ns) is not None and deadline <= now_ns:
                self._fire()
                self._serving.work()
        commands, records = tuple(self._out), tuple(self.fleet.records)
        self._out.clear()
        self.fleet.records.clear()
        repeat = self.fleet.outbox.deadline_ns()
        if repeat is not None and (deadline is None or repeat < deadline):
            deadline = repeat
        return Step(records, commands, deadline)

    def _take_all(self, events: Sequence[SchedulerEvent]) -> None:
        for event in events:
            new = type(event) is FunctionDefined and self._functions.announce(
                event.function, event.spec
            )
            if not new and self._functions.enter():
                self._functions_changed()
            self._ask.observe(event)
            if not new:
                self._take(event)
        if self._functions.enter():
            self._functions_changed()

    def _take(self, event: SchedulerEvent) -> None:
        match event:
            case LeaseAsked():
                if self._demand.asked(event):
                    self._serving.look_at(event.function)
                    if event.function not in self._functions:
                        self._demand.refuse(event.function, REMOVED)
            case LeaseReturned():
                self._joining.returned(event.router, event.lease, event.pod)
                self._returned(event.router, event.lease, failed=event.failed)
            case LoadReported():
                self._demand.loaded(event)
            case RouterJoined():
                for lease in self._joining.router(event):
                    self._returned(event.router, lease, failed=False)
            case RouterLost():
                self._joining.lost_router(event.router)
                self._lose_router(event.router)
            case FunctionDefined():
                self._functions.redefine(event.function, event.spec)
                self._serving.look_at(event.function)
                self._functions_changed()
            case NodeDescribed():
                self._described(event)
            case NodeJoined():
                if self._joining.node(event):
                    self._functions.node_joined(event.node)
                    self._serving.room_came()
            case PodFound():
                pod = self._pod_of(event.node, event.pod)
                if pod is not None:
                    self._joining.settled(pod, event.state)
            case NodeDraining() | FunctionRetired() | PodEndAsked() if self._gathering:
                self._later.append(event)
            case PodEndAsked():
                self._ending.ask(event)
            case FunctionRetired():
                if self._functions.retire(event.function):
                    self._functions_changed()
            case NodeDraining():
                if self.cluster.node_schedulable[event.node]:
                    self._tell.decided("drain", NO_FUNCTION, node=event.node)
                    self.fleet.drain(event.node)
            case NodeLost():
                self._joining.lost_node(event.node)
                self._lose(event.node, "lost")
            case CommandAccepted():
                self.fleet.outbox.accepted(event.sequence)
            case CommandRefused():
                # A newer leader acts; this one's command is void and so is this one.
                self.fleet.count("commands_refused")
            case PodFailed() if event.sequence < 0:
                self._failing.failed(self._pod_of(event.node, event.pod), event.reason)
            case (
                PodReady()
                | PodSuspended()
                | PodGone()
                | PodFailed()
                | PodStuck()
                | SnapshotTaken()
                | SnapshotCopied()
                | SnapshotDropped()
            ):
                self._answer(event)
            case _:
                assert_never(event)

    def _answer(self, fact: Answer) -> None:
        if fact.epoch != self._epoch:
            return
        command = self.fleet.outbox.answered(fact)
        if command is None:
            return
        if isinstance(fact, SnapshotCopied):
            assert isinstance(command, Copy), "that alone it answers"
            self.fleet.disks.copied(command, ok=fact.ok)
            return
        if isinstance(fact, SnapshotDropped):
            assert isinstance(command, Drop), "that alone it answers"
            self.fleet.disks.dropped(command, ok=fact.ok)
            return
        assert not isinstance(command, Copy | Drop), "what remains is about pods"
        pod = self.cluster.pods.get(command.pod)
        if isinstance(fact, PodStuck):
            self._failing.stuck(command, pod, fact.reason)
            return
        if pod is None:
            self.fleet.forget_stops(command.pod)
            return  # An orphan's end.
        match fact:
            case PodReady():
                self.fleet.ready(pod, fact.phases)
                self._became_ready(pod)
            case PodSuspended():
                self.fleet.suspended(pod)
                self._resting.settle(pod)
            case PodGone():
                self.fleet.gone(pod)
            case SnapshotTaken():
                if fact.left:
                    self.fleet.taken(pod)
                else:
                    self.fleet.kept(pod)
                    self._resting.idle(pod)
            case PodFailed():
                self._failing.failed(pod, fact.reason)
            case _:
                assert_never(fact)

    def _became_ready(self, pod: Pod) -> None:
        self.placing.start_succeeded(pod.function)
        if pod.bakes and not pod.ends:
            self.fleet.bake(pod)
        else:
            self._resting.idle(pod)

    def _fire(self) -> None:
        kind, key, token, to = self._timers.take()
        if kind == HOLD:
            self._resting.held(PodId(key), token, to)
        elif kind == TICK:
            self._tick()
        else:
            self._serving.look_at(FunctionId(key))

    # -- demand and leases ---
    def _returned(self, router: RouterId, lease: LeaseId, *, failed: bool) -> None:
        pod = self._demand.returned(router, lease)
        if pod is not None:
            self._resting.returned(pod, failed=failed)

    def _lose_router(self, router: RouterId) -> None:
        # Demand first: a lease that comes back must not be granted to the one that is gone.
        for lease in self._demand.lose(router):
            self._returned(router, lease, failed=False)

    def _pod_left(self, pod: Pod) -> None:
        self._demand.pod_left(pod)
        # Its own function's requests may have counted on it, or may resume it.
        self._serving.look_at(pod.function)
        self._serving.room_came()

    def _pod_of(self, node: NodeId, pod_id: PodId) -> Pod | None:
        """Return a pod that a node may speak of: its own."""
        pod = self.cluster.pods.get(pod_id)
        return pod if pod is not None and pod.node == node else None

    # -- functions and nodes ---
    def _functions_changed(self) -> None:
        self._demand.functions_changed()
        self._control.functions_changed()
        self.view.grown()

    def _described(self, event: NodeDescribed) -> None:
        c = self.cluster
        if event.node != len(c.nodes):
            raise LocalProtocolError(f"node {event.node} is new, expected {len(c.nodes)}")
        c.add_nodes((event.spec,))
        self.view.grown()

    def _gathered(self) -> None:
        """All that were awaited are here: begin to decide."""
        self._gathering = False
        for pod in self._joining.gathered():
            self._resting.settle(pod)
        later, self._later = self._later, []
        for event in later:
            self._take(event)

    def _lose(self, node: NodeId, reason: str) -> None:
        if not self.cluster.node_alive[node]:
            return
        self._tell.decided("lose", NO_FUNCTION, node=node, reason=reason)
        hit = {pod.function: None for pod in self.cluster.pods.values() if pod.node == node}
        self.fleet.lose(node)
        for function in hit:
            self._serving.look_at(function)

    def assume_remote(self, functions: Sequence[FunctionId]) -> None:
        """Enter snapshots that the shared store holds for every platform, before the first step."""
        for function in functions:
            self.cluster.remote[:, function] = True

    def _tick(self) -> None:
        c, p = self.cluster, self._ask.policies
        if c.now_ns - self._busy_ns > p.settle_ns:
            self._ticking = False
            return
        self._timers.arm(c.now_ns + p.control_period_ns, TICK)
        self._functions.end_retired()
        self._control.run()
