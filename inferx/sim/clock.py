"""The simulator's clock: SimPy's event queue, in whole nanoseconds, by callbacks.

A callback on a timeout costs a seventh of a process; processes are for long-lived actors only.
A timer here is the least that SimPy's loop can run, and is put on its heap directly: a third less
per event than `Environment.timeout`, and this is the hottest line of a replay.
"""

# The clock is part of SimPy's loop: ruff's SLF001 asks for a reason at each use of a private name.
# pyright: reportPrivateUsage=false

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

import simpy
from simpy.core import StopSimulation
from simpy.events import NORMAL, Event

__all__ = ["Alarm", "SimClock", "Timer"]


class Timer(Event):
    """An event that is due from birth and calls one function. It has no environment or value."""

    __slots__ = ("callbacks",)  # pyright: ignore[reportIncompatibleVariableOverride]  # see below

    callbacks: tuple[Callable[[Event], None]]  # type: ignore[assignment]  # SimPy only iterates.
    _ok = True
    _value = None
    __init__ = object.__init__  # pyright: ignore[reportAssignmentType]  # Spares a call for nothing to set.


class _Environment(simpy.Environment):
    """SimPy's environment; running until an event inlines its own `step`, a call an event less."""

    def run(self, until: float | Event | None = None) -> Any:
        """Run as SimPy does: same queue, same order, same errors."""
        if not isinstance(until, Event) or until.callbacks is None:  # pyright: ignore[reportUnnecessaryComparison]  # SimPy's mark of the past.
            return super().run(until)
        until.callbacks.append(StopSimulation.callback)
        queue = self._queue
        try:
            while True:
                self._now, _, _, event = heappop(queue)
                callbacks = event.callbacks  # pyright: ignore[reportUnknownVariableType]  # SimPy names no type of event.
                event.callbacks = None  # type: ignore[assignment]  # SimPy's mark of the past.
                for callback in callbacks:  # pyright: ignore[reportUnknownVariableType]  # as above.
                    callback(event)
                if not event._ok and not hasattr(event, "_defused"):  # noqa: SLF001
                    raise event._value  # noqa: SLF001
        except StopSimulation as stop:
            return stop.args[0]


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

    def after(self, delay_ns: int, call: Callable[[Event], None]) -> None:
        """Call `call(event)` `delay_ns` from now. A timer is never disarmed: stale ones ignore."""
        assert delay_ns >= 0, "time never goes back"
        timer = Timer()  # pyright: ignore[reportCallIssue]  # It has no environment.
        timer.callbacks = (call,)
        entry = (self.env._now + delay_ns, NORMAL, next(self._ids), timer)  # noqa: SLF001
        heappush(self._queue, entry)

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

    def _fire(self, _event: Event) -> None:
        if self._clock.now_ns() == self.armed_ns:
            self.armed_ns = -1
            self._call()
