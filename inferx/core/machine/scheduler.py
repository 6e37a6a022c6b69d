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
from collections.abc import Callable, Sequence
from typing import TypeVar, assert_never

import msgspec
import numpy as np
from numpy.random import Generator

from inferx.core.cluster import Cluster, Lease, Pod
from inferx.core.commands import Copy, Drop, GrantLease, SchedulerCommand
from inferx.core.errors import PolicyError
from inferx.core.events import (
    CommandAccepted,
    CommandRefused,
    LeaseAsked,
    LeaseReturned,
    LoadReported,
    NodeDraining,
    NodeJoined,
    NodeLost,
    PodFailed,
    PodGone,
    PodReady,
    PodSuspended,
    RouterLost,
    SchedulerEvent,
    SnapshotCopied,
    SnapshotDropped,
    SnapshotTaken,
)
from inferx.core.explain import Decision, DecisionSink, Explanation
from inferx.core.lifecycle import PodState
from inferx.core.machine.fleet import START_NAME, Fleet, first_id
from inferx.core.machine.proposals import (
    check_evict,
    check_move,
    check_place,
    check_retain,
    check_targets,
)
from inferx.core.machine.room import room_by_draining
from inferx.core.machine.step import Step
from inferx.core.protocols import (
    Defer,
    Demote,
    Evict,
    Observer,
    Place,
    PolicyBundle,
    Promote,
    Retain,
)
from inferx.core.types import (
    ANY_NODE,
    I32,
    NO_FUNCTION,
    FunctionId,
    FunctionSpec,
    GpuId,
    LeaseId,
    NodeId,
    NodeSpec,
    PodId,
    RouterId,
    Tier,
    Want,
)
from inferx.core.units import FOREVER_NS, MILLI_PER_GPU, NS_PER_S
from inferx.core.view import ClusterView
from inferx.core.watched import watched
from inferx.core.whynot import why_not

__all__ = ["Scheduler"]

RETRY_WANTS = 8
"""After so many wants in a row still do not fit, the rest wait for the next change."""
GRACE = 4
"""For so many patiences a pod that has become ready is not drained for others."""
FAIL_BACKOFF_NS = NS_PER_S
FAIL_BACKOFF_LIMIT = 6
"""A function whose starts fail waits 1, 2, 4, ... 64 s before the next."""

_HOLD, _TICK, _WANT = 0, 1, 2
_T = TypeVar("_T")


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
            routers: How many gateways share the pods.
            strict: Whether an impossible proposal raises; production counts it and defers.
            on_decision: Takes every decision as it is made.
            explain: Whether decisions carry their explanation.
        """
        if policies.whole_gpus:
            functions = [
                msgspec.structs.replace(spec, milli_gpu=MILLI_PER_GPU, enforcement="exclusive")
                for spec in functions
            ]
        self.cluster = Cluster(nodes, functions)
        self._p = watched(policies)
        self._rng = rng
        self._routers = routers
        self._strict = strict
        self._on_decision = on_decision
        self._explain = explain and on_decision is not None
        self._out: list[SchedulerCommand] = []
        self.fleet = Fleet(
            self.cluster,
            epoch=epoch,
            snapshots=policies.snapshots,
            out=self._out,
            on_left=self._pod_left,
        )
        self.view = ClusterView(self.cluster, snapshots=policies.snapshots)
        self._epoch = epoch
        self._leases: dict[LeaseId, Lease] = {}
        self._next_lease = first_id(epoch)
        # Demand: slots that each router lacks, requests in service there, and the latest ask.
        self._lacks: list[dict[RouterId, int]] = [{} for _ in functions]
        self._serving: list[dict[RouterId, int]] = [{} for _ in functions]
        self._asks: list[dict[RouterId, int]] = [{} for _ in functions]
        self._oldest_ns: list[int] = [FOREVER_NS] * len(functions)
        self._min_replicas = [
            (FunctionId(f), spec) for f, spec in enumerate(functions) if spec.min_replica
        ]
        self._waiting: dict[FunctionId, int] = {}
        """Functions with a want that was deferred, and since when; the longest wait comes first."""
        self._rushed_ns = -FOREVER_NS
        self._to_serve: dict[FunctionId, None] = {}
        self._capacity_came = False
        self._room = 0
        """Counts the times that room came: a deferred prewarm is not asked again before."""
        self._no_room: dict[FunctionId, int] = {}
        self._timers: list[tuple[int, int, int, int, int]] = []
        self._timer_count = 0
        self._ticking = False
        self._busy_ns = 0
        self._boots: dict[NodeId, int] = {}
        self._lost_routers: dict[RouterId, None] = {}
        self._fails: dict[FunctionId, tuple[int, int]] = {}
        """Function -> (starts failed in a row, when the next may be tried)."""

    # -- the machine ---
    def step(self, now_ns: int, events: Sequence[SchedulerEvent]) -> Step[SchedulerCommand]:
        """Take events in, give commands out."""
        c = self.cluster
        assert now_ns >= c.now_ns, "INV-5: time went back"
        c.now_ns = now_ns
        for event in events:
            for observer in self._p.observers:
                self._observe(observer, event)
            self._take(event)
        if events:
            self._busy_ns = now_ns
            if not self._ticking:
                self._ticking = True
                self._arm(now_ns, _TICK, 0, 0)
        for node in self.fleet.repeat():
            self._lose(node, "never answered")
        self._work()
        timers = self._timers
        while timers and timers[0][0] <= now_ns:
            _, _, kind, key, token = heapq.heappop(timers)
            self._fire(kind, key, token)
            self._work()
        commands, records = tuple(self._out), tuple(self.fleet.records)
        self._out.clear()
        self.fleet.records.clear()
        deadline = timers[0][0] if timers else None
        repeat = self.fleet.deadline_ns()
        if repeat is not None and (deadline is None or repeat < deadline):
            deadline = repeat
        return Step(records, commands, deadline)

    def _take(self, event: SchedulerEvent) -> None:
        match event:
            case LeaseAsked() | LoadReported() if event.router in self._lost_routers:
                pass  # Its last words; ids are never reused.
            case LeaseAsked():
                self._asked(event)
            case LeaseReturned():
                self._returned(event.lease, failed=event.failed)
            case LoadReported():
                self._load(event)
            case RouterLost():
                self._lose_router(event.router)
            case NodeJoined():
                self._joined(event)
            case NodeDraining():
                if self.cluster.node_schedulable[event.node]:
                    self._decide("drain", NO_FUNCTION, node=event.node)
                    self.fleet.drain(event.node)
            case NodeLost():
                self._lose(event.node, "lost")
            case CommandAccepted():
                self.fleet.accepted(event.sequence)
            case CommandRefused():
                # A newer leader acts; this one's command is void and so is this one.
                self.fleet.count("commands_refused")
            case PodFailed() if event.sequence < 0:
                self._failed(event.pod, event.reason)
            case (
                PodReady()
                | PodSuspended()
                | PodGone()
                | PodFailed()
                | SnapshotTaken()
                | SnapshotCopied()
                | SnapshotDropped()
            ):
                self._answer(event)
            case _:
                assert_never(event)

    def _answer(
        self,
        fact: PodReady
        | PodSuspended
        | PodGone
        | PodFailed
        | SnapshotTaken
        | SnapshotCopied
        | SnapshotDropped,
    ) -> None:
        if fact.epoch != self._epoch:
            return
        command = self.fleet.answered(fact.sequence)
        if command is None:
            return
        if isinstance(command, Copy):
            self.fleet.copied(command, ok=isinstance(fact, SnapshotCopied) and fact.ok)
            return
        if isinstance(command, Drop):
            self.fleet.dropped(command)
            return
        pod = self.cluster.pods.get(command.pod)
        if pod is None:
            return  # An orphan's end.
        match fact:
            case PodReady():
                self.fleet.ready(pod, fact.phases)
                self._became_ready(pod)
            case PodSuspended():
                self.fleet.suspended(pod)
                if self.cluster.node_schedulable[pod.node]:
                    self._retain(pod, Tier.DRAM)
                else:
                    self.fleet.sink(pod, Tier.ABSENT)
            case PodGone():
                self.fleet.gone(pod)
            case SnapshotTaken():
                if fact.left:
                    self.fleet.taken(pod)
                else:
                    self.fleet.kept(pod)
                    self._became_idle(pod)
            case PodFailed():
                self._failed(pod.id, fact.reason)
            case _:
                raise AssertionError(f"{fact} does not answer {command}")

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
        self._lost_routers[router] = None
        # Demand first: a lease that comes back must not be granted to the one that is gone.
        for f in range(len(self.cluster.functions)):
            self._lacks[f].pop(router, None)
            self._serving[f].pop(router, None)
            self._asks[f].pop(router, None)
            self._sum(FunctionId(f))
        for lease in [x for x in self._leases.values() if x.router == router]:
            self._returned(lease.id, failed=False)

    def _asked(self, event: LeaseAsked) -> None:
        function, router = event.function, event.router
        if event.sequence <= self._asks[function].get(router, 0):
            return  # Overtaken by a newer ask.
        self._asks[function][router] = event.sequence
        self._lacks[function][router] = event.slots
        self._serving[function][router] = event.inflight
        self._oldest_ns[function] = event.oldest_ns
        self._sum(function)
        self._to_serve[function] = None

    def _sum(self, function: FunctionId) -> None:
        self.cluster.fn_queued[function] = sum(self._lacks[function].values())
        self.cluster.fn_inflight[function] = sum(self._serving[function].values())

    def _load(self, event: LoadReported) -> None:
        c = self.cluster
        for function, arrivals, inside, queued in zip(
            event.functions, event.arrivals, event.concurrency_milli, event.queued, strict=True
        ):
            if arrivals:
                c.arrivals.learn(function, arrivals, c.now_ns)
            serving = self._serving[function]
            serving[event.router] = max(0, (inside + 999) // 1000 - queued)
            c.fn_inflight[function] = sum(serving.values())
            lacks = self._lacks[function]
            if lacks.get(event.router, 0) != queued:
                lacks[event.router] = queued
                c.fn_queued[function] = sum(lacks.values())

    def _serve(self, function: FunctionId) -> None:
        """Lease what is free; then start what scaling wants."""
        lacks = self._lacks[function]
        if not any(lacks.values()):
            self._waiting.pop(function, None)
            return
        for router in sorted(lacks):
            if lacks[router]:
                self._grant_to(function, router)
        c = self.cluster
        if not any(lacks.values()):
            self._waiting.pop(function, None)
            return
        if self._fails.get(function, (0, 0))[1] > c.now_ns:
            return
        target = self._ask_policy(0, lambda: self._p.scaling.target(function, self.view))
        target = min(target, c.functions[function].max_replica)
        while c.live(function) < target:
            if not self._want(function, prewarmed=False):
                self._waiting.setdefault(function, c.now_ns)
                return
        self._waiting.pop(function, None)

    def _grant_to(self, function: FunctionId, router: RouterId) -> None:
        """Lease free slots to a router: the pod used latest first, so that others may go."""
        c = self.cluster
        slots = c.functions[function].slots
        lacks = self._lacks[function]
        ready = [
            pod
            for pod in c.by_function[function].values()
            if pod.state is PodState.READY
            and pod.leased_slots < slots
            and pod.sink_to is Tier.HBM
            and c.node_schedulable[pod.node]
            and all(lease.router != router for lease in pod.leases.values())
        ]
        ready.sort(key=lambda pod: (-pod.idle_since_ns, pod.id))
        for pod in ready:
            if lacks[router] <= 0:
                return
            # Several gateways share a pod; one alone gets all of it.
            share = max(1, slots // self._routers)
            granted = min(slots - pod.leased_slots, share)
            lease = Lease(LeaseId(self._next_lease), router, pod.id, granted)
            self._next_lease += 1
            self._leases[lease.id] = lease
            cold = pod.idle_since_ns == pod.ready_ns and not pod.prewarmed
            pod.leases[lease.id] = lease
            pod.leased_slots += granted
            pod.hold += 1
            c.touch(pod)
            lacks[router] = max(0, lacks[router] - granted)
            self._sum(function)
            self._out.append(GrantLease(router, lease.id, function, pod.id, granted, cold))

    def _returned(self, lease_id: LeaseId, *, failed: bool) -> None:
        lease = self._leases.pop(lease_id, None)
        if lease is None:
            return  # Returned before, or its pod was lost.
        pod = self.cluster.pods[lease.pod]
        del pod.leases[lease_id]
        pod.leased_slots -= lease.slots
        pod.idle_since_ns = self.cluster.now_ns
        self.cluster.touch(pod)
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
        self._fails.pop(pod.function, None)
        if pod.bakes:
            self.fleet.bake(pod)
        else:
            self._became_idle(pod)

    def _became_idle(self, pod: Pod) -> None:
        """Offer a free pod to its function's requests; if none waits, decide how long it stays."""
        if not self.cluster.node_schedulable[pod.node]:
            self.fleet.sink(pod, Tier.ABSENT)
            self._to_serve[pod.function] = None
            return
        self._serve(pod.function)
        if pod.leases or pod.state is not PodState.READY or pod.sink_to is not Tier.HBM:
            return
        self._retain(pod, Tier.HBM)
        # An idle pod can be evicted: whoever waits for room may have found it.
        self._room_came()

    # -- placing ---
    def _want(
        self,
        function: FunctionId,
        *,
        prewarmed: bool,
        node: NodeId = ANY_NODE,
        bakes: bool = False,
    ) -> bool:
        """Find a place for one more pod of a function; return whether it is on its way."""
        c = self.cluster
        spec = c.functions[function]
        since = self._oldest_ns[function] if not prewarmed else FOREVER_NS
        want = Want(
            function,
            spec.gpus,
            spec.milli_gpu,
            spec.hbm_bytes,
            spec.host_bytes,
            spec.gpu_type,
            node,
            since,
        )
        broken: Place | Evict | Defer = Defer("policy error")
        placed = self._ask_policy(broken, lambda: self._place(want))
        if isinstance(placed, Place):
            why = self._explained(want)
            pod = self.fleet.start(function, placed.gpus, (), prewarmed=prewarmed, bakes=bakes)
            self._decide_start("place", pod, "", (), why)
            return True
        if bakes:
            return False  # Nobody leaves for a pod that is only to be snapshotted.
        evicted = self._ask_policy(broken, lambda: self._evict(want))
        if not isinstance(evicted, Evict):
            forced = self._patience(want)
            if forced is None:
                why = why_not(want, self.view) if self._explain else None
                reason = evicted.reason if isinstance(evicted, Defer) else ""
                self._decide("defer", function, reason=reason, explanation=why)
                return False
            evicted = forced
            self.fleet.count("forced_drains")
        victims = tuple(int(pod) for pod, _ in evicted.victims)
        self.fleet.count("evictions", len(victims))
        if evicted.gpus:
            why = why_not(want, self.view) if self._explain else None
            pod = self.fleet.start(
                function, evicted.gpus, evicted.victims, prewarmed=prewarmed, bakes=bakes
            )
            self._decide_start("evict", pod, "no room", victims, why)
            return True
        for victim, to in evicted.victims:
            self.fleet.sink(c.pods[victim], to)
        self._decide("evict", function, reason="room first", victims=victims)
        return False

    def _place(self, want: Want) -> Place | Evict | Defer:
        proposal = self._p.placement.place(want, self.view, self._rng)
        if isinstance(proposal, Place):
            check_place(want, proposal, self.cluster)
        return proposal

    def _evict(self, want: Want) -> Place | Evict | Defer:
        proposal = self._p.eviction.evict(want, self.view, self._rng)
        if isinstance(proposal, Evict):
            check_evict(want, proposal, self.cluster)
        return proposal

    def _patience(self, want: Want) -> Evict | None:
        """INV-6: a want that has waited too long gets room by draining whoever is in the way.

        Pods that have just begun to serve are spared, or a crowd of wants would drain each other
        and serve nobody. Where they are all that is in the way, the want that has waited longest is
        given their room, once a grace.
        """
        c, patience_ns = self.cluster, self._p.patience_ns
        if c.now_ns - want.since_ns < patience_ns:
            return None
        grace_ns = GRACE * patience_ns
        plan = room_by_draining(want, c, grace_ns=grace_ns)
        if plan is None and c.now_ns - self._rushed_ns >= grace_ns and self._is_next(want):
            plan = room_by_draining(want, c, grace_ns=0)
            if plan is not None:
                self._rushed_ns = c.now_ns
        return plan

    def _is_next(self, want: Want) -> bool:
        """Tell whether nobody who could ever be placed has waited longer."""
        c = self.cluster
        for function in self._waiting:
            if function == want.function:
                return True
            spec = c.functions[function]
            could = c.gpu_schedulable & c.type_mask(spec.gpu_type)
            if int((could & (c.gpu_hbm_total >= spec.hbm_bytes)).sum()) >= spec.gpus:
                return False
        return False

    def _retry(self) -> None:
        failures = 0
        for function in list(self._waiting):
            if failures >= RETRY_WANTS:
                break
            self._serve(function)
            failures += function in self._waiting

    # -- staying and leaving ---
    def _hold(self, function: FunctionId, at: Tier) -> Retain | None:
        """Ask how long a pod stays; None, where the policy fails, is for ever."""

        def ask() -> Retain:
            proposal = self._p.keep_alive.retain(function, at, self.view)
            check_retain(proposal, at)
            return proposal

        return self._ask_policy(None, ask)

    def _retain(self, pod: Pod, at: Tier) -> None:
        pod.hold += 1
        hold = self._hold(pod.function, at)
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
        self._decide("sink", pod.function, pod=pod.id, node=pod.node, reason=to.name.lower())
        self.fleet.sink(pod, to)

    def _pod_left(self, pod: Pod) -> None:
        for lease_id in [x.id for x in self._leases.values() if x.pod == pod.id]:
            del self._leases[lease_id]
        # Its own function's requests may have counted on it, or may resume it.
        self._to_serve[pod.function] = None
        self._room_came()

    def _room_came(self) -> None:
        self._room += 1
        self._capacity_came = self._capacity_came or bool(self._waiting)

    def _failed(self, pod_id: PodId, reason: str) -> None:
        pod = self.cluster.pods.get(pod_id)
        if pod is None:
            return
        if pod.state in (PodState.CREATING, PodState.RESTORING, PodState.RESUMING):
            streak = min(self._fails.get(pod.function, (0, 0))[0] + 1, FAIL_BACKOFF_LIMIT)
            again_ns = self.cluster.now_ns + (FAIL_BACKOFF_NS << (streak - 1))
            self._fails[pod.function] = (streak, again_ns)
            self._arm(again_ns, _WANT, pod.function, 0)
        self._decide("lose", pod.function, pod=pod.id, node=pod.node, reason=reason)
        self.fleet.failed(pod)
        self._to_serve[pod.function] = None

    # -- nodes ---
    def _joined(self, event: NodeJoined) -> None:
        c, node = self.cluster, event.node
        if event.boot <= self._boots.get(node, -1):
            return
        known = c.node_alive[node]
        self._boots[node] = event.boot
        if known:
            # Its agent started anew: what it does not report is gone. Snapshots first: a pod's
            # end may launch another here.
            self.fleet.found(node, event.snapshots)
            there = {pod for pod, _, _, _ in event.pods}
            for pod in self.fleet.processes(node):
                if pod not in there:
                    self._failed(pod, "not reported")
        else:
            # One that is being drained stays closed when its agent starts anew.
            c.node_alive[node] = True
            c.set_schedulable(node, yes=True)
        self.fleet.found(node, event.snapshots)
        for pod, function, suspended, gpus in event.pods:
            if pod not in c.pods:
                self.fleet.end_orphan(node, pod, function, gpus, suspended=suspended)
        self._room_came()

    def _lose(self, node: NodeId, reason: str) -> None:
        if not self.cluster.node_alive[node]:
            return
        self._decide("lose", NO_FUNCTION, node=node, reason=reason)
        hit = {pod.function: None for pod in self.cluster.pods.values() if pod.node == node}
        self.fleet.lose(node)
        self._to_serve.update(hit)

    def assume_remote(self, functions: Sequence[FunctionId]) -> None:
        """Enter snapshots that the shared store holds for every platform, before the first step."""
        for function in functions:
            self.cluster.remote[:, function] = True

    # -- the control loop ---
    def _tick(self) -> None:
        c, p = self.cluster, self._p
        if c.now_ns - self._busy_ns > p.settle_ns:
            self._ticking = False
            return
        self._arm(c.now_ns + p.control_period_ns, _TICK, 0, 0)
        for index, spec in self._min_replicas:
            self._grow(index, spec.min_replica)
        targets = self._ask_policy(None, self._targets)
        if targets is not None:
            self._scale(targets)
        empty: Sequence[Promote | Demote] = ()
        moves = self._ask_policy(empty, lambda: p.prewarm.promote(self.view, self._rng))
        for move in moves:
            self._move(move)

    def _targets(self) -> I32 | None:
        proposal = self._p.scaling.targets(self.view)
        check_targets(proposal, self.cluster)
        return proposal

    def _scale(self, targets: I32) -> None:
        c = self.cluster
        live = c.fn_ready + c.fn_starting
        for f in np.flatnonzero((targets >= 0) & (targets != live)):
            function = FunctionId(int(f))
            spec = c.functions[function]
            target = min(max(int(targets[f]), spec.min_replica), spec.max_replica)
            if self._fails.get(function, (0, 0))[1] <= c.now_ns:
                self._grow(function, target)
            surplus = c.live(function) - target
            if surplus > 0:
                self._scale_in(function, surplus)

    def _grow(self, function: FunctionId, target: int) -> None:
        """Start pods up to `target`, while there is room."""
        if self._no_room.get(function) == self._room:
            return
        while self.cluster.live(function) < target:
            if not self._want(function, prewarmed=True):
                self._no_room[function] = self._room
                return

    def _scale_in(self, function: FunctionId, surplus: int) -> None:
        """Let pods go: idle ones first, then the least leased, which are drained."""
        pods = [
            pod
            for pod in self.cluster.by_function[function].values()
            if pod.state is PodState.READY and pod.sink_to is Tier.HBM and pod.blocks < 0
        ]
        pods.sort(key=lambda pod: (pod.leased_slots, pod.idle_since_ns, pod.id))
        for pod in pods[:surplus]:
            hold = self._hold(function, Tier.HBM)
            self._decide("scale-in", function, pod=pod.id, node=pod.node)
            self.fleet.sink(pod, Tier.ABSENT if hold is None else hold.then)

    def _move(self, move: Promote | Demote) -> None:
        c = self.cluster
        try:
            check_move(move, c)
        except PolicyError:
            if self._strict:
                raise
            self.fleet.count("policy_errors")
            return
        function, node = move.function, move.node
        if isinstance(move, Demote):
            self._demote(function, node, move.tier)
            return
        spec = c.functions[function]
        done = False
        if not c.node_schedulable[node]:
            return
        if move.to is Tier.HBM:
            done = self._want(function, prewarmed=True, node=node)
        elif move.to is Tier.NVME:
            if c.remote[c.node_platform[node], function]:
                done = self.fleet.copy_in(function, node)
            elif (
                self.fleet.fits_disk((node, function))
                # It is a pod of its own: a suspended one's host memory is of no use to it.
                and c.node_host_open[node] >= spec.host_bytes
            ):
                done = self._want(function, prewarmed=True, node=node, bakes=True)
        else:
            source, _ = self.fleet.source(function, node)
            room = c.node_host_open[node] >= spec.host_bytes + spec.device_bytes
            if source in (Tier.NVME, Tier.REMOTE) and room:
                pod = self.fleet.standby(function, node, source)
                self._decide_start("promote", pod, "standby", (), None)
                return
        if done:
            self._decide("promote", function, node=node, reason=move.to.name.lower())

    def _demote(self, function: FunctionId, node: NodeId, tier: Tier) -> None:
        if tier is Tier.NVME:
            if self.fleet.drop(function, node):
                self._decide("demote", function, node=node, reason="nvme")
            return
        for pod in list(self.cluster.by_function[function].values()):
            if pod.node == node and pod.state is PodState.STANDBY and pod.blocks < 0:
                self._decide("demote", function, pod=pod.id, node=node, reason="dram")
                self.fleet.sink(pod, Tier.NVME)

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

    # -- policies and decisions ---
    def _observe(self, observer: Observer, event: SchedulerEvent) -> None:
        self._ask_policy(None, lambda: observer.observe(self.cluster.now_ns, event))

    def _ask_policy(self, instead: _T, ask: Callable[[], _T]) -> _T:
        """Ask a policy; in production, a `PolicyError` is counted and gives `instead`."""
        try:
            return ask()
        except PolicyError:
            if self._strict:
                raise
        self.fleet.count("policy_errors")
        return instead

    def _explained(self, want: Want) -> Explanation | None:
        explains = getattr(self._p.placement, "explain", None) if self._explain else None
        if explains is None:
            return None
        explanation: Explanation | None = self._ask_policy(None, lambda: explains(want, self.view))
        return explanation

    def _decide_start(
        self, kind: str, pod: Pod, reason: str, victims: tuple[int, ...], why: Explanation | None
    ) -> None:
        if self._on_decision is None:
            return
        self._decide(
            kind,
            pod.function,
            pod=pod.id,
            node=pod.node,
            gpus=pod.gpus,
            start=START_NAME[pod.start],
            reason=reason,
            victims=victims,
            explanation=why,
        )

    def _decide(
        self,
        kind: str,
        function: FunctionId,
        *,
        pod: int = -1,
        node: int = -1,
        gpus: tuple[GpuId, ...] = (),
        start: str = "",
        reason: str = "",
        victims: tuple[int, ...] = (),
        explanation: Explanation | None = None,
    ) -> None:
        if self._on_decision is not None:
            self._on_decision(
                Decision(
                    self.cluster.now_ns,
                    kind,
                    function,
                    pod,
                    node,
                    gpus,
                    start,
                    reason,
                    victims,
                    explanation,
                )
            )
