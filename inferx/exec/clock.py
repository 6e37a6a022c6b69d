"""Time for the drivers, in whole nanoseconds. The one place of `exec` that reads a clock."""

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

from inferx.core.units import NS_PER_S

__all__ = ["Clock", "WallClock"]

TICK_NS: Final = NS_PER_S // 1_000
"""What the loops' timers count in: uvloop and epoll."""


class Clock(Protocol):
    """What a driver asks of time."""

    def now_ns(self) -> int:
        """Return the present instant; it never goes back."""
        ...

    def call_at(self, at_ns: int, call: Callable[[], None]) -> None:
        """Call `call` at `at_ns` or soon after, never before. A timer is never disarmed."""
        ...


class WallClock:
    """The host's wall clock, held where it would go back.

    Not a monotonic clock: machines on several hosts compare their times, as a request's age.
    """

    __slots__ = ("_latest_ns",)

    def __init__(self) -> None:
        self._latest_ns = 0

    def now_ns(self) -> int:
        """Return nanoseconds since 1970, or the latest answer if the host's clock was set back."""
        now_ns = time.time_ns()
        latest_ns = self._latest_ns
        if now_ns <= latest_ns:
            return latest_ns
        self._latest_ns = now_ns
        return now_ns

    def call_at(self, at_ns: int, call: Callable[[], None]) -> None:
        """Call `call` on the running loop at `at_ns`, not a nanosecond early."""
        left_ns = at_ns - self.now_ns()
        loop = asyncio.get_running_loop()
        if left_ns <= 0:
            loop.call_soon(call)
        else:
            # The loop counts in float seconds and may wake a little early: look again then. One
            # that rounds to its own ticks would for less than one look again, over and over.
            ticks = -(-left_ns // TICK_NS)
            loop.call_later(ticks * TICK_NS / NS_PER_S, self.call_at, at_ns, call)
