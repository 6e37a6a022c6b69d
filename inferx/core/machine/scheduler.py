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

import heapq
from collections.abc import Sequence
from typing import assert_never

from numpy.random import Generator

from inferx.core.cluster import Cluster
from inferx.core.commands import REMOVED, Copy, Drop, PodCommand, SchedulerCommand
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
from inferx.core.lifecycle import PodState
from inferx.core.machine.answers import Answer
from inferx.core.machine.asking import Asking
from inferx.core.machine.chronicle import Chronicle
from inferx.core.machine.control import Control
from inferx.core.machine.demand import Demand
from inferx.core.machine.ending import Ending
from inferx.core.machine.fleet import Fleet, first_id
from inferx.core.machine.functions import Functions, as_sliced
from inferx.core.machine.joining import Joining
from inferx.core.machine.placing import EVERY, Placing
from inferx.core.machine.step import Step
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
    Tier,
)
from inferx.core.units import FOREVER_NS
from inferx.core.view import ClusterView

__all__ = ["Scheduler"]

RETRY_WANTS = 8
"""After so many wants in a row still do not fit, the rest wait for the next change."""

_HOLD, _TICK, _WANT = 0, 1, 2


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
        self._functions = Functions(
            cluster, self.fleet, self._demand, self.placing, self._tell, whole_gpus=whole_gpus
        )
        self._control = Control(
            cluster, self.fleet, self._ask, self.placing, self._tell, lambda: self._room
        )
        self._ending = Ending(
            cluster,
            self.fleet,
            self._demand,
            self._tell,
            withdraw=lambda pod: self._withdraw(pod, "ended"),
        )
        self._to_serve: dict[FunctionId, None] = {}
        self._capacity_came = False
        self._room = 0
        """Counts the times that room came."""
        self._timers: list[tuple[int, int, int, int, int]] = []
        self._timer_count = 0
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
            out=self._out,
            on_found=self._at_rest,
            on_missing=lambda pod: self._failed(self.cluster.pods.get(pod), "not reported"),
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
                self._arm(now_ns, _TICK, 0, 0)
        for node in self.fleet.outbox.repeat():
            self._lose(node, "never answered")
        if self._gathering and not self._joining.waits:
            self._gathered()
        timers = self._timers
        if not self._gathering:
            self._work()
            while timers and timers[0][0] <= now_ns:
                _, _, kind, key, token = heapq.heappop(timers)
                self._fire(kind, key, token)
                self._work()
        commands, records = tuple(self._out), tuple(self.fleet.records)
        self._out.clear()
        self.fleet.records.clear()
        deadline = timers[0][0] if timers and not self._gathering else None
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
                    self._to_serve[event.function] = None
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
                self._to_serve[event.function] = None
                self._functions_changed()
            case NodeDescribed():
                self._described(event)
            case NodeJoined():
                if self._joining.node(event):
                    self._functions.node_joined(event.node)
                    self._room_came()
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
                self._failed(self._pod_of(event.node, event.pod), event.reason)
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
            self._stuck(command, pod, fact.reason)
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
                self._at_rest(pod)
            case PodGone():
                self.fleet.gone(pod)
            case SnapshotTaken():
                if fact.left:
                    self.fleet.taken(pod)
                else:
                    self.fleet.kept(pod)
                    self._became_idle(pod)
            case PodFailed():
                self._failed(pod, fact.reason)
            case _:
                assert_never(fact)

    def _work(self) -> None:
        """Serve whom the events concern; then, if room came, those who wait for it."""
        while self._to_serve or self._capacity_came:
            while self._to_serve:
                function = next(iter(self._to_serve))
                del self._to_serve[function]
                self._serve(function)
            if self._capacity_came:
                self._capacity_came = False
                self._retry()

    # -- demand and leases ---
    def _lose_router(self, router: RouterId) -> None:
        # Demand first: a lease that comes back must not be granted to the one that is gone.
        for lease in self._demand.lose(router):
            self._returned(router, lease, failed=False)

    def _serve(self, function: FunctionId, *, at_most: int = EVERY) -> None:
        """Lease what is free; then start what scaling wants, no more than `at_most` pods."""
        demand, placing = self._demand, self.placing
        if demand.unmet(function):
            demand.grant(function)
        if not demand.unmet(function):
            placing.waiting.pop(function, None)
        elif not placing.backs_off(function):
            target = self._ask.target(function)
            target = min(target, self.cluster.functions[function].max_replica)
            placing.reach(function, target, at_most=at_most)

    def _returned(self, router: RouterId, lease_id: LeaseId, *, failed: bool) -> None:
        pod = self._demand.returned(router, lease_id)
        if pod is None:
            return
        if pod.leases:
            # Another gateway may lack the slots that came back.
            self._to_serve[pod.function] = None
            return
        if pod.state is PodState.DRAINING:
            self.fleet.drained(pod)
            return
        assert pod.state is PodState.READY, "INV-4: a leased pod is ready or drains"
        if failed:
            self.fleet.sink(pod, Tier.ABSENT)
        else:
            self._became_idle(pod)

    def _became_ready(self, pod: Pod) -> None:
        self.placing.start_succeeded(pod.function)
        if pod.bakes and not pod.ends:
            self.fleet.bake(pod)
        else:
            self._became_idle(pod)

    def _at_rest(self, pod: Pod) -> None:
        """Decide about a pod that is ready or suspended."""
        if pod.leases:
            return
        if pod.state is PodState.READY:
            self._became_idle(pod)
        elif self._stays(pod):
            self._retain(pod, Tier.DRAM)
        else:
            self.fleet.sink(pod, Tier.ABSENT)

    def _stays(self, pod: Pod) -> bool:
        open_here = bool(self.cluster.node_schedulable[pod.node]) and not pod.ends
        return open_here and pod.function in self._functions

    def _became_idle(self, pod: Pod) -> None:
        """Offer a free pod to its function's requests; if none waits, decide how long it stays."""
        if self._gathering:
            return
        if not self._stays(pod):
            self.fleet.sink(pod, Tier.ABSENT)
            self._to_serve[pod.function] = None
            return
        self._serve(pod.function)
        if pod.leases or pod.state is not PodState.READY or pod.sink_to is not Tier.HBM:
            return
        self._retain(pod, Tier.HBM)
        # An idle pod can be evicted: whoever waits for room may have found it.
        self._room_came()

    def _retry(self) -> None:
        if self._ask.policies.queueing is not None:
            self._retry_by_turns()
            return
        failures, waiting = 0, self.placing.waiting
        for function in list(waiting):
            if failures >= RETRY_WANTS:
                break
            self._serve(function)
            failures += function in waiting

    def _retry_by_turns(self) -> None:
        """Let those who wait try as the queue policy says: a pod each time it is their turn."""
        failures, waiting, live = 0, self.placing.waiting, self.cluster.live
        wants = self.placing.wants()
        while wants and failures < RETRY_WANTS:
            at = self._ask.next_want(wants)
            function = wants[at].function
            before = live(function)
            self._serve(function, at_most=1)
            if function not in waiting:
                del wants[at]
            elif live(function) <= before:
                failures += 1
                del wants[at]

    # -- staying and leaving ---
    def _retain(self, pod: Pod, at: Tier) -> None:
        pod.hold += 1
        hold = self._ask.retain(pod.function, at)
        if hold is not None and hold.hold_ns < FOREVER_NS:
            due_ns = self.cluster.now_ns + hold.hold_ns
            self._arm(due_ns, _HOLD, pod.id, pod.hold, hold.then)

    def _held(self, pod_id: PodId, token: int, to: Tier) -> None:
        pod = self.cluster.pods.get(pod_id)
        if pod is None or pod.hold != token or pod.leases:
            return
        if pod.state not in (PodState.READY, PodState.STANDBY) or pod.blocks >= 0:
            return
        spec = self.cluster.functions[pod.function]
        if pod.state is PodState.READY and self.cluster.live(pod.function) <= spec.min_replica:
            return
        self._tell.decided("sink", pod.function, pod=pod.id, node=pod.node, reason=to.name.lower())
        self.fleet.sink(pod, to)

    def _pod_left(self, pod: Pod) -> None:
        self._demand.pod_left(pod)
        # Its own function's requests may have counted on it, or may resume it.
        self._to_serve[pod.function] = None
        self._room_came()

    def _room_came(self) -> None:
        self._room += 1
        self._capacity_came = self._capacity_came or bool(self.placing.waiting)

    def _pod_of(self, node: NodeId, pod_id: PodId) -> Pod | None:
        """Return a pod that a node may speak of: its own."""
        pod = self.cluster.pods.get(pod_id)
        return pod if pod is not None and pod.node == node else None

    def _failed(self, pod: Pod | None, reason: str) -> None:
        if pod is None:
            return
        self._back_off(pod)
        self._tell.decided("lose", pod.function, pod=pod.id, node=pod.node, reason=reason)
        self.fleet.failed(pod)
        self._to_serve[pod.function] = None

    def _back_off(self, pod: Pod) -> None:
        """Wait before the next start of a function whose pod did not come up."""
        starting = pod.state in (PodState.CREATING, PodState.RESTORING, PodState.RESUMING)
        if starting and pod.gpus:  # Nobody's requests waited for one without GPUs.
            self._arm(self.placing.start_failed(pod.function), _WANT, pod.function, 0)

    def _stuck(self, command: PodCommand, pod: Pod | None, reason: str) -> None:
        """Have a pod that could not be ended stopped again; give its node up if that is no use."""
        function, node = command.function, command.node
        if pod is not None:
            self._back_off(pod)
            blocked = self.cluster.pods.get(pod.blocks)
            if blocked is not None:
                self._withdraw(blocked, "victim is stuck")
            self._to_serve[function] = None
        self._tell.decided("stuck", function, pod=command.pod, node=node, reason=reason)
        if self.fleet.stuck(command):
            return
        for waiting in list(self.cluster.pods.values()):
            if waiting.node == node and waiting.claims:
                self._withdraw(waiting, "victim is stuck")
        if self.cluster.node_schedulable[node]:
            self.fleet.count("nodes_unhealthy")
            self._take(NodeDraining(node, self.cluster.now_ns))

    def _withdraw(self, waiting: Pod, reason: str) -> None:
        """Give a start up that waits for others to leave, and decide anew."""
        self._to_serve[waiting.function] = None
        if waiting.start is Tier.DRAM:
            self.fleet.withdraw(waiting)
            self._at_rest(waiting)
        else:
            self._failed(waiting, reason)

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
            self._at_rest(pod)
        later, self._later = self._later, []
        for event in later:
            self._take(event)

    def _lose(self, node: NodeId, reason: str) -> None:
        if not self.cluster.node_alive[node]:
            return
        self._tell.decided("lose", NO_FUNCTION, node=node, reason=reason)
        hit = {pod.function: None for pod in self.cluster.pods.values() if pod.node == node}
        self.fleet.lose(node)
        self._to_serve.update(hit)

    def assume_remote(self, functions: Sequence[FunctionId]) -> None:
        """Enter snapshots that the shared store holds for every platform, before the first step."""
        for function in functions:
            self.cluster.remote[:, function] = True

    def _tick(self) -> None:
        c, p = self.cluster, self._ask.policies
        if c.now_ns - self._busy_ns > p.settle_ns:
            self._ticking = False
            return
        self._arm(c.now_ns + p.control_period_ns, _TICK, 0, 0)
        self._functions.end_retired()
        self._control.run()

    # -- timers ---
    def _arm(self, at_ns: int, kind: int, key: int, token: int, to: int = 0) -> None:
        self._timer_count += 1
        # The tier rides in the token: timers hold plain integers.
        packed = token * len(Tier) + to
        heapq.heappush(self._timers, (at_ns, self._timer_count, kind, key, packed))

    def _fire(self, kind: int, key: int, packed: int) -> None:
        if kind == _HOLD:
            token, to = divmod(packed, len(Tier))
            self._held(PodId(key), token, Tier(to))
        elif kind == _TICK:
            self._tick()
        else:
            self._to_serve[FunctionId(key)] = None
