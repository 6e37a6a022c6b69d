"""Finds places for pods that are wanted: free ones, others' after they left, busy ones at last.

It also keeps who waits. A function whose want was deferred waits in line until room comes; one
whose starts fail is left alone for a while.
"""

from inferx.core.cluster import Cluster
from inferx.core.machine.asking import Asking
from inferx.core.machine.chronicle import Chronicle
from inferx.core.machine.demand import Demand
from inferx.core.machine.fleet import Fleet
from inferx.core.machine.room import room_by_draining
from inferx.core.protocols import Defer, Evict, Place
from inferx.core.types import ANY_NODE, FunctionId, NodeId, Want, want_of
from inferx.core.units import FOREVER_NS, NS_PER_S
from inferx.core.whynot import why_not

__all__ = ["EVERY", "Placing"]

GRACE = 4
"""For so many patiences a pod that has become ready is not drained for others."""
EVERY = 1 << 31
"""As many pods as are wanted."""
FAIL_BACKOFF_NS = NS_PER_S
FAIL_BACKOFF_LIMIT = 6
"""A function whose starts fail waits 1, 2, 4, ... 64 s before the next."""


class Placing:
    """Starts pods where there is room, or where room can be made."""

    def __init__(
        self, cluster: Cluster, fleet: Fleet, asking: Asking, demand: Demand, chronicle: Chronicle
    ) -> None:
        self._c = cluster
        self._fleet = fleet
        self._ask = asking
        self._demand = demand
        self._tell = chronicle
        self.waiting: dict[FunctionId, int] = {}
        """Functions with a want that was deferred, and since when; the longest wait comes first."""
        self._rushed_ns = -FOREVER_NS
        self._fails: dict[FunctionId, tuple[int, int]] = {}
        """Function -> (starts failed in a row, when the next may be tried)."""

    # -- starts that fail ---
    def start_failed(self, function: FunctionId) -> int:
        """Note a failed start; return when the next may be tried."""
        streak = min(self._fails.get(function, (0, 0))[0] + 1, FAIL_BACKOFF_LIMIT)
        again_ns = self._c.now_ns + (FAIL_BACKOFF_NS << (streak - 1))
        self._fails[function] = (streak, again_ns)
        return again_ns

    def start_succeeded(self, function: FunctionId) -> None:
        """End a row of failures."""
        self._fails.pop(function, None)

    def backs_off(self, function: FunctionId) -> bool:
        """Tell whether a function's latest start failed too short a while ago."""
        return self._fails.get(function, (0, 0))[1] > self._c.now_ns

    # -- wants ---
    def reach(self, function: FunctionId, target: int, *, at_most: int = EVERY) -> None:
        """Start pods for waiting requests up to `target`; without room, stand in line.

        After `at_most` pods the rest stand in line as well: it is others' turn.
        """
        while self._c.live(function) < target:
            if not at_most or not self.want(function, prewarmed=False):
                self.waiting.setdefault(function, self._c.now_ns)
                return
            at_most -= 1
        self.waiting.pop(function, None)

    def wants(self) -> list[Want]:
        """Return what waits in line, the longest wait first."""
        oldest_ns = self._demand.oldest_ns
        return [self._wanted(function, oldest_ns[function]) for function in self.waiting]

    def _wanted(self, function: FunctionId, since_ns: int, node: NodeId = ANY_NODE) -> Want:
        spec = self._c.functions[function]
        return want_of(function, spec, node=node, since_ns=since_ns)

    def want(
        self,
        function: FunctionId,
        *,
        prewarmed: bool,
        node: NodeId = ANY_NODE,
        bakes: bool = False,
    ) -> bool:
        """Find a place for one more pod of a function; return whether it is on its way."""
        since = self._demand.oldest_ns[function] if not prewarmed else FOREVER_NS
        want = self._wanted(function, since, node)
        placed = self._ask.place(want)
        if isinstance(placed, Place):
            why = self._ask.explain(want) if self._tell.explains else None
            pod = self._fleet.start(function, placed.gpus, (), prewarmed=prewarmed, bakes=bakes)
            self._tell.started("place", pod, explanation=why)
            return True
        if bakes:
            return False  # Nobody leaves for a pod that is only to be snapshotted.
        return self._make_room(want, prewarmed=prewarmed)

    def _make_room(self, want: Want, *, prewarmed: bool) -> bool:
        plan = self._ask.evict(want)
        if isinstance(plan, Defer):
            forced = self._patience(want)
            if forced is None:
                why = why_not(want, self._ask.view) if self._tell.explains else None
                self._tell.decided("defer", want.function, reason=plan.reason, explanation=why)
                return False
            plan = forced
            self._fleet.count("forced_drains")
        victims = tuple(int(pod) for pod, _ in plan.victims)
        self._fleet.count("evictions", len(victims))
        if plan.gpus:
            why = why_not(want, self._ask.view) if self._tell.explains else None
            pod = self._fleet.start(want.function, plan.gpus, plan.victims, prewarmed=prewarmed)
            self._tell.started("evict", pod, "no room", victims, why)
            return True
        for victim, to in plan.victims:
            self._fleet.sink(self._c.pods[victim], to)
        self._tell.decided("evict", want.function, reason="room first", victims=victims)
        return False

    def _patience(self, want: Want) -> Evict | None:
        """INV-6: a want that has waited too long gets room by draining whoever is in the way.

        Pods that have just begun to serve are spared, or a crowd of wants would drain each other
        and serve nobody. Where they are all that is in the way, the want that has waited longest is
        given their room, once a grace.
        """
        c, patience_ns = self._c, self._ask.policies.patience_ns
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
        c = self._c
        for function in self.waiting:
            if function == want.function:
                return True
            spec = c.functions[function]
            could = c.gpu_schedulable & c.type_mask(spec.gpu_type)
            if int((could & (c.gpu_hbm_total >= spec.hbm_bytes)).sum()) >= spec.gpus:
                return False
        return False
