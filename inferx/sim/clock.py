"""The simulator's clock: SimPy's event queue, in whole nanoseconds, by callbacks.

A callback on a timeout costs a seventh of a process; processes are for long-lived actors only.
"""

from collections.abc import Callable

import simpy
from simpy.events import NORMAL, Event

__all__ = ["SimClock"]


class SimClock:
    """Virtual time. Events at one instant run in the order in which they were armed."""

    __slots__ = ("_schedule", "env")

    def __init__(self) -> None:
        self.env = simpy.Environment(initial_time=0)
        self._schedule = self.env.schedule

    def now_ns(self) -> int:
        """Return the present instant."""
        return int(self.env.now)

    def after(self, delay_ns: int, call: Callable[[Event], object]) -> None:
        """Call `call(event)` `delay_ns` from now. A timer is never disarmed: stale ones ignore."""
        timer = Event(self.env)
        timer._ok = True  # noqa: SLF001 - what simpy.Timeout does, without its checks.
        timer._value = None  # noqa: SLF001
        timer.callbacks.append(call)
        self._schedule(timer, NORMAL, delay_ns)

    def run(self, until_ns: int | None = None) -> None:
        """Run until nothing is left, or to `until_ns`."""
        self.env.run(until=until_ns)
