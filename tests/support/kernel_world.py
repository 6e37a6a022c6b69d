"""The kernel's machines in a world of the test's own, one message and one action at a time.

Every message, device action and request in service is a thing that lies about until somebody moves
it: `World.run` moves all of them by their due times, a hypothesis rule moves any of them in any
order. The world knows what is really there (`Body`, disks, the shared store), apart from what the
machines believe, and asserts the invariants against it.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from inferx.core.cluster import Cluster
from inferx.core.commands import (
    AskLease,
    Copy,
    Create,
    Dispatch,
    Drop,
    GrantLease,
    Join,
    NodeCommand,
    Perform,
    RecallLease,
    Refuse,
    RefuseLease,
    ReportLeases,
    ReportLoad,
    Restore,
    Resume,
    ReturnLease,
    RevokeLease,
    Snapshot,
    Stop,
    Suspend,
)
from inferx.core.events import (
    CommandAccepted,
    CommandRefused,
    FoundPod,
    FunctionDefined,
    FunctionRetired,
    LeaderChanged,
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
    Performed,
    PodEndAsked,
    PodFailed,
    PodFound,
    PodGone,
    PodReady,
    PodStuck,
    PodSuspended,
    RequestArrived,
    RequestCancelled,
    RequestFailed,
    RequestFinished,
    RouterJoined,
    RouterLost,
    SnapshotCopied,
    SnapshotDropped,
    SnapshotTaken,
)
from inferx.core.explain import Decision
from inferx.core.lifecycle import PodState
from inferx.core.machine.agent import Agent
from inferx.core.machine.router import Router
from inferx.core.machine.scheduler import Scheduler
from inferx.core.protocols import PolicyBundle
from inferx.core.rng import stream
from inferx.core.types import (
    ANY_NODE,
    NO_FUNCTION,
    FunctionId,
    FunctionSpec,
    Links,
    NodeId,
    NodeSpec,
    PodId,
    RequestId,
    RouterId,
    Tier,
    Want,
)
from inferx.core.units import GIB, MILLI_PER_GPU, NS_PER_MS, NS_PER_S

DELAY_NS = NS_PER_MS
SERVICE_NS = 2 * NS_PER_S
DURATION_NS: dict[type, int] = {
    Create: 12 * NS_PER_S,
    Restore: 4 * NS_PER_S,
    Resume: NS_PER_S,
    Suspend: NS_PER_S,
    Snapshot: 3 * NS_PER_S,
    Stop: NS_PER_S // 2,
    Copy: 5 * NS_PER_S,
    Drop: NS_PER_S // 10,
}
FOUND = {"suspended": "suspended", "serving": "ready", "leaving": "stuck"}
TOLD_AS = {AskLease: LeaseAsked, ReturnLease: LeaseReturned, ReportLoad: LoadReported}
NODE_FACTS = (
    PodReady
    | PodSuspended
    | PodGone
    | PodFailed
    | PodFound
    | PodStuck
    | SnapshotTaken
    | SnapshotCopied
    | SnapshotDropped
    | CommandAccepted
    | CommandRefused
)
STEPS_PER_INSTANT = 500
"""More steps at one instant than any honest burst takes: a timer spins."""


def node(name: str = "a-0", **more: object) -> NodeSpec:
    """A node of two GPUs of 80 GiB."""
    base = NodeSpec(
        name=name,
        group="a",
        zone="z",
        instance_type="a",
        gpu_type="A",
        platform="A/1",
        gpus=2,
        hbm_bytes=80 * GIB,
        host_bytes=100 * GIB,
        nvme_bytes=150 * GIB,
        links=Links(
            pcie_gpu=20 * GIB,
            pcie_root=0,
            dram=50 * GIB,
            nvme_read=4 * GIB,
            nvme_write=2 * GIB,
            ebs=0,
            network=2 * GIB,
        ),
    )
    return msgspec.structs.replace(base, **more)


def function(name: str = "f", **more: object) -> FunctionSpec:
    """A function of a quarter of a GPU, two slots."""
    base = FunctionSpec(
        name=name,
        milli_gpu=250,
        hbm_bytes=20 * GIB,
        device_bytes=12 * GIB,
        host_bytes=4 * GIB,
        weight_bytes=10 * GIB,
        slots=2,
        queue_len=6,
        max_replica=2,
    )
    return msgspec.structs.replace(base, **more)


NODES = (
    node("a-0"),
    node("a-1", nvme_bytes=70 * GIB, host_bytes=60 * GIB),
    node("b-0", group="b", gpu_type="B", platform="B/1", gpus=1, host_bytes=40 * GIB),
)
FUNCTIONS = (
    function("small"),
    function("large", milli_gpu=1000, hbm_bytes=70 * GIB, device_bytes=40 * GIB, slots=1),
    function("pair", gpus=2, milli_gpu=600, hbm_bytes=50 * GIB, device_bytes=30 * GIB),
    function("kept", min_replica=1, max_replica=3, slots=1),
    function("only-b", gpu_type="B", hbm_bytes=40 * GIB, milli_gpu=500),
    function("half", milli_gpu=500, hbm_bytes=40 * GIB, device_bytes=30 * GIB, max_replica=4),
)


def want_of(c: Cluster, f: int, *, at: int = ANY_NODE) -> Want:
    """A want for one pod of a function, as the scheduler makes it."""
    spec = c.functions[f]
    return Want(
        FunctionId(f),
        spec.gpus,
        spec.milli_gpu,
        spec.hbm_bytes,
        spec.host_bytes,
        spec.gpu_type,
        NodeId(at),
    )


@dataclass
class Body:
    """A pod as it really is."""

    pod: PodId
    function: FunctionId
    node: int
    gpus: tuple[int, ...]
    doing: str
    boot: int
    requests: dict[RequestId, int] = field(default_factory=dict)


@dataclass
class Message:
    """Something on its way: to the scheduler, a router or a node."""

    to: str
    index: int
    payload: object
    lossy: bool
    due_ns: int
    order: int


@dataclass
class Action:
    """A device action that goes on."""

    node: int
    perform: Perform
    due_ns: int
    order: int


class World:
    """Machines, messages, actions, and the truth. `log` holds a transcript."""

    def __init__(
        self,
        bundle: PolicyBundle,
        *,
        nodes: Sequence[NodeSpec] = NODES,
        functions: Sequence[FunctionSpec] = FUNCTIONS,
        routers: int = 1,
        seed: int = 1,
        strict: bool = True,
        remote: bool = True,
        on_disk: Sequence[int] = (),
        explain: bool = False,
    ) -> None:
        self._pristine = copy.deepcopy(bundle)
        self.bundles = [bundle]
        """One for each leader: policies learn."""
        self._strict, self._seed = strict, seed
        self.epoch = 1
        self.nodes = tuple(nodes)
        self.decisions: list[Decision] = []
        self.log: list[str] = []
        self.now_ns = 0
        self.scheduler = Scheduler(
            nodes,
            functions,
            bundle,
            stream(seed, "policy.scheduler"),
            routers=routers,
            strict=strict,
            on_decision=self.decisions.append,
            explain=explain,
        )
        self.cluster = self.scheduler.cluster
        self.functions = self.cluster.functions
        self.routers = [
            Router(RouterId(r), self.functions, bundle, stream(seed, f"router/{r}"), strict=strict)
            for r in range(routers)
        ]
        self.router_alive = [True] * routers
        self.agents = [Agent(NodeId(n)) for n in range(len(nodes))]
        self.node_alive = [True] * len(nodes)
        self.node_deaf = [False] * len(nodes)
        """Restarted, and the scheduler has not taken its report in yet."""
        self.boots = [0] * len(nodes)
        self.reports = [0] * len(nodes)
        self.node_follows = [True] * len(nodes)
        """Connected to the present leader; the others hear of no leader but an older one."""
        self.router_follows = [True] * routers
        self.wire: list[Message] = []
        self.actions: list[Action] = []
        self.serving: dict[RequestId, tuple[int, PodId, int]] = {}
        """Request -> (router, pod, when it ends)."""
        self.bodies: dict[PodId, Body] = {}
        self.killed: set[PodId] = set()
        """Pods that ended without the scheduler's order: dispatches to them are late, not wrong."""
        self.orphans: set[PodId] = set()
        """Pods of a node that was given up while it ran: their end is a kill, and counted."""
        self.at_once: set[PodId] = set()
        """Pods that are to be ended whomever they serve: counted kills."""
        self.dispatched: set[RequestId] = set()
        self.ended: dict[RequestId, str] = {}
        self.retired: list[FunctionRetired] = []
        everything = range(len(self.functions))
        platforms = {n.platform for n in nodes}
        self.remote = {(p, f) for p in platforms for f in everything if remote}
        self.disk: list[set[int]] = [set(on_disk) for _ in nodes]
        self.deadlines: dict[tuple[str, int], int] = {}
        self.next_request = 0
        self._order = 0
        self._instant = (0, 0)
        self.on_step: Callable[[str, int, object, object], None] | None = None
        if remote:
            self.scheduler.assume_remote([FunctionId(f) for f in everything])
        self.tell_scheduler(
            *(
                NodeJoined(NodeId(n), 0, (), tuple(FunctionId(f) for f in on_disk))
                for n in range(len(nodes))
            )
        )

    # -- machines ---
    def _step(self, name: str, index: int, machine, events: tuple) -> tuple:
        at, steps = self._instant
        self._instant = (self.now_ns, steps + 1 if at == self.now_ns else 1)
        assert self._instant[1] < STEPS_PER_INSTANT, "a machine spins at one instant"
        step = machine.step(self.now_ns, events)
        who = f"{name} {index}" if name != "scheduler" else name
        for event in events:
            self.log.append(f"{_seconds(self.now_ns)} {who} <- {told(event)}")
        if not events:
            self.log.append(f"{_seconds(self.now_ns)} {who} <- (time)")
        for command in step.commands:
            self.log.append(f"{_seconds(self.now_ns)} {who} -> {told(command)}")
        if self.on_step is not None:
            self.on_step(name, index, events, step)
        key = (name, index)
        if step.deadline_ns is None:
            self.deadlines.pop(key, None)
        else:
            self.deadlines[key] = step.deadline_ns
        return step.commands

    def _send(self, to: str, index: int, payload: object, *, lossy: bool) -> None:
        self._order += 1
        self.wire.append(Message(to, index, payload, lossy, self.now_ns + DELAY_NS, self._order))

    def tell_scheduler(self, *events: object) -> None:
        for command in self._step("scheduler", 0, self.scheduler, events):
            match command:
                case GrantLease(router, lease, f, pod, slots, cold):
                    self._send(
                        "router", router, LeaseGranted(lease, f, pod, slots, cold), lossy=False
                    )
                case RevokeLease(router, lease, pod):
                    self._send("router", router, LeaseRevoked(lease, pod), lossy=False)
                case RecallLease(router, lease, pod):
                    self._send("router", router, LeaseRecalled(lease, pod), lossy=False)
                case RefuseLease(router, f, reason):
                    self._send("router", router, LeaseRefused(f, reason), lossy=False)
                case _:
                    self._send("node", command.node, command, lossy=True)

    def tell_router(self, index: int, *events: object) -> None:
        if not self.router_alive[index]:
            return
        for command in self._step("router", index, self.routers[index], events):
            match command:
                case Dispatch(request, pod):
                    self._dispatch(index, request, pod)
                case Refuse(request, reason):
                    assert request not in self.ended
                    self.ended[request] = reason
                case ReportLeases():
                    self.tell_scheduler(RouterJoined(*msgspec.structs.astuple(command)))
                case AskLease() | ReturnLease() | ReportLoad() if self.router_follows[index]:
                    event = TOLD_AS[type(command)](*msgspec.structs.astuple(command))
                    self._send("scheduler", index, event, lossy=False)
                case AskLease() | ReturnLease() | ReportLoad():
                    pass  # Nobody is connected.
                case _:
                    raise AssertionError(command)

    def tell_node(self, index: int, *events: object) -> None:
        if not self.node_alive[index]:
            return
        for command in self._step("node", index, self.agents[index], events):
            if isinstance(command, Perform):
                self._perform(index, command)
            elif isinstance(command, Join):
                self._join(index, command.busy, command.dropping)
            elif self.node_follows[index]:
                lossy = not isinstance(command.fact, PodFound) and command.fact.sequence >= 0
                self._send("scheduler", index, command.fact, lossy=lossy)

    # -- messages ---
    def deliver(self, message: Message, *, keep: bool = False) -> None:
        # The end of a request is the gateway's own stream's: it comes once.
        if not keep or isinstance(message.payload, RequestFailed):
            self.wire.remove(message)
        if message.to == "scheduler":
            self.tell_scheduler(message.payload)
        elif message.to == "router":
            self.tell_router(message.index, message.payload)
        elif not self.node_deaf[message.index]:
            self.tell_node(message.index, message.payload)

    # -- requests ---
    def arrive(self, f: int, router: int = 0, **more: int) -> RequestId:
        request = RequestId(self.next_request)
        self.next_request += 1
        self.tell_router(router, RequestArrived(request, FunctionId(f), **more))
        return request

    def cancel(self, request: RequestId, f: int, router: int) -> None:
        before = self.routers[router].cancelled
        self.tell_router(router, RequestCancelled(request, FunctionId(f)))
        if self.routers[router].cancelled > before:
            assert request not in self.ended
            assert request not in self.dispatched
            self.ended[request] = "cancelled"

    def _dispatch(self, router: int, request: RequestId, pod: PodId) -> None:
        assert request not in self.dispatched, "INV-10: a request is dispatched at most once"
        assert request not in self.ended, "an ended request is dispatched"
        self.dispatched.add(request)
        body = self.bodies.get(pod)
        if body is None or body.doing != "serving":
            assert pod in self.killed, f"INV-3: request {request} to pod {pod}, which is {body}"
            self.ended[request] = "failed"
            self._send("router", router, RequestFailed(request, pod), lossy=False)
            return
        body.requests[request] = router
        slots = self.functions[body.function].slots
        assert len(body.requests) <= slots, f"INV-10: pod {pod} has {slots} slots"
        self.serving[request] = (router, pod, self.now_ns + SERVICE_NS)

    def finish(self, request: RequestId) -> None:
        router, pod, _ = self.serving.pop(request)
        del self.bodies[pod].requests[request]
        self.ended[request] = "finished"
        self.tell_router(router, RequestFinished(request, pod))

    def _abort(self, body: Body) -> None:
        for request, router in sorted(body.requests.items()):
            del self.serving[request]
            self.ended[request] = "failed"
            self._send("router", router, RequestFailed(request, body.pod), lossy=False)
        body.requests.clear()

    # -- device actions ---
    def _perform(self, index: int, perform: Perform) -> None:
        command = perform.command
        self._order += 1
        self.actions.append(
            Action(index, perform, self.now_ns + DURATION_NS[type(command)], self._order)
        )
        if isinstance(command, Copy | Drop):
            return
        body = self.bodies.get(command.pod)
        match command:
            case Create() | Restore():
                if body is not None:
                    # The agent that started it told nobody; a node is asked again.
                    assert body.boot < self.boots[index], f"pod {command.pod} is started twice"
                    return
                body = Body(
                    command.pod,
                    command.function,
                    index,
                    command.gpus,
                    "starting",
                    self.boots[index],
                )
                self.bodies[command.pod] = body
                if isinstance(command, Restore):
                    self._check_restore(index, command)
            case Resume():
                if body is not None and body.doing == "serving":
                    assert body.boot < self.boots[index], f"pod {command.pod} is resumed twice"
                elif body is not None:
                    assert body.doing == "suspended", f"a resume of a pod that is {body.doing}"
                    body.gpus = command.gpus
                    body.doing = "starting"
            case Suspend() | Stop() | Snapshot():
                if body is not None:
                    ended = command.pod in self.at_once and isinstance(command, Stop)
                    if ended or command.pod in self.orphans:
                        # Or an orphan of a node that came back: a kill, and counted as one.
                        self.killed.add(body.pod)
                        self._abort(body)
                    assert not body.requests, f"INV-4: {type(command).__name__} while serving"
                    if not (isinstance(command, Snapshot) and not command.leave):
                        body.doing = "leaving"
        self.check_truth()

    def _check_restore(self, index: int, command: Restore) -> None:
        there = self._has(index, command.source, command.function)
        assert there, f"INV-11: {command} on {self.nodes[index].name}"

    def _has(self, index: int, tier: Tier, f: int) -> bool:
        if tier is Tier.REMOTE:
            return (self.nodes[index].platform, f) in self.remote
        return f in self.disk[index]

    def end(self, action: Action, error: str = "", *, stays: bool = False) -> None:
        """An action ends; what could not be stopped is there still, and with `stays` any pod."""
        self.actions.remove(action)
        command = action.perform.command
        if isinstance(command, Copy) and not self._has(
            action.node, command.source, command.function
        ):
            error = "no such snapshot"
        stays = bool(error) and (stays or isinstance(command, Stop))
        stays = stays and getattr(command, "pod", None) in self.bodies
        self._apply(action.node, command, error, stays=stays)
        failed = error
        if not isinstance(command, Copy | Drop | Stop) and command.pod not in self.bodies:
            left = isinstance(command, Snapshot) and command.leave and not error
            failed = error or ("" if left else "no such pod")
        self.tell_node(action.node, Performed(action.perform.action, (), failed, stays))

    def _apply(self, index: int, command: NodeCommand, error: str, *, stays: bool) -> None:
        if isinstance(command, Copy):
            if not error:
                if command.target is Tier.NVME:
                    self.disk[index].add(command.function)
                else:
                    self.remote.add((self.nodes[index].platform, command.function))
            return
        if isinstance(command, Drop):
            if not error:
                self.disk[index].discard(command.function)
            return
        body = self.bodies.get(command.pod)
        if body is None:
            return
        if error or isinstance(command, Stop):
            if error:
                self.killed.add(body.pod)
            self._abort(body)
            if stays:
                body.doing = "leaving"
                return
            del self.bodies[body.pod]
            return
        match command:
            case Create() | Resume():
                body.doing = "serving"
            case Restore():
                body.doing = "serving" if command.gpus else "suspended"
                if command.keep:
                    self.disk[index].add(command.function)
            case Suspend():
                body.doing, body.gpus = "suspended", ()
            case Snapshot():
                self.disk[index].add(command.function)
                if command.leave:
                    del self.bodies[body.pod]

    # -- faults ---
    def crash(self, body: Body) -> None:
        """A process dies by itself; the agent tells, and what it tells arrives."""
        self._abort(body)
        self.killed.add(body.pod)
        del self.bodies[body.pod]
        if self.node_follows[body.node]:
            fact = PodFailed(NodeId(body.node), self.epoch, -1, body.pod, "crashed")
            self._send("scheduler", body.node, fact, lossy=False)

    def _forget_actions(self, index: int) -> None:
        self.actions = [a for a in self.actions if a.node != index]
        self.wire = [m for m in self.wire if not (m.to == "node" and m.index == index)]

    def lose(self, index: int, *, disk: bool = False) -> None:
        """The node disappears; the scheduler does not know yet."""
        self.node_alive[index] = self.node_deaf[index] = False
        self.deadlines.pop(("node", index), None)
        for body in [b for b in self.bodies.values() if b.node == index]:
            self._abort(body)
            self.killed.add(body.pod)
            del self.bodies[body.pod]
        if not disk:
            self.disk[index].clear()
        self._forget_actions(index)

    def detect(self, index: int) -> None:
        self.tell_scheduler(NodeLost(NodeId(index)))
        # Its disk is of no use to a scheduler that has forgotten it, unless it says so again.

    def restart(self, index: int) -> None:
        """The agent starts anew over what is left of its node: pods in mid-action die."""
        busy = {
            a.perform.command.pod
            for a in self.actions
            if a.node == index and not isinstance(a.perform.command, Copy | Drop)
        }
        for body in [b for b in self.bodies.values() if b.node == index]:
            if body.pod in busy:
                self._abort(body)
                self.killed.add(body.pod)
                del self.bodies[body.pod]
        self._forget_actions(index)
        self.node_alive[index] = True
        self.node_deaf[index] = True
        self.boots[index] += 1
        self.agents[index] = Agent(NodeId(index), epoch=self.agents[index]._epoch)

    def report(self, index: int) -> None:
        """The scheduler takes the restarted agent's report in; commands reach it from now on."""
        self._unhear("node", index)
        self.node_deaf[index] = False
        self.node_follows[index] = True
        self._join(index, ())

    def _join(
        self, index: int, busy: Sequence[FoundPod], dropping: Sequence[FunctionId] = ()
    ) -> None:
        worked_on = {found.pod for found in busy}
        rest = tuple(
            FoundPod(b.pod, b.function, b.gpus, FOUND.get(b.doing, "ready"))
            for b in sorted(self.bodies.values(), key=lambda b: b.pod)
            if b.node == index and b.pod not in worked_on
        )
        pods = (*busy, *rest)
        known = set(self.cluster.pods)
        snapshots = tuple(FunctionId(f) for f in sorted(self.disk[index] - set(dropping)))
        platform = self.nodes[index].platform
        remote = tuple(FunctionId(f) for p, f in sorted(self.remote) if p == platform)
        self.reports[index] += 1
        report = NodeJoined(NodeId(index), self.reports[index], pods, snapshots, remote)
        self.tell_scheduler(report)
        after = self.cluster.pods
        self.orphans.update(
            found.pod
            for found in pods
            if found.pod not in known
            and (found.pod not in after or after[found.pod].state is PodState.TERMINATING)
        )

    # -- functions ---
    def define(self, spec: FunctionSpec) -> None:
        """A function comes to be, and all are told of it."""
        event = FunctionDefined(FunctionId(len(self.functions)), spec)
        self.tell_scheduler(event)
        self.functions = (*self.functions, self.cluster.functions[-1])
        for index in range(len(self.routers)):
            self.tell_router(index, event)

    def retire(self, f: int, successor: int = NO_FUNCTION) -> None:
        """A function is no more, and all are told."""
        self.retired.append(FunctionRetired(FunctionId(f), FunctionId(successor)))
        for index in range(len(self.routers)):
            self.tell_router(index, self.retired[-1])
        self.tell_scheduler(self.retired[-1])

    # -- leaders ---
    def elect(self) -> None:
        """The leader dies and another one takes over, to which nobody is connected yet."""
        self.epoch += 1
        self.bundles.append(copy.deepcopy(self._pristine))
        alive = [RouterId(r) for r, lives in enumerate(self.router_alive) if lives]
        self.scheduler = Scheduler(
            self.nodes,
            self.functions,
            self.bundles[-1],
            stream(self._seed, f"policy.scheduler/{self.epoch}"),
            epoch=self.epoch,
            routers=0,
            awaited_nodes=[NodeId(n) for n in range(len(self.nodes))],
            awaited_routers=alive,
            strict=self._strict,
            on_decision=self.decisions.append,
        )
        self.cluster = self.scheduler.cluster
        self.deadlines.pop(("scheduler", 0), None)
        self.tell_scheduler(*self.retired)
        self.wire = [m for m in self.wire if m.to != "scheduler"]
        self.router_follows = [False] * len(self.routers)
        self.node_follows = [False] * len(self.nodes)

    def _unhear(self, to: str, index: int) -> None:
        """What an older leader, or the same one, has under way to somebody is lost."""
        self.wire = [
            m
            for m in self.wire
            if not (m.to == to and m.index == index) or isinstance(m.payload, RequestFailed)
        ]

    def connect_router(self, index: int) -> None:
        """A router connects to the leader, for the first time or again."""
        self._unhear("router", index)
        # What it has under way to the leader it told on another connection.
        self.wire = [
            m
            for m in self.wire
            if not (
                m.to == "scheduler"
                and m.index == index
                and isinstance(m.payload, LeaseAsked | LeaseReturned | LoadReported)
            )
        ]
        self.router_follows[index] = True
        self.tell_router(index, LeaderChanged(self.epoch))

    def connect_node(self, index: int) -> None:
        """An agent connects to the leader, for the first time or again."""
        if self.node_deaf[index]:
            self.report(index)
            return
        self._unhear("node", index)
        self.wire = [
            m
            for m in self.wire
            if not (m.to == "scheduler" and m.index == index and isinstance(m.payload, NODE_FACTS))
        ]
        self.node_follows[index] = True
        self.tell_node(index, LeaderChanged(self.epoch))

    def end_pod(self, pod: int, *, now: bool = False) -> None:
        """Somebody who runs the cluster wants a pod ended."""
        there = self.cluster.pods.get(PodId(pod))
        if now and there is not None:
            self.at_once.add(there.id)
        self.tell_scheduler(PodEndAsked(PodId(pod), now))

    def drain(self, index: int) -> None:
        self.tell_scheduler(NodeDraining(NodeId(index), self.now_ns + 120 * NS_PER_S))

    def lose_router(self, index: int) -> None:
        """A gateway dies: its requests end with it."""
        self.router_alive[index] = False
        self.deadlines.pop(("router", index), None)
        for request, (router, pod, _) in list(self.serving.items()):
            if router == index:
                del self.serving[request]
                del self.bodies[pod].requests[request]
                self.ended[request] = "router lost"
        self._send("scheduler", index, RouterLost(RouterId(index)), lossy=False)

    # -- time ---
    def due_ns(self) -> int | None:
        times = [m.due_ns for m in self.wire]
        times += [a.due_ns for a in self.actions]
        times += [end for _, _, end in self.serving.values()]
        times += self.deadlines.values()
        return min(times, default=None)

    def wake(self) -> None:
        """Step every machine whose deadline has come."""
        while True:
            due = [key for key, at in self.deadlines.items() if at <= self.now_ns]
            if not due:
                return
            for name, index in sorted(due):
                del self.deadlines[name, index]
                if name == "scheduler":
                    self.tell_scheduler()
                elif name == "router":
                    self.tell_router(index)

    def advance(self, to_ns: int) -> None:
        """Let time pass for the machines alone: nothing arrives, nothing ends."""
        while (due := min(self.deadlines.values(), default=to_ns + 1)) <= to_ns:
            self.now_ns = max(self.now_ns, due)
            self.wake()
        self.now_ns = max(self.now_ns, to_ns)

    def run(self, for_ns: int, each: Callable[[], None] | None = None) -> None:
        """Let everything happen at its due time."""
        until = self.now_ns + for_ns
        while (due := self.due_ns()) is not None and due <= until:
            self.now_ns = max(self.now_ns, due)
            now = self.now_ns
            self.wake()
            for message in sorted((m for m in self.wire if m.due_ns <= now), key=lambda m: m.order):
                if message in self.wire:
                    self.deliver(message)
            for action in sorted(
                (a for a in self.actions if a.due_ns <= now), key=lambda a: a.order
            ):
                if action in self.actions:
                    self.end(action)
            for request in [r for r, (_, _, end) in self.serving.items() if end <= now]:
                if request in self.serving:
                    self.finish(request)
            if each is not None:
                each()
        self.now_ns = until

    # -- checks ---
    def check(self) -> None:
        """Assert what must hold after every step."""
        c, fleet = self.cluster, self.scheduler.fleet
        c.check(list(fleet.disks.arriving))
        for router, alive in zip(self.routers, self.router_alive, strict=True):
            if alive:
                inside = router.waiting() + router.running()
                ended = router.finished + router.failed + router.refused + router.cancelled
                assert router.arrived == inside + ended, "INV-2"
        for pod in c.pods.values():
            assert pod.leased_slots == sum(lease.slots for lease in pod.leases.values())
            assert pod.leased_slots <= c.functions[pod.function].slots, "INV-10: leased slots"
            routers = [lease.router for lease in pod.leases.values()]
            assert len(set(routers)) == len(routers), "INV-10: one lease a gateway and pod"
            if pod.leases:
                assert pod.state in (PodState.READY, PodState.DRAINING), "INV-4"
            for waited in pod.waits_for:
                assert c.pods[waited].blocks == pod.id
            if pod.blocks >= 0:
                assert pod.id in c.pods[pod.blocks].waits_for
            assert bool(pod.claims) == (pod.state is PodState.INIT), "claims are held in INIT only"
            if pod.state is PodState.INIT:
                assert pod.waits_for or pod.id in fleet._cleared, f"pod {pod.id} waits for nobody"
            if pod.state is PodState.DRAINING:
                assert pod.leases, f"pod {pod.id} drains nothing"
        self.check_truth()

    def check_truth(self) -> None:
        """What really lies on GPUs and disks never exceeds them."""
        first = self.cluster.first_gpu
        milli = [0] * self.cluster.gpu_count
        hbm = [0] * self.cluster.gpu_count
        for body in self.bodies.values():
            spec = self.functions[body.function]
            for gpu in body.gpus:
                assert first[body.node] <= gpu < first[body.node + 1], "a GPU of another node"
                milli[gpu] += spec.milli_gpu
                hbm[gpu] += spec.hbm_bytes
        assert all(x <= MILLI_PER_GPU for x in milli), f"INV-1: really on the GPUs: {milli}"
        totals = self.cluster.gpu_hbm_total.tolist()
        assert all(x <= y for x, y in zip(hbm, totals, strict=True)), "INV-1: really in memory"

    def settle(self, limit_ns: int = 3_000 * NS_PER_S) -> None:
        """Let all that is under way come to its end, faultlessly."""
        given_up = {
            pod.node for pod in self.cluster.pods.values() if self.scheduler.fleet.gave_up(pod.id)
        }
        for index in range(len(self.routers)):
            if not self.router_alive[index]:
                self.tell_scheduler(RouterLost(RouterId(index)))
            elif not self.router_follows[index]:
                self.connect_router(index)
        for index in range(len(self.nodes)):
            if not self.node_alive[index]:
                self.detect(index)
            elif not self.node_follows[index] or index in given_up:
                # Pods that could not be ended are tried again when their node joins anew.
                self.connect_node(index)
            elif self.node_deaf[index]:
                self.report(index)
            elif not self.cluster.node_alive[index]:
                # Given up for lost while it ran: it registers anew.
                self.restart(index)
                self.report(index)
        until = self.now_ns + limit_ns
        while self.now_ns < until:
            self.run(NS_PER_S, self.check)
            if not (self.wire or self.actions or self.serving or self.scheduler.fleet.outbox):
                self.run(NS_PER_S, self.check)
            waiting = sum(
                r.waiting()
                for r, alive in zip(self.routers, self.router_alive, strict=True)
                if alive
            )
            if not (
                self.wire
                or self.actions
                or self.serving
                or waiting
                or self.scheduler.fleet.outbox
                or any(pod.leases for pod in self.cluster.pods.values())
            ):
                return
        raise AssertionError(f"not at rest after {limit_ns / NS_PER_S:.0f} s:\n{self.state()}")

    def check_rest(self) -> None:
        """At rest nothing is stuck, and belief is truth."""
        c, fleet = self.cluster, self.scheduler.fleet
        assert not fleet.disks.arriving, f"disks wait for {fleet.disks.arriving}"
        resting = (PodState.READY, PodState.STANDBY)
        gone = {event.function for event in self.retired}
        for pod in c.pods.values():
            assert pod.state in resting, f"stuck: {self.state()}"
            assert not pod.ends, f"not ended: {self.state()}"
            assert pod.function not in gone, f"of a function that is no more: {self.state()}"
        believed = {
            (p.id, p.node, p.gpus if p.state is PodState.READY else ()) for p in c.pods.values()
        }
        real = {(b.pod, b.node, b.gpus) for b in self.bodies.values() if self.node_alive[b.node]}
        assert believed == real, f"believed {believed - real}, really {real - believed}"
        for index, alive in enumerate(self.node_alive):
            if alive:
                seen = {f for f in range(len(c.functions)) if c.nvme[index, f]}
                assert seen <= self.disk[index], f"INV-11: disk of node {index}"
        for request in range(self.next_request):
            assert RequestId(request) in self.ended or not all(self.router_alive), "INV-2"

    def state(self) -> str:
        pods = "\n".join(
            f"  pod {p.id} f{p.function} n{p.node} {p.gpus} {p.state.name} to {p.sink_to.name}"
            f" leases {sorted(p.leases)} waits {list(p.waits_for)} blocks {p.blocks}"
            for p in self.cluster.pods.values()
        )
        pending = self.scheduler.fleet.outbox.unanswered()
        under_way = f"wire {self.wire}\nactions {self.actions}\nserving {self.serving}"
        return f"{pods}\npending {pending}\n{under_way}"


def _seconds(ns: int) -> str:
    return f"{ns // NS_PER_S:4}.{ns % NS_PER_S // NS_PER_MS:03}"


_OPTIONAL = frozenset({"input_tokens", "output_tokens", "deadline_ns", "error", "stays"})
_SILENT = frozenset({"remote", "epoch", "phases", "window_ns", "oldest_ns", "tenant", "priority"})


def told(thing: object) -> str:
    """One line for an event or a command."""
    if isinstance(thing, Perform):
        return f"Perform {told(thing.command)}"
    fact = getattr(thing, "fact", None)
    if fact is not None:
        return f"Report {told(fact)}"
    fields = []
    for name in thing.__struct_fields__:  # type: ignore[attr-defined]
        value = getattr(thing, name)
        if name in _SILENT or value == () or (name in _OPTIONAL and not value):
            continue
        text = value.name if isinstance(value, Tier) else str(value)
        if isinstance(value, tuple):
            text = text.replace(" ", "")
        elif isinstance(value, str):
            text = repr(value)
        fields.append(f"{name}={text}")
    return " ".join([type(thing).__name__, *fields])
