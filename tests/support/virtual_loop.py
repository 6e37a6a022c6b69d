"""An asyncio loop on virtual time: whole nanoseconds, ties in the order of arming.

All that is ready runs to exhaustion before one more timer fires, so that what a timer sets off is
over before the next begins, as on SimPy. When nothing is left to happen the loop says so.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any


class NothingLeftError(Exception):
    """Every task waits, and no timer is armed."""


class VirtualLoop(asyncio.BaseEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self._soon: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[int, int, asyncio.Handle]] = []
        self._armed = 0
        self._at_ns = 0
        self.timers_fired = 0

    # -- in nanoseconds: the drivers' clock ---
    def now_ns(self) -> int:
        return self._at_ns

    def arm_ns(self, at_ns: int, call: Callable[[], object]) -> None:
        assert at_ns >= self._at_ns, "time never goes back"
        self._armed += 1
        handle = asyncio.Handle(call, (), self)
        heapq.heappush(self._timers, (at_ns, self._armed, handle))

    # -- what asyncio asks for ---
    def time(self) -> float:
        return self._at_ns / 1e9

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._soon.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._armed += 1
        at_ns = max(self._at_ns, round(when * 1e9))
        heapq.heappush(self._timers, (at_ns, self._armed, handle))
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def _run_once(self) -> None:
        if not self._soon:
            if not self._timers:
                raise NothingLeftError
            self._at_ns, _, handle = heapq.heappop(self._timers)
            self.timers_fired += 1
            self._soon.append(handle)
        handle = self._soon.popleft()
        if not handle.cancelled():
            handle._run()


class VirtualClock:
    """The drivers' clock on a virtual loop; also what a simulated link asks of a clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now_ns(self) -> int:
        return self._loop.now_ns()

    def call_at(self, at_ns: int, call: Callable[[], object]) -> None:
        self._loop.arm_ns(max(at_ns, self._loop.now_ns()), call)

    def after(self, delay_ns: int, call: Callable[[], object]) -> None:
        self._loop.arm_ns(self._loop.now_ns() + delay_ns, call)
