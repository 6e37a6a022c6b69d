"""Whose turn it is: functions that events concern, then, when room came, those who wait for it."""

from inferx.core.cluster import Cluster
from inferx.core.machine.asking import Asking
from inferx.core.machine.demand import Demand
from inferx.core.machine.placing import EVERY, Placing
from inferx.core.types import FunctionId

__all__ = ["RETRY_WANTS", "Serving"]

RETRY_WANTS = 8
"""After so many wants in a row still do not fit, the rest wait for the next change."""


class Serving:
    """Leases what is free to those who lack it, and starts what they need."""

    def __init__(self, cluster: Cluster, asking: Asking, demand: Demand, placing: Placing) -> None:
        self._c = cluster
        self._ask = asking
        self._demand = demand
        self._placing = placing
        self._due: dict[FunctionId, None] = {}
        self._capacity_came = False
        self.room = 0
        """Counts the times that room came."""

    def look_at(self, function: FunctionId) -> None:
        """Serve a function when the events of this step are taken in."""
        self._due[function] = None

    def room_came(self) -> None:
        """Let those who wait for room try again."""
        self.room += 1
        self._capacity_came = self._capacity_came or bool(self._placing.waiting)

    def work(self) -> None:
        """Serve whom the events concern; then, if room came, those who wait for it."""
        while self._due or self._capacity_came:
            while self._due:
                function = next(iter(self._due))
                del self._due[function]
                self.serve(function)
            if self._capacity_came:
                self._capacity_came = False
                self._retry()

    def serve(self, function: FunctionId, *, at_most: int = EVERY) -> None:
        """Lease what is free; then start what scaling wants, no more than `at_most` pods."""
        demand, placing = self._demand, self._placing
        if demand.unmet(function):
            demand.grant(function)
        if not demand.unmet(function):
            placing.waiting.pop(function, None)
        elif not placing.backs_off(function):
            target = self._ask.target(function)
            target = min(target, self._c.functions[function].max_replica)
            placing.reach(function, target, at_most=at_most)

    def _retry(self) -> None:
        if self._ask.policies.queueing is not None:
            self._retry_by_turns()
            return
        failures, waiting = 0, self._placing.waiting
        for function in list(waiting):
            if failures >= RETRY_WANTS:
                break
            self.serve(function)
            failures += function in waiting

    def _retry_by_turns(self) -> None:
        """Let those who wait try as the queue policy says: a pod each time it is their turn."""
        failures, waiting, live = 0, self._placing.waiting, self._c.live
        wants = self._placing.wants()
        while wants and failures < RETRY_WANTS:
            at = self._ask.next_want(wants)
            function = wants[at].function
            before = live(function)
            self.serve(function, at_most=1)
            if function not in waiting:
                del wants[at]
            elif live(function) <= before:
                failures += 1
                del wants[at]
