"""Timeouts of many connections by one timer: each says when it is due, and is looked at in turn."""

import asyncio
from typing import Final, Protocol

__all__ = ["SWEEP_S", "Sweep", "Timed"]

SWEEP_S: Final = 0.25
"""How late a timeout may be. A timer for each piece that comes would cost more than the piece."""


class Timed(Protocol):
    """What may be overdue."""

    def look(self, now_s: float) -> None:
        """Act if something is overdue at `now_s`, in the loop's time."""
        ...


class Sweep:
    """Looks at all that are registered, again and again. Begins with its construction."""

    def __init__(self, period_s: float = SWEEP_S) -> None:
        self._loop = asyncio.get_running_loop()
        self._period_s = period_s
        self._timed: dict[Timed, None] = {}
        self._timer = self._loop.call_later(period_s, self._turn)

    def now_s(self) -> float:
        """Return the present, as those who are looked at are told it."""
        return self._loop.time()

    def add(self, one: Timed) -> None:
        """Look at it from now on."""
        self._timed[one] = None

    def remove(self, one: Timed) -> None:
        """Look at it no more."""
        self._timed.pop(one, None)

    def __len__(self) -> int:
        return len(self._timed)

    def stop(self) -> None:
        """Look at nothing any more."""
        self._timer.cancel()

    def _turn(self) -> None:
        now_s = self._loop.time()
        for one in tuple(self._timed):
            one.look(now_s)
        self._timer = self._loop.call_later(self._period_s, self._turn)
