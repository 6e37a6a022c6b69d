"""Runs the kernel's machines on SimPy: routers, scheduler, agents, joined by links.

The counterpart of the asyncio driver; neither the machines nor the policies can tell. A request
costs callbacks on timers, not a process; processes are for the fault injector.
"""

import gc
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, cast

import msgspec
import numpy as np
import simpy
from simpy.events import Event

from inferx.core.commands import (
    AskLease,
    Create,
    Dispatch,
    GrantLease,
    RecallLease,
    Refuse,
    RefuseLease,
    ReportLoad,
    Restore,
    Resume,
    ReturnLease,
    RevokeLease,
    RouterCommand,
    SchedulerCommand,
)
from inferx.core.errors import DescriptionError
from inferx.core.events import (
    Fact,
    LeaseAsked,
    LeaseGranted,
    LeaseRecalled,
    LeaseRefused,
    LeaseReturned,
    LeaseRevoked,
    LoadReported,
    NodeDraining,
    NodeJoined,
    NodeLost,
    PodFailed,
    PodGone,
    PodSuspended,
    RequestArrived,
    RequestFailed,
    RequestFinished,
    RouterEvent,
    SchedulerEvent,
    SnapshotTaken,
)
from inferx.core.machine.router import Router
from inferx.core.machine.scheduler import Scheduler
from inferx.core.machine.step import Machine, Step
from inferx.core.protocols import PolicyBundle
from inferx.core.rng import stream
from inferx.core.types import FunctionId, NodeId, PodId, RequestId, RouterId
from inferx.core.units import NS_PER_S
from inferx.sim.clock import Alarm, SimClock
from inferx.sim.decisions import DecisionLog
from inferx.sim.device import Link as DeviceLink
from inferx.sim.device import NodeDevices
from inferx.sim.faults import SPOT_NOTICE_S, Fault
from inferx.sim.ledger import Ledger
from inferx.sim.link import Link
from inferx.sim.node import Pods, SimNode, Wrap
from inferx.sim.record import Outcome, RunRecord
from inferx.sim.requests import RequestRows
from inferx.sim.serving import ServingModel
from inferx.sim.workload.trace import Trace
from inferx.sim.world import World
from inferx.spec.serving import serving_for

__all__ = ["Simulation", "simulate"]

DRAIN_LIMIT_NS = 3600 * NS_PER_S
"""How long after the last arrival a run may go on; what is not done then is unfinished."""
PROGRESS_EVERY = 2_000
_FINISHED = int(Outcome.FINISHED)


def _as_it_is(_name: str, machine: Machine[Any, Any]) -> Machine[Any, Any]:
    return machine


class Simulation:
    """One run: one trace, one policy, one seed."""

    def __init__(
        self,
        world: World,
        policies: PolicyBundle,
        *,
        seed: int,
        explain: bool = False,
        strict: bool = True,
        on_progress: Callable[[int, int], None] | None = None,
        wrap: Wrap = _as_it_is,
    ) -> None:
        """Put the machines together.

        Args:
            world: Everything but the trace, the policy and the seed.
            policies: A fresh bundle.
            seed: Of every stream of the run.
            explain: Whether decisions carry their explanation.
            strict: Whether an impossible proposal raises.
            on_progress: Told the requests that have arrived, and when.
            wrap: Takes each machine, named `scheduler`, `router/N` or `agent/NODE/BOOT`, and
                returns what is to be stepped in its stead: a journal is kept so.
        """
        self._world = world
        self._policies = policies
        self._seed = seed
        self._on_progress = on_progress
        self.clock = clock = SimClock()
        self._env = clock.env
        self._router_count = world.routers
        self.decisions = DecisionLog()
        self._pods: Pods = {}
        self.scheduler = Scheduler(
            world.nodes,
            world.functions,
            policies,
            stream(seed, "policy.scheduler"),
            routers=world.routers,
            strict=strict,
            on_decision=self.decisions.take,
            explain=explain,
        )
        self._step_scheduler = wrap("scheduler", self.scheduler).step
        # As the policy slices them: a bundle of whole GPUs charges whole GPUs.
        self._functions = self.scheduler.cluster.functions
        self._ledger = Ledger(self._functions, self.scheduler.cluster.gpu_count, world.merge_ns)
        self._scheduler_clock = Alarm(clock, lambda: self._tell_scheduler(()))
        self._serving: dict[tuple[FunctionId, str], ServingModel | None] = {}
        self._no_speed = ""
        link_rng = stream(seed, "sim.link")

        def to_scheduler(event: SchedulerEvent) -> None:
            self._tell_scheduler((event,))

        self._to_scheduler = Link(clock, world.link, link_rng, to_scheduler, reliable=True)
        self._facts: Link[Fact] = Link(clock, world.link, link_rng, self._fact, reliable=False)
        networks = sum(node.links.network for node in world.nodes)
        store = DeviceLink("object-store", world.object_store_bytes_per_s or max(1, networks))
        device_rng = stream(seed, "sim.device")
        self.nodes: list[SimNode] = []
        first_gpu = 0
        for index, spec in enumerate(world.nodes):
            self.nodes.append(
                SimNode(
                    clock,
                    NodeId(index),
                    first_gpu,
                    NodeDevices(clock, spec, store),
                    functions=self._functions,
                    profile=world.profile,
                    serving=self._speed,
                    ledger=self._ledger,
                    pods=self._pods,
                    rng=device_rng,
                    start_failures=world.faults.start_failures,
                    wrap=wrap,
                    tell=self._facts.send,
                    on_first=self._first,
                    on_finished=self._finished,
                    on_aborted=self._aborted,
                )
            )
            first_gpu += spec.gpus
        self._to_nodes = [
            Link(clock, world.link, link_rng, node.receive, reliable=False) for node in self.nodes
        ]
        self.routers: list[Router] = []
        self._step_routers: list[Callable[..., Step[RouterCommand]]] = []
        self._router_clocks: list[Alarm] = []
        self._to_routers: list[Link[RouterEvent]] = []
        for index in range(world.routers):
            router = Router(
                RouterId(index),
                self._functions,
                policies,
                stream(seed, f"policy.router/{index}"),
                strict=strict,
            )
            self.routers.append(router)
            self._step_routers.append(wrap(f"router/{index}", router).step)

            def tick(index: int = index) -> None:
                self._tell_router(index, ())

            def to_router(event: RouterEvent, index: int = index) -> None:
                self._tell_router(index, (event,))

            self._router_clocks.append(Alarm(clock, tick))
            self._to_routers.append(Link(clock, world.link, link_rng, to_router, reliable=True))
        self._stop = simpy.Event(clock.env)
        self._requests = rows = RequestRows()
        self._input, self._output, self._duration = rows.input, rows.output, rows.duration
        self._arrived, self._started, self._pod = rows.arrived, rows.started, rows.pod
        self._first_ns, self._finished_ns = rows.first, rows.finished
        self._outcome, self._cause = rows.outcome, rows.cause
        self._refusals: dict[int, tuple[int, str]] = {}
        self._ended = 0
        self._exhausted = False

    # -- workload ---
    def run(self, chunks: Iterable[Trace]) -> RunRecord:
        """Replay a trace and return its record."""
        clock = self.clock
        world = self._world
        everything = tuple(FunctionId(f) for f in range(len(world.functions)))
        # Where nothing can be restored, there are no snapshots.
        prepared = world.prepared if world.profile.offers("restore") else "none"
        if prepared in ("remote", "nvme"):
            self.scheduler.assume_remote(everything)
        here = everything if prepared == "nvme" else ()
        for node in self.nodes:
            node.stock(here)
        self._tell_scheduler(tuple(NodeJoined(node.id, 0, (), here) for node in self.nodes))
        for fault in world.faults.fault:
            clock.env.process(self._inject(fault))
        arrivals = self._arrivals(iter(chunks))
        enabled = gc.isenabled()
        gc.collect()
        gc.disable()
        try:
            if next(arrivals, None) is not None:
                self._arrive = arrivals
                clock.env.run(until=self._stop)
        finally:
            if enabled:
                gc.enable()
        return self._record()

    def _arrivals(self, chunks: Iterator[Trace]) -> Iterator[int]:
        """Take in the requests of one instant each time; yield when the timer for it is armed."""
        clock = self.clock
        routers = self._router_count
        now = 0
        waiting: list[list[RouterEvent]] = [[] for _ in range(routers)]
        first, alone = waiting[0], routers == 1
        resume, tell = self._resume, self._tell_router
        for chunk in chunks:
            count = len(chunk)
            base = len(self._arrived)
            self._requests.extend(chunk)
            # A NewType is a call at run time: ids are cast by the column, not one by one.
            rows = zip(
                cast("Iterable[RequestId]", range(base, base + count)),
                chunk.arrival_ns.tolist(),
                cast("list[FunctionId]", chunk.function.tolist()),
                chunk.input_tokens.tolist(),
                chunk.tenant.tolist(),
                chunk.priority.tolist(),
                strict=True,
            )
            for request, at, function, tokens, tenant, priority in rows:
                if at != now or request == 0:
                    if request:
                        if alone:
                            tell(0, tuple(first))
                            first.clear()
                        else:
                            self._flush(waiting)
                        if self._on_progress is not None and request % PROGRESS_EVERY == 0:
                            self._on_progress(request, now)
                    clock.after(at - now, resume)
                    yield at
                    now = at
                (first if alone else waiting[request % routers]).append(
                    RequestArrived(request, function, tokens, tenant, priority)  # pyright: ignore[reportArgumentType]  # a row is its id
                )
        self._exhausted = True
        self._flush(waiting)
        clock.after(DRAIN_LIMIT_NS, self._give_up)
        self._done_yet()

    def _resume(self) -> None:
        next(self._arrive, None)

    def _flush(self, waiting: list[list[RouterEvent]]) -> None:
        for index, events in enumerate(waiting):
            if events:
                self._tell_router(index, tuple(events))
                events.clear()

    def _give_up(self) -> None:
        if not self._stop.triggered:
            self._stop.succeed()

    def _done_yet(self) -> None:
        if self._exhausted and self._ended == len(self._arrived) and not self._stop.triggered:
            self._stop.succeed()

    # -- routers ---
    def _tell_router(self, index: int, events: tuple[RouterEvent, ...]) -> None:
        now: int = self._env._now  # type: ignore[assignment]  # noqa: SLF001
        step = self._step_routers[index](now, events)
        for command in step.commands:
            if type(command) is Dispatch:
                self._dispatch(now, command.request, command.pod)
            else:
                self._routed(command)
        deadline = step.deadline_ns
        if deadline is not None:
            alarm = self._router_clocks[index]
            if alarm.armed_ns < 0 or deadline < alarm.armed_ns:
                alarm.arm(deadline)

    def _dispatch(self, now: int, request: RequestId, pod_id: PodId) -> None:
        self._started[request] = now
        self._pod[request] = pod_id
        pod = self._pods.get(pod_id)
        if pod is None:
            # The pod died, and the news is on its way to the router.
            self._abort(request)
            index = request % self._router_count
            self.clock.after(0, lambda: self._tell_router(index, (RequestFailed(request, pod_id),)))
            return
        if self._arrived[request] < pod.ready_ns:
            self._cause[request] = pod.cause
        server = pod.server
        if not server.inflight:
            self._ledger.works(now, pod_id)
        output_tokens = self._output[request]
        if not output_tokens:
            self._first_ns[request] = now
        elif not pod.serves_tokens:
            raise DescriptionError(self._no_speed)
        server.admit(request, self._input[request], output_tokens, self._duration[request])

    def _routed(self, command: RouterCommand) -> None:
        match command:
            case Refuse():
                self._outcome[command.request] = Outcome.REFUSED
                self._refusals[command.request] = (self.clock.now_ns(), command.reason)
                self._ended += 1
                self._done_yet()
            case AskLease():
                self._to_scheduler.send(LeaseAsked(*msgspec.structs.astuple(command)))
            case ReturnLease():
                self._to_scheduler.send(LeaseReturned(*msgspec.structs.astuple(command)))
            case ReportLoad():
                self._to_scheduler.send(LoadReported(*msgspec.structs.astuple(command)))
            case _:
                raise AssertionError(command)

    # -- pods ---
    # Hot, as are `_tell_router` and `_dispatch`: the instant is read without a call, and what a
    # NewType or a cast would say is left unsaid, for both are calls at run time.
    def _first(self, request: int) -> None:
        self._first_ns[request] = self._env._now  # type: ignore[assignment]  # noqa: SLF001

    def _finished(self, request: int) -> None:
        now: int = self._env._now  # type: ignore[assignment]  # noqa: SLF001
        self._finished_ns[request] = now
        self._outcome[request] = _FINISHED
        self._ended += 1
        pod_id: PodId = self._pod[request]  # type: ignore[assignment]
        if not self._pods[pod_id].server.inflight:
            self._ledger.rests(now, pod_id)
        ended = RequestFinished(request, pod_id, self._output[request])  # type: ignore[arg-type]
        self._tell_router(request % self._router_count, (ended,))
        if self._exhausted:
            self._done_yet()

    def _aborted(self, pod: PodId, requests: list[int]) -> None:
        for request in requests:
            self._abort(request)
            index = request % self._router_count
            self._tell_router(index, (RequestFailed(RequestId(request), pod),))

    def _abort(self, request: int) -> None:
        self._outcome[request] = Outcome.ABORTED
        self._ended += 1
        self._done_yet()

    def _speed(self, function: FunctionId, gpu_type: str) -> ServingModel | None:
        key = (function, gpu_type)
        if key not in self._serving:
            spec = self._functions[function]
            try:
                measured = self._world.profile.speed(spec.name)
                self._serving[key] = measured or serving_for(spec, gpu_type)
            except DescriptionError as error:
                # Plain requests carry their durations and need no speed.
                self._serving[key] = None
                self._no_speed = str(error)
        return self._serving[key]

    # -- scheduler ---
    def _tell_scheduler(self, events: tuple[SchedulerEvent, ...]) -> None:
        now = self.clock.now_ns()
        step = self._step_scheduler(now, events)
        for command in step.commands:
            self._ordered(now, command)
        self._scheduler_clock.arm(step.deadline_ns)

    def _ordered(self, now: int, command: SchedulerCommand) -> None:
        match command:
            case GrantLease(router, lease, function, pod, slots, cold):
                self._to_routers[router].send(LeaseGranted(lease, function, pod, slots, cold))
            case RevokeLease(router, lease, pod):
                self._to_routers[router].send(LeaseRevoked(lease, pod))
            case RecallLease(router, lease, pod):
                self._to_routers[router].send(LeaseRecalled(lease, pod))
            case RefuseLease(router, function, reason):
                self._to_routers[router].send(LeaseRefused(function, reason))
            case _:
                if isinstance(command, Create | Restore | Resume):
                    self._ledger.charge(now, command.pod, command.function, command.gpus)
                self._to_nodes[command.node].send(command)

    def _fact(self, fact: Fact) -> None:
        now = self.clock.now_ns()
        if isinstance(fact, PodGone | PodFailed | PodSuspended) or (
            isinstance(fact, SnapshotTaken) and fact.left
        ):
            self._ledger.release(now, fact.pod)
        self._tell_scheduler((fact,))

    # -- faults ---
    def _inject(self, fault: Fault) -> Generator[Event, None, None]:
        env = self.clock.env
        index = next(i for i, n in enumerate(self._world.nodes) if n.name == fault.node)
        node = self.nodes[index]
        at_ns = int(fault.at_s * NS_PER_S)
        notice_ns = int(SPOT_NOTICE_S * NS_PER_S) if fault.kind == "spot" else 0
        yield env.timeout(max(0, at_ns - notice_ns))
        if notice_ns:
            self._to_scheduler.send(NodeDraining(node.id, at_ns))
            yield env.timeout(min(at_ns, notice_ns))
        node.lose()
        yield env.timeout(self._world.detect_ns)
        for pod in [p.id for p in self.scheduler.cluster.pods.values() if p.node == node.id]:
            self._ledger.release(self.clock.now_ns(), pod)
        self._tell_scheduler((NodeLost(node.id),))
        if fault.back_after_s:
            yield env.timeout(int(fault.back_after_s * NS_PER_S))
            node.rejoin()
            self._tell_scheduler((NodeJoined(node.id, node.boot),))

    # -- the end ---
    def _record(self) -> RunRecord:
        now = self.clock.now_ns()
        self._ledger.finish(now)
        busy = [ns for node in self.nodes for ns in node.busy_ns()]
        counters = dict(sorted(self.scheduler.fleet.counters.items()))
        for router in self.routers:
            for name in ("arrived", "finished", "refused", "failed"):
                key = f"router_{name}"
                counters[key] = counters.get(key, 0) + getattr(router, name)
        moved: dict[str, int] = {}
        for node in self.nodes:
            for kind, amount in node.devices.moved_bytes().items():
                moved[kind] = moved.get(kind, 0) + amount
        return RunRecord(
            policy=self._policies.name,
            seed=self._seed,
            span_ns=now,
            nodes=self._world.nodes,
            functions=self._functions,
            requests=self._requests.columns(),
            refusals=self._refusals,
            decisions=self.decisions.rows,
            spans=self._ledger.spans,
            gpu_busy_ns=np.array(busy, np.int64),
            gpu_allocated_milli_ns=self._ledger.milli_ns,
            gpu_resident_byte_ns=self._ledger.byte_ns,
            link_bytes=moved,
            counters=counters,
        )


def simulate(
    world: World,
    chunks: Iterable[Trace],
    policies: PolicyBundle,
    *,
    seed: int,
    explain: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> RunRecord:
    """Replay `chunks` of a trace in `world` under fresh `policies`; same input, same record."""
    run = Simulation(world, policies, seed=seed, explain=explain, on_progress=on_progress)
    return run.run(chunks)
