"""Who is there: nodes and routers that join, what they bring along, and who is waited for.

Laws:
1. A node's word is the truth about what runs on it: what it does not report is gone.
2. A new leader decides nothing until all that it awaits have joined or were given up: what they
   hold would look free.
3. Pods that are reported while it gathers are taken over as they are, with their leases. Pods that
   were given up for lost are stopped when they come back, and are charged until they are gone: who
   may still use them is not known.
4. A lease that a router holds and that cannot be entered is revoked; one that it does not hold was
   lost on its way, and is taken back.
"""

from collections.abc import Callable, Collection, Iterable

from inferx.core.cluster import Cluster
from inferx.core.commands import RevokeLease, SchedulerCommand
from inferx.core.events import FoundPod, HeldLease, NodeJoined, RouterJoined
from inferx.core.lifecycle import PodState
from inferx.core.machine.adopting import Adopting
from inferx.core.machine.demand import Demand
from inferx.core.machine.fleet import Fleet
from inferx.core.pod import Pod
from inferx.core.types import LeaseId, NodeId, PodId, RouterId

__all__ = ["Joining"]


class Joining:
    """Keeps who has joined; runs inside the scheduler's step."""

    def __init__(
        self,
        cluster: Cluster,
        fleet: Fleet,
        demand: Demand,
        *,
        nodes: Collection[NodeId],
        routers: Collection[RouterId],
        epoch: int,
        out: list[SchedulerCommand],
        on_found: Callable[[Pod], None],
        on_missing: Callable[[PodId], None],
    ) -> None:
        """Wait for the given nodes and routers.

        Args:
            cluster: The cluster.
            fleet: Its pods.
            demand: Its leases.
            nodes: Nodes that are awaited.
            routers: Routers that are awaited.
            epoch: The leader's.
            out: Takes commands.
            on_found: Told of a pod that has come to rest, ready or suspended.
            on_missing: Told of a pod that its node does not report.
        """
        self._c = cluster
        self._fleet = fleet
        self.adopting = Adopting(cluster, fleet, epoch=epoch)
        self._demand = demand
        self._nodes = dict.fromkeys(nodes)
        self._routers = dict.fromkeys(routers)
        self._out = out
        self._on_found = on_found
        self._on_missing = on_missing
        self._boots: dict[NodeId, int] = {}
        self._adopted: dict[PodId, None] = {}
        self._held: dict[PodId, list[tuple[RouterId, HeldLease]]] = {}
        """Leases of pods that no node has reported yet."""

    @property
    def waits(self) -> bool:
        """Whether somebody who is awaited has not joined."""
        return bool(self._nodes or self._routers)

    # -- nodes ---
    def node(self, event: NodeJoined) -> bool:
        """Take a node's word; False if it says nothing new."""
        c, node, outbox = self._c, event.node, self._fleet.outbox
        sent_before = outbox.latest
        if event.boot <= self._boots.get(node, -1):
            return False
        self._boots[node] = event.boot
        for function in event.remote:
            c.remote[c.node_platform[node], function] = True
        if c.node_alive[node]:
            # Its agent started anew: what it does not report is gone. Snapshots first: a pod's
            # end may launch another here.
            self._fleet.disks.found(node, event.snapshots)
            there = {found.pod for found in event.pods}
            for pod in self._fleet.processes(node):
                if pod not in there:
                    self._on_missing(pod)
        else:
            # One that is being drained stays closed when its agent starts anew.
            c.node_alive[node] = True
            c.set_schedulable(node, yes=True)
        self._fleet.disks.found(node, event.snapshots)
        for found in event.pods:
            known = c.pods.get(found.pod)
            if known is None:
                self._take_in(node, found)
            elif known.found:
                self.settled(known, found.state)
            else:
                self._fleet.found(known)
        # What was said while its line was down has not reached it.
        outbox.again(node, up_to=sent_before)
        self._nodes.pop(node, None)
        return True

    def _take_in(self, node: NodeId, found: FoundPod) -> None:
        if not self.waits:
            self.adopting.end_orphan(node, found)
            return
        pod = self.adopting.adopt(node, found)
        if pod is None:
            return
        self._adopted[found.pod] = None
        self.settled(pod, found.state)
        for router, held in self._held.pop(found.pod, ()):
            self._enter(router, held)

    def settled(self, pod: Pod, state: str) -> None:
        """What was being done to a pod when its node joined is over."""
        if pod.found and state == "stuck":
            self._adopted.pop(pod.id, None)
            self.adopting.end_found(pod)
        if not pod.found or state not in {"ready", "suspended"}:
            return
        self.adopting.settle(pod, suspended=state == "suspended")
        if not self.waits:
            self._on_found(pod)

    def lost_node(self, node: NodeId) -> None:
        """Give a node up."""
        self._nodes.pop(node, None)

    # -- routers ---
    def router(self, event: RouterJoined) -> Iterable[LeaseId]:
        """Enter what a router holds; return the leases that it was given and does not hold."""
        router, given = event.router, self._demand.held_by(event.router)
        self._demand.join(router)
        self._forget_held(router)
        told = {held.lease for held in event.leases}
        for held in event.leases:
            if held.lease in given:
                continue
            if self.waits and held.pod not in self._c.pods:
                self._held.setdefault(held.pod, []).append((router, held))
            else:
                self._enter(router, held)
        self._routers.pop(router, None)
        return [lease for lease in given if lease not in told]

    def _enter(self, router: RouterId, held: HeldLease) -> None:
        pod = self._c.pods.get(held.pod)
        usable = pod if pod is not None and pod.state is PodState.READY else None
        if usable is None or not self._demand.hold(router, held, usable):
            self._out.append(RevokeLease(router, held.lease, held.pod))

    def returned(self, router: RouterId, lease: LeaseId, pod: PodId) -> None:
        """A router gave back a lease of a pod that no node has reported yet."""
        held = self._held.get(pod)
        if held is not None:
            held[:] = [(r, one) for r, one in held if r != router or one.lease != lease]

    def lost_router(self, router: RouterId) -> None:
        """Give a router up, and what it holds."""
        self._routers.pop(router, None)
        self._forget_held(router)

    def _forget_held(self, router: RouterId) -> None:
        for held in self._held.values():
            held[:] = [(whose, one) for whose, one in held if whose != router]

    def gathered(self) -> list[Pod]:
        """Return the pods that were taken over and rest, once nobody is awaited any more."""
        for holders in self._held.values():
            for router, held in holders:
                self._enter(router, held)
        self._held.clear()
        pods = [self._c.pods[pod] for pod in self._adopted if pod in self._c.pods]
        return [pod for pod in pods if not pod.found]
