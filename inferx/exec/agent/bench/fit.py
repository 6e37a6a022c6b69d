"""A straight line through measured times: a fixed part, and bytes per second."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

__all__ = ["Line", "fit_line"]

ROUNDS = 20
"""Of weighing by the line that the round before gave; the line stands still after a few."""
LEAST = 1e-3
"""Of a measured time: no fitted one is taken for less, or its weight would be without bound."""


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

    The error is relative to the fitted time, found in a few rounds, so that measured over fitted
    is 1 on average. Relative to the measured one, long times would hardly count, and the line of
    times that spread by a half would be a third too fast.

    Neither part is below zero: where the best line would be, the best one with that part zero is
    taken. With one size alone, its mean time is all fixed.
    """
    assert points, "nothing was measured"
    assert all(seconds > 0 for _, seconds in points), "a time is longer than none"
    sizes, times = [float(size) for size, _ in points], [seconds for _, seconds in points]
    line = _weighted(sizes, times, times)
    for _ in range(ROUNDS):
        line = _weighted(sizes, times, _fitted(line, points))
    fitted = _fitted(line, points)
    off = [seconds / now - 1.0 for seconds, now in zip(times, fitted, strict=True)]
    return replace(line, spread=math.sqrt(sum(o * o for o in off) / len(off)))


def _fitted(line: Line, points: Sequence[tuple[int, float]]) -> list[float]:
    # A line without a fixed part gives no bytes no time.
    return [max(line.seconds(size), LEAST * seconds) for size, seconds in points]


def _weighted(x: Sequence[float], t: Sequence[float], scale: Sequence[float]) -> Line:
    """Minimise sum(((a + b x - t) / scale)^2) by the normal equations; neither below zero."""
    w = [1.0 / (s * s) for s in scale]
    s0, sx = sum(w), math.fsum(a * b for a, b in zip(w, x, strict=True))
    st = math.fsum(a * b for a, b in zip(w, t, strict=True))
    sxx = math.fsum(a * b * b for a, b in zip(w, x, strict=True))
    sxt = math.fsum(a * b * c for a, b, c in zip(w, x, t, strict=True))
    fixed, slope = st / s0, 0.0
    if len(set(x)) > 1:
        slope = (s0 * sxt - sx * st) / (s0 * sxx - sx * sx)
        fixed = (st - slope * sx) / s0
        if slope <= 0:
            fixed, slope = st / s0, 0.0
        elif fixed < 0:
            fixed, slope = 0.0, sxt / sxx
    return Line(fixed, 1.0 / slope if slope else 0.0, 0.0, len(t))
