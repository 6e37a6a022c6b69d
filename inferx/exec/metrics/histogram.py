"""A histogram of plain numbers."""

from bisect import bisect_left
from typing import Final

__all__ = ["LATENCY_S", "LINEAR_S", "QUICK_S", "Histogram"]

LATENCY_S: Final = tuple(2.0**k / 1000 for k in range(18))
"""1 ms, doubled up to 131 s: first tokens and whole answers, warm or cold."""
QUICK_S: Final = (25e-6, 1e-4, 25e-5, 1e-3, 25e-4, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5)
"""25 µs to 2.5 s: what should not take long."""
LINEAR_S: Final = tuple(k / 2 for k in range(40))
"""0 to 19.5 s, as the reference has its cold starts."""


class Histogram:
    """Values by bucket; `bounds` are the upper ones, included, without infinity."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def add(self, other: "Histogram") -> None:
        """Count all that another one of the same bounds has."""
        assert self.bounds == other.bounds, "histograms of the same bounds"
        self.counts = [
            mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)
        ]
        self.sum += other.sum
