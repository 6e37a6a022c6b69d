"""The simulator's clock: SimPy's event queue, in whole nanoseconds, by callbacks.

A callback costs a tenth of a process; processes are for long-lived actors only. What lies on the
queue are calls: a timer is the function itself, an event of SimPy's is a call that processes it.
The order is SimPy's. This is the hottest loop of a replay.
"""

# The clock is part of SimPy's loop: ruff's SLF001 asks for a reason at each use of a private name.
# pyright: reportPrivateUsage=false

from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from typing import Any

import simpy
from simpy.core import EmptySchedule, StopSimulation
from simpy.events import NORMAL, Event

__all__ = ["Alarm", "SimClock"]


class _Environment(simpy.Environment):
    """SimPy's environment with calls on its queue."""

    def schedule(self, event: Event, priority: Any = NORMAL, delay: Any = 0) -> None:
        """Put the processing of an event on the queue."""
        process = partial(self._process, event)
        heappush(self._queue, (self._now + delay, priority, next(self._eid), process))  # type: ignore[misc]  # A call, no event.

    def _process(self, event: Event) -> None:
        """Call an event's callbacks, and raise its failure if none of them took care of it."""
        callbacks = event.callbacks  # pyright: ignore[reportUnknownVariableType]  # SimPy names no kind of event.
        event.callbacks = None  # type: ignore[assignment]  # SimPy's mark of the past.
        for callback in callbacks:  # pyright: ignore[reportUnknownVariableType]  # The same.
            callback(event)
        if not event._ok and not hasattr(event, "_defused"):  # noqa: SLF001
            raise event._value  # noqa: SLF001

    def step(self) -> None:
        """Do the next call on the queue."""
        if not self._queue:
            raise EmptySchedule
        self._now, _, _, call = heappop(self._queue)
        call()  # type: ignore[operator]  # It is one.

    def run(self, until: float | Event | None = None) -> Any:
        """Run as SimPy does; until an event, without a call of `step` for each one."""
        if not isinstance(until, Event) or until.callbacks is None:  # pyright: ignore[reportUnnecessaryComparison]  # SimPy's mark of the past.
            return super().run(until)
        until.callbacks.append(StopSimulation.callback)
        queue = self._queue
        try:
            while queue:
                self._now, _, _, call = heappop(queue)
                call()  # type: ignore[operator]  # It is one.
        except StopSimulation as stop:
            return stop.args[0]
        raise RuntimeError("nothing is left to do, and what was waited for has not happened")


class SimClock:
    """Virtual time. Events at one instant run in the order in which they were armed."""

    __slots__ = ("_ids", "_queue", "env")

    def __init__(self) -> None:
        self.env = _Environment(initial_time=0)
        self._queue = self.env._queue  # noqa: SLF001 - what Environment.schedule pushes to.
        self._ids = self.env._eid  # noqa: SLF001

    def now_ns(self) -> int:
        """Return the present instant."""
        return self.env._now  # type: ignore[return-value]  # noqa: SLF001 - delays are integers.

    def after(self, delay_ns: int, call: Callable[[], object]) -> None:
        """Call `call()` `delay_ns` from now. A timer is never disarmed: stale ones ignore."""
        assert delay_ns >= 0, "time never goes back"
        heappush(self._queue, (self.env._now + delay_ns, NORMAL, next(self._ids), call))  # type: ignore[misc]  # noqa: SLF001 - a call, no event; delays are integers.

    def run(self, until_ns: int | None = None) -> None:
        """Run until nothing is left, or to `until_ns`."""
        self.env.run(until=until_ns)


class Alarm:
    """Calls a machine when its deadline comes. Timers that were overtaken do nothing."""

    __slots__ = ("_call", "_clock", "_fire_bound", "armed_ns")

    def __init__(self, clock: SimClock, call: Callable[[], None]) -> None:
        self._clock = clock
        self._call = call
        self.armed_ns = -1
        self._fire_bound = self._fire

    def arm(self, deadline_ns: int | None) -> None:
        """Make sure that the machine is called by `deadline_ns`; None asks for nothing."""
        if deadline_ns is None:
            return
        if self.armed_ns < 0 or deadline_ns < self.armed_ns:
            self.armed_ns = deadline_ns
            self._clock.after(max(0, deadline_ns - self._clock.now_ns()), self._fire_bound)

    def _fire(self) -> None:
        if self._clock.now_ns() == self.armed_ns:
            self.armed_ns = -1
            self._call()
