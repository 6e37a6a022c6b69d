"""Load over the latest seconds, as routers report it: what autoscalers average. Ours.

Laws:
1. A second without a report is one without requests.
2. A window that is not full yet is averaged over the seconds since its first sample; a function
   silent for a whole window begins anew.
"""

from dataclasses import dataclass, field

import numpy as np

from inferx.core.events import LoadReported
from inferx.policy import F64, FOREVER_NS, I64, NS_PER_S, Bool, ClusterView

__all__ = ["LoadWindow"]

_INSIDE, _ARRIVED = range(2)


@dataclass(slots=True)
class LoadWindow:
    """Requests inside and arrivals, averaged over a window of whole seconds."""

    window_s: int
    _sums: F64 = field(default_factory=lambda: np.zeros((2, 0, 0)))
    """Request-seconds inside, and arrivals. Shape (2, functions, window_s)."""
    _second: int = 0
    _first: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    _last: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    _busy_ns: I64 = field(default_factory=lambda: np.zeros(0, np.int64))

    def grow(self, functions: int) -> None:
        """Make room for so many functions."""
        more = functions - self._sums.shape[1]
        if more > 0:
            old = self._sums.reshape(2, -1, self.window_s)
            self._sums = np.concatenate((old, np.zeros((2, more, self.window_s))), axis=1)
            self._first = np.append(self._first, np.zeros(more, np.int64))
            self._last = np.append(self._last, np.full(more, -FOREVER_NS))
            self._busy_ns = np.append(self._busy_ns, np.full(more, -FOREVER_NS))

    def _advance(self, now_ns: int) -> None:
        second = now_ns // NS_PER_S
        if second > self._second:
            passed = min(second - self._second, self.window_s)
            columns = (second - np.arange(passed)) % self.window_s
            self._sums[:, :, columns] = 0.0
            self._second = second

    def observe(self, now_ns: int, event: object) -> None:
        """Learn from a load report; anything else means nothing here."""
        if not isinstance(event, LoadReported) or not event.functions:
            return
        self.grow(max(event.functions) + 1)
        self._advance(now_ns)
        at, column = np.array(event.functions), self._second % self.window_s
        window_s = event.window_ns / NS_PER_S
        inside = np.array(event.concurrency_milli) / 1000
        self._sums[_INSIDE, at, column] += inside * window_s
        self._sums[_ARRIVED, at, column] += event.arrivals
        fresh = self._second - self._last[at] >= self.window_s
        self._first[at[fresh]] = self._second
        self._last[at] = self._second
        self._busy_ns[at[inside > 0]] = now_ns

    def means(self, now_ns: int) -> tuple[F64, F64]:
        """Return the mean requests inside, and arrivals a second. Shapes (functions,)."""
        self._advance(now_ns)
        inside, arrived = self._sums.sum(axis=2) / self._since_s(self.window_s)
        return inside, arrived

    def inside(self, now_ns: int, latest_s: int) -> F64:
        """Return the mean requests inside over the latest seconds alone. Shape (functions,)."""
        self._advance(now_ns)
        recent = (self._second - np.arange(latest_s)) % self.window_s
        mean: F64 = self._sums[_INSIDE][:, recent].sum(axis=1) / self._since_s(latest_s)
        return mean

    def _since_s(self, most_s: int) -> I64:
        """Return the seconds that a mean is over: at most those since the first sample."""
        return np.maximum(np.minimum(self._second - self._first + 1, most_s), 1)

    def quiet(self, hold_s: float, view: ClusterView) -> Bool:
        """Tell which functions nobody has asked for that long. Shape (functions,)."""
        functions = view.functions
        now = view.now_ns
        self._busy_ns[functions.queued + functions.inflight > 0] = now
        quiet: Bool = now - self._busy_ns >= hold_s * NS_PER_S
        return quiet
