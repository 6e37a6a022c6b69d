"""What the routers need and what they hold: slots that they lack, requests in service, leases.

Laws:
1. An ask counts only if it is newer than the latest of its router and function.
2. A pod has at most one lease of each router, and no more slots leased than it has.
3. Nothing is granted on a pod that leaves, or on a node that is closed (INV-4).
"""

from collections.abc import Iterator

from inferx.core.cluster import Cluster
from inferx.core.commands import GrantLease, RefuseLease, SchedulerCommand
from inferx.core.events import HeldLease, LeaseAsked, LoadReported
from inferx.core.lifecycle import PodState
from inferx.core.pod import Lease, Pod
from inferx.core.types import FunctionId, LeaseId, RouterId, Tier
from inferx.core.units import FOREVER_NS

__all__ = ["Demand"]


class Demand:
    """The books of leases, and the demand that they do not meet yet."""

    def __init__(
        self, cluster: Cluster, *, routers: int, first_lease: int, out: list[SchedulerCommand]
    ) -> None:
        self._c = cluster
        self._routers: dict[RouterId, None] = {RouterId(r): None for r in range(routers)}
        self._next_lease = first_lease
        self._out = out
        self._leases: dict[LeaseId, Lease] = {}
        self._lost: dict[RouterId, None] = {}
        self.lacks: list[dict[RouterId, int]] = []
        """Slots that each router lacks, by function."""
        self._serving: list[dict[RouterId, int]] = []
        self._asks: list[dict[RouterId, int]] = []
        self.oldest_ns: list[int] = []
        """When the oldest request that lacked a slot at the latest ask arrived."""
        self.functions_changed()

    def functions_changed(self) -> None:
        """Take in the functions that are new."""
        for _ in range(len(self._c.functions) - len(self.lacks)):
            self.lacks.append({})
            self._serving.append({})
            self._asks.append({})
            self.oldest_ns.append(FOREVER_NS)

    # -- what routers say ---
    def asked(self, event: LeaseAsked) -> bool:
        """Take an ask; False if it means nothing any more."""
        function, router = event.function, event.router
        if router in self._lost or event.sequence <= self._asks[function].get(router, 0):
            return False
        self._asks[function][router] = event.sequence
        self.lacks[function][router] = event.slots
        self._serving[function][router] = event.inflight
        self.oldest_ns[function] = event.oldest_ns
        self._sum(function)
        return True

    def loaded(self, event: LoadReported) -> None:
        """Take a report of load: arrivals, requests inside and queued, by function."""
        if event.router in self._lost:
            return
        c = self._c
        for function, arrivals, inside, queued in zip(
            event.functions, event.arrivals, event.concurrency_milli, event.queued, strict=True
        ):
            if arrivals:
                c.arrivals.learn(function, arrivals, c.now_ns, within_ns=event.window_ns)
            serving = self._serving[function]
            serving[event.router] = max(0, (inside + 999) // 1000 - queued)
            c.fn_inflight[function] = sum(serving.values())
            lacks = self.lacks[function]
            if lacks.get(event.router, 0) != queued:
                lacks[event.router] = queued
                c.fn_queued[function] = sum(lacks.values())

    def join(self, router: RouterId) -> None:
        """Take in a router; what it asks for, it asks for anew."""
        self._lost.pop(router, None)
        self._routers[router] = None
        self._forget(router)

    def held_by(self, router: RouterId) -> dict[LeaseId, Lease]:
        """Return the leases that a router was given."""
        return {lease.id: lease for lease in self._leases.values() if lease.router == router}

    def hold(self, router: RouterId, held: HeldLease, pod: Pod) -> bool:
        """Enter a lease that an older leader gave.

        Returns:
            False if it is another router's, or the pod has not so many slots left.
        """
        slots = self._c.functions[pod.function].slots
        mine = any(lease.router == router for lease in pod.leases.values())
        taken = held.lease in self._leases
        if taken or mine or pod.leased_slots + held.slots > slots:
            return False
        lease = Lease(held.lease, router, pod.id, held.slots)
        self._leases[lease.id] = lease
        pod.leases[lease.id] = lease
        pod.leased_slots += lease.slots
        pod.hold += 1
        self._c.touch(pod)
        return True

    def lose(self, router: RouterId) -> list[LeaseId]:
        """Forget what a router asked for; return the leases that it held."""
        # Its last words may still come.
        self._lost[router] = None
        self._routers.pop(router, None)
        self._forget(router)
        return list(self.held_by(router))

    def _forget(self, router: RouterId) -> None:
        for f in range(len(self._c.functions)):
            self.lacks[f].pop(router, None)
            self._serving[f].pop(router, None)
            self._asks[f].pop(router, None)
            self._sum(FunctionId(f))

    def refuse(self, function: FunctionId, reason: str) -> None:
        """Tell the routers that lack slots of a function that they will get none."""
        for router in sorted(self.lacks[function]):
            if self.lacks[function][router]:
                self._out.append(RefuseLease(router, function, reason))
        self.lacks[function].clear()
        self._sum(function)

    def _sum(self, function: FunctionId) -> None:
        self._c.fn_queued[function] = sum(self.lacks[function].values())
        self._c.fn_inflight[function] = sum(self._serving[function].values())

    def unmet(self, function: FunctionId) -> bool:
        """Tell whether any router lacks slots of a function."""
        return any(self.lacks[function].values())

    # -- leases ---
    def grant(self, function: FunctionId) -> None:
        """Lease what is free to the routers that lack slots, lowest id first."""
        lacks = self.lacks[function]
        for router in sorted(lacks):
            if lacks[router]:
                self._grant_to(function, router)

    def _grant_to(self, function: FunctionId, router: RouterId) -> None:
        """Lease free slots to a router: the pod used latest first, so that others may go."""
        c = self._c
        slots = c.functions[function].slots
        lacks = self.lacks[function]
        for pod in sorted(
            self._open(function, router), key=lambda pod: (-pod.idle_since_ns, pod.id)
        ):
            if lacks[router] <= 0:
                return
            # Several gateways share a pod; one alone gets all of it.
            share = max(1, slots // max(1, len(self._routers)))
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
            c.fn_queued[function] = sum(lacks.values())
            self._out.append(GrantLease(router, lease.id, function, pod.id, granted, cold))

    def _open(self, function: FunctionId, router: RouterId) -> Iterator[Pod]:
        c = self._c
        slots = c.functions[function].slots
        for pod in c.by_function[function].values():
            if (
                pod.state is PodState.READY
                and pod.leased_slots < slots
                and pod.sink_to is Tier.HBM
                and c.node_schedulable[pod.node]
                and all(lease.router != router for lease in pod.leases.values())
            ):
                yield pod

    def returned(self, router: RouterId, lease_id: LeaseId) -> Pod | None:
        """Take a router's lease back and return its pod.

        None: it came before, its pod was lost, or it is not this router's to give back.
        """
        lease = self._leases.get(lease_id)
        if lease is None or lease.router != router:
            return None
        del self._leases[lease_id]
        pod = self._c.pods[lease.pod]
        del pod.leases[lease_id]
        pod.leased_slots -= lease.slots
        pod.idle_since_ns = self._c.now_ns
        self._c.touch(pod)
        return pod

    def pod_left(self, pod: Pod) -> None:
        """Forget the leases of a pod that is gone."""
        for lease in pod.leases:
            del self._leases[lease]
        pod.leases.clear()
        pod.leased_slots = 0
