"""A straight line through measured times: a fixed part, and bytes per second."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Line", "fit_line"]


@dataclass(frozen=True, slots=True)
class Line:
    """Seconds = `fixed_s` + bytes / `bytes_per_s`.

    Attributes:
        bytes_per_s: 0 where time does not grow with bytes.
        spread: Standard deviation of measured over fitted.
        count: Measurements that it is fitted to.
    """

    fixed_s: float
    bytes_per_s: float
    spread: float
    count: int

    def seconds(self, size_bytes: int) -> float:
        """Return the fitted time."""
        return self.fixed_s + (size_bytes / self.bytes_per_s if self.bytes_per_s else 0.0)


def fit_line(points: Sequence[tuple[int, float]]) -> Line:
    """Fit bytes and seconds by least squares of the relative error: 10 MB counts as 4 GB does.

    Neither part is below zero: where the best line would be, the best one with that part zero is
    taken. With one size alone, its time is all fixed.
    """
    assert points, "nothing was measured"
    assert all(seconds > 0 for _, seconds in points), "a time is longer than none"
    # Minimises sum(((a + b x - t) / t)^2), by the normal equations with weights 1 / t^2.
    w = [1.0 / (t * t) for _, t in points]
    x = [float(size) for size, _ in points]
    t = [seconds for _, seconds in points]
    s0, sx = sum(w), math.fsum(a * b for a, b in zip(w, x, strict=True))
    st = math.fsum(a * b for a, b in zip(w, t, strict=True))
    sxx = math.fsum(a * b * b for a, b in zip(w, x, strict=True))
    sxt = math.fsum(a * b * c for a, b, c in zip(w, x, t, strict=True))
    fixed, slope = st / s0, 0.0
    if len({size for size, _ in points}) > 1:
        slope = (s0 * sxt - sx * st) / (s0 * sxx - sx * sx)
        fixed = (st - slope * sx) / s0
        if slope <= 0:
            fixed, slope = st / s0, 0.0
        elif fixed < 0:
            fixed, slope = 0.0, sxt / sxx
    line = Line(fixed, 1.0 / slope if slope else 0.0, 0.0, len(points))
    off = [seconds / line.seconds(size) - 1.0 for size, seconds in points]
    return Line(
        line.fixed_s, line.bytes_per_s, math.sqrt(sum(o * o for o in off) / len(off)), len(off)
    )
