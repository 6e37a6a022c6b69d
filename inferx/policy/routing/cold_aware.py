"""Cold-aware scaling, wait or wake: another pod only where waiting takes longer than its start.

Source: ours. Two facts of queueing theory carry it. Little, "A Proof for the Queuing Formula
L = lambda W", Operations Research 9(3), 1961, pp. 383-387: the mean service time is the mean number
in service over the rate of arrivals, while nobody waits. Erlang's M/M/c: with all c slots busy, the
n-th in line waits for n departures, n * service / c on average.

The requests that wait and that starting pods will not take are set against the slots there are:
one more pod is wanted as long as the last of them would wait longer, on average, than the quickest
start on a node where the function may run. The service time is learned from load reports, over
seconds in which nobody waited at either end, each counting `forget` times as much as the next.
A function without pods, and one whose service time is not known yet, gets the pods that its
requests need.

Differs from the facts: service times need not be exponential; a wait that began and ended within
one report counts as service; a starting pod counts from now on. Not weighed: whom a start evicts.
"""

from dataclasses import dataclass, field, replace

from inferx.core.events import LoadReported
from inferx.policy import I32, NS_PER_S, ClusterView, FunctionId, PolicyBundle, plain
from inferx.policy.basics import pods_needed

__all__ = ["WaitOrWake", "bundle", "wait_s"]


def wait_s(waiting: int, slots: int, service_s: float) -> float:
    """Return the mean wait of the last of those who wait for busy slots, in seconds."""
    return max(0, waiting) * service_s / slots


@dataclass(slots=True)
class _Service:
    """What is known of a function's service time."""

    inside_s: float = 0.0
    arrivals: float = 0.0
    queued: dict[int, int] = field(default_factory=dict[int, int])
    """Requests that waited at the latest report of each router."""


@dataclass(slots=True)
class WaitOrWake:
    """Wants another pod where waiting for one of those there are takes longer."""

    forget: float = 0.99
    _learned: dict[int, _Service] = field(default_factory=dict[int, _Service])

    def observe(self, now_ns: int, event: object) -> None:
        """Learn service times from load reports."""
        if not isinstance(event, LoadReported):
            return
        window_s = event.window_ns / NS_PER_S
        for function, arrivals, milli, queued in zip(
            event.functions, event.arrivals, event.concurrency_milli, event.queued, strict=True
        ):
            known = self._learned.setdefault(function, _Service())
            before = known.queued.get(event.router, 0)
            known.queued[event.router] = queued
            if not before and not queued:
                known.inside_s = self.forget * known.inside_s + milli / 1000 * window_s
                known.arrivals = self.forget * known.arrivals + arrivals

    def service_s(self, function: FunctionId) -> float | None:
        """Return the mean service time, in seconds; None while it is not known."""
        known = self._learned.get(function)
        return known.inside_s / known.arrivals if known is not None and known.arrivals else None

    def target(self, function: FunctionId, view: ClusterView) -> int:
        """Return the pods there are, and those for which waiting is not worth it."""
        needed = pods_needed(function, view)
        table = view.functions
        ready, starting = int(table.ready[function]), int(table.starting[function])
        live = ready + starting
        service_s = self.service_s(function)
        if not live or service_s is None:
            return needed
        slots = int(table.slots[function])
        start_s = self._start_ns(function, view) / NS_PER_S
        pods = live
        while pods < needed:
            left = int(table.queued[function]) - (pods - ready) * slots
            if wait_s(left, pods * slots, service_s) <= start_s:
                break
            pods += 1
        return pods

    def _start_ns(self, function: FunctionId, view: ClusterView) -> int:
        """Return the quickest start on any node that takes new pods."""
        start_ns = view.node_restore_ns(function)[view.nodes.schedulable]
        return int(start_ns.min()) if len(start_ns) else 0

    def targets(self, view: ClusterView) -> I32 | None:
        """No opinion."""
        return None


def bundle(forget: float = 0.99) -> PolicyBundle:
    """Return the bundle; `forget` is what a report counts beside the next one.

    Raises:
        ValueError: It is not above 0 and at most 1.
    """
    if not 0 < forget <= 1:
        raise ValueError(f"forget is {forget:g}; expected above 0, at most 1")
    scaling = WaitOrWake(forget)
    return replace(plain.bundle(), name="cold-aware", scaling=scaling, observers=(scaling,))
