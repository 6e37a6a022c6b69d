"""A clock that a test moves."""

import heapq
from collections.abc import Callable

from inferx.core.units import NS_PER_S

__all__ = ["HandClock"]


class HandClock:
    def __init__(self) -> None:
        self._now_ns = 0
        self._timers: list[tuple[int, int, Callable[[], object]]] = []
        self._armed = 0

    def now_ns(self) -> int:
        return self._now_ns

    def call_at(self, at_ns: int, call: Callable[[], object]) -> None:
        self._armed += 1
        heapq.heappush(self._timers, (at_ns, self._armed, call))

    def advance(self, by_s: float) -> None:
        """Let time pass, and call what is due."""
        until_ns = self._now_ns + round(by_s * NS_PER_S)
        while self._timers and self._timers[0][0] <= until_ns:
            at_ns, _, call = heapq.heappop(self._timers)
            self._now_ns = max(self._now_ns, at_ns)
            call()
        self._now_ns = until_ns
