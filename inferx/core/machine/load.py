"""How much of each function was inside a router, averaged over a report's window.

A function is measured while it has requests: it is dirty from its first arrival or change in a
window until a report in which it was idle throughout. The router's hot path adds to a dirty
function's integral itself; everything else goes through `Load.count`.
"""

from collections.abc import Callable

from inferx.core.commands import ReportLoad
from inferx.core.machine.waiting import FunctionQueue
from inferx.core.types import FunctionId, RouterId

__all__ = ["Load"]


class Load:
    """The measurement of one router's load; runs inside its step."""

    def __init__(
        self,
        router: RouterId,
        period_ns: int,
        queues: list[FunctionQueue],
        arm: Callable[[int], None],
    ) -> None:
        """Measure nothing yet.

        Args:
            router: Whose load it is.
            period_ns: Time between reports.
            queues: By function; the router's own list, which grows.
            arm: Sets a timer for the next report.
        """
        self._router = router
        self._period_ns = period_ns
        self._queues = queues
        self._arm = arm
        self._due = False
        self._reported_ns = 0
        self._dirty: list[FunctionId] = []

    def mark(self, f: FunctionQueue, function: FunctionId, now_ns: int) -> None:
        """Begin to measure a function in this window; it was steady until now."""
        f.dirty = True
        f.inside_ns = (f.inflight + len(f.queue)) * (now_ns - self._reported_ns)
        f.changed_ns = now_ns
        self._dirty.append(function)
        if not self._due:
            self._due = True
            self._reported_ns = now_ns
            f.inside_ns = 0
            self._arm(now_ns + self._period_ns)

    def count(self, f: FunctionQueue, function: FunctionId, now_ns: int) -> None:
        """Bring a function's integral up to now, before what is inside changes."""
        if f.dirty:
            f.inside_ns += (f.inflight + len(f.queue)) * (now_ns - f.changed_ns)
            f.changed_ns = now_ns
        else:
            self.mark(f, function, now_ns)

    def report(self, now_ns: int) -> ReportLoad:
        """End the window, and begin the next one if anything is inside."""
        window = now_ns - self._reported_ns
        functions = self._dirty
        self._dirty = []
        inside: list[int] = []
        queued: list[int] = []
        arrivals: list[int] = []
        busy = False
        for function in functions:
            f = self._queues[function]
            load = f.inflight + len(f.queue)
            total = f.inside_ns + load * (now_ns - f.changed_ns)
            inside.append(1000 * total // window if window else 0)
            queued.append(len(f.queue))
            arrivals.append(f.arrivals)
            f.arrivals = 0
            f.dirty = False
            # A function that fell idle is told once more: its last average was not zero.
            if load or total:
                busy = True
                f.dirty = True
                f.inside_ns = 0
                f.changed_ns = now_ns
                self._dirty.append(function)
        self._reported_ns = now_ns
        self._due = busy
        if busy:
            self._arm(now_ns + self._period_ns)
        return ReportLoad(
            self._router, window, tuple(functions), tuple(arrivals), tuple(inside), tuple(queued)
        )
