"""A world of fixed durations that either driver can run: nodes, links, requests.

It knows no loop. It asks its clock for `now_ns` and `after(delay_ns, call(event))`, and tells
machines through `tell(name, event)`, which is the driver's business; the driver calls `act` with
each command. Both drivers get the same world, so that only the drivers can differ.
"""

from collections.abc import Callable

import msgspec

from inferx.core.commands import (
    AskLease,
    Copy,
    Create,
    Dispatch,
    Drop,
    GrantLease,
    Perform,
    RecallLease,
    Refuse,
    RefuseLease,
    Report,
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
    LeaseAsked,
    LeaseGranted,
    LeaseRecalled,
    LeaseRefused,
    LeaseReturned,
    LeaseRevoked,
    LoadReported,
    NodeJoined,
    NodeLost,
    Performed,
    RequestArrived,
    RequestFailed,
    RequestFinished,
)
from inferx.core.machine.agent import Agent
from inferx.core.machine.router import Router
from inferx.core.machine.scheduler import Scheduler
from inferx.core.rng import stream
from inferx.core.types import FunctionId, NodeId, RequestId, RouterId
from inferx.core.units import NS_PER_MS, NS_PER_S
from inferx.sim.link import Link, LinkModel

ROUTERS = 2
END_NS = 400 * NS_PER_S
LOSE_NS = 41 * NS_PER_S + 7
DURATION_NS = {
    Create: 20 * NS_PER_S + 1,
    Restore: 3 * NS_PER_S + 7,
    Resume: NS_PER_S + 3,
    Suspend: NS_PER_S,
    Snapshot: 2 * NS_PER_S,
    Stop: NS_PER_S // 2,
    Copy: 4 * NS_PER_S,
    Drop: NS_PER_S // 10,
}


def machines(bundle, nodes, functions, seed: int) -> dict[str, object]:
    """Fresh machines by name."""
    scheduler = Scheduler(nodes, functions, bundle, stream(seed, "scheduler"), routers=ROUTERS)
    scheduler.assume_remote([FunctionId(f) for f in range(0, len(functions), 2)])
    made: dict[str, object] = {"scheduler": scheduler}
    for r in range(ROUTERS):
        rng = stream(seed, f"router/{r}")
        made[f"router/{r}"] = Router(RouterId(r), scheduler.cluster.functions, bundle, rng)
    for n in range(len(nodes)):
        made[f"agent/{n}"] = Agent(NodeId(n))
    return made


class FakeWorld:
    def __init__(self, clock, tell: Callable[[str, object], None], nodes: int, seed: int) -> None:
        self.clock = clock
        self.tell = tell
        self.nodes = nodes
        self.serving: dict[int, set[RequestId]] = {}
        self.alive = [True] * nodes
        self.node_of: dict[int, int] = {}
        self.ended = 0
        self.starts = 0
        model = LinkModel(jitter_ns=3 * NS_PER_MS, loss=0.02, duplicate=0.02)
        rng = stream(seed, "links")
        self.links = {
            name: Link(clock, model, rng, lambda m, name=name: self.tell(name, m), reliable=False)
            for name in ["facts", *(f"agent/{n}" for n in range(nodes))]
        }
        self.links["facts"]._deliver = lambda m: self.tell("scheduler", m)
        self.rng = stream(seed, "arrivals")
        self.up = LinkModel(delay_ns=NS_PER_MS, jitter_ns=2 * NS_PER_MS)
        for name in ["scheduler", *(f"router/{r}" for r in range(ROUTERS))]:
            self.links[name] = Link(
                clock, self.up, rng, lambda m, name=name: self.tell(name, m), reliable=True
            )

    def begin(self, functions: int, requests: int) -> None:
        """Arm the whole trace and the faults."""
        for n in range(self.nodes):
            joined = NodeJoined(NodeId(n), 0)
            self.clock.after(0, lambda joined=joined: self.tell("scheduler", joined))
        at = 0
        for index in range(requests):
            # Several at one instant, so that ties are met.
            at += int(self.rng.integers(0, 3)) * 250 * NS_PER_MS
            f = int(self.rng.integers(functions))
            arrived = RequestArrived(RequestId(index), FunctionId(f))
            name = f"router/{index % ROUTERS}"
            self.clock.after(at, lambda name=name, a=arrived: self.tell(name, a))
        self.clock.after(LOSE_NS, lambda: self.lose(0))

    def lose(self, n: int) -> None:
        self.alive[n] = False
        for pod, node in sorted(self.node_of.items()):
            if node == n:
                for request in sorted(self.serving.pop(pod, ())):
                    self.fail(request, pod)
        self.clock.after(2 * NS_PER_S, lambda: self.tell("scheduler", NodeLost(NodeId(n))))

    def fail(self, request: RequestId, pod: int) -> None:
        self.ended += 1
        name = f"router/{request % ROUTERS}"
        self.clock.after(0, lambda: self.tell(name, RequestFailed(request, pod)))

    def act(self, name: str, command) -> None:
        match command:
            case Dispatch(request, pod):
                self.dispatch(request, pod)
            case Refuse():
                self.ended += 1
            case AskLease():
                self.links["scheduler"].send(LeaseAsked(*msgspec.structs.astuple(command)))
            case ReturnLease():
                self.links["scheduler"].send(LeaseReturned(*msgspec.structs.astuple(command)))
            case ReportLoad():
                self.links["scheduler"].send(LoadReported(*msgspec.structs.astuple(command)))
            case GrantLease(router, lease, f, pod, slots, cold):
                self.links[f"router/{router}"].send(LeaseGranted(lease, f, pod, slots, cold))
            case RevokeLease(router, lease, pod):
                self.links[f"router/{router}"].send(LeaseRevoked(lease, pod))
            case RecallLease(router, lease, pod):
                self.links[f"router/{router}"].send(LeaseRecalled(lease, pod))
            case RefuseLease(router, f, reason):
                self.links[f"router/{router}"].send(LeaseRefused(f, reason))
            case Report(fact):
                self.links["facts"].send(fact)
            case Perform():
                self.perform(name, command)
            case _:
                if self.alive[command.node]:
                    self.links[f"agent/{command.node}"].send(command)

    def dispatch(self, request: RequestId, pod: int) -> None:
        if pod not in self.serving:
            self.fail(request, pod)
            return
        self.serving[pod].add(request)
        service_ns = NS_PER_S // 2 + 977 * (request % 13)

        def done() -> None:
            if request in self.serving.get(pod, ()):
                self.serving[pod].remove(request)
                self.ended += 1
                self.tell(f"router/{request % ROUTERS}", RequestFinished(request, pod))

        self.clock.after(service_ns, done)

    def perform(self, name: str, perform: Perform) -> None:
        command = perform.command
        if isinstance(command, Suspend | Stop | Snapshot):
            self.serving.pop(command.pod, None)
        error = ""
        if isinstance(command, Create | Restore | Resume):
            self.starts += 1
            error = "start failed" if self.starts % 11 == 0 else ""

        def done() -> None:
            node = int(name.partition("/")[2])
            if not self.alive[node]:
                return
            if isinstance(command, Create | Restore | Resume) and not error and command.gpus:
                self.serving[command.pod] = set()
                self.node_of[command.pod] = node
            self.tell(name, Performed(perform.action, (), error))

        self.clock.after(DURATION_NS[type(command)], done)
