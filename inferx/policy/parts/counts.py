"""Arrivals of each function in periods of equal length, as routers report them. Ours.

Period k is [k * period, (k + 1) * period): a report counts in the period in which it comes.
"""

from dataclasses import dataclass, field

import numpy as np

from inferx.core.events import LoadReported
from inferx.policy import F64

__all__ = ["PeriodCounts"]


@dataclass(slots=True)
class PeriodCounts:
    """Counts arrivals, and hands out each period once it is over.

    Attributes:
        most: At most so many periods are handed out at once, the latest.
    """

    period_ns: int
    most: int
    _period: int = -1
    _counts: F64 = field(default_factory=lambda: np.zeros(0))
    _ended: list[F64] = field(default_factory=list[F64])

    def _turn(self, now_ns: int) -> None:
        period = now_ns // self.period_ns
        if self._period < 0:
            self._period = period
        passed = period - self._period
        if passed:
            self._ended.append(self._counts)
            silent = np.zeros(len(self._counts))
            self._ended += [silent] * min(passed - 1, self.most)
            del self._ended[: -self.most]
            self._counts = silent.copy()
            self._period = period

    def observe(self, now_ns: int, event: object) -> None:
        """Learn from a load report; anything else means nothing here."""
        if not isinstance(event, LoadReported) or not event.functions:
            return
        self._turn(now_ns)
        more = max(event.functions) + 1 - len(self._counts)
        if more > 0:
            self._counts = np.append(self._counts, np.zeros(more))
        self._counts[np.array(event.functions)] += event.arrivals

    def ended(self, now_ns: int, functions: int) -> list[F64]:
        """Return the counts of each period that has ended since the last call, in order.

        Returns:
            Arrays of shape (functions,); not to be changed.
        """
        if self._period >= 0:
            self._turn(now_ns)
        ended, self._ended = self._ended, []
        return [np.append(counts, np.zeros(functions - len(counts))) for counts in ended]
