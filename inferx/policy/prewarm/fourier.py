"""Prewarming by Fourier extrapolation: trend and strongest harmonics of the arrivals a minute.

Source: Roy, Patel and Tiwari, "IceBreaker: Warming Serverless Functions Better with Heterogeneity",
ASPLOS'22, pp. 753-767, its Function Invocation Prediction: the series less a quadratic trend,
`f(t) - a t^2 - b t - c`, is transformed, its harmonics are carried on past the end, the trend is
added again, and what is below nothing is nothing. One minute a sample, a window of 60 minutes, 10
harmonics.

As many pods as the rounded forecast needs slots, its requests taken to come at once.

Differs: that part of IceBreaker alone, for its other one, the choice between dear and cheap nodes
by a utility score, has nothing to choose here. The strongest harmonics are kept, ties to the slower
ones; the window may be shorter at first, but no less than `least` minutes; the forecast is the
larger of that of the present minute and of the next, so that pods are up when it begins. A period
that does not divide the window leaks into other harmonics, and the trend takes part of slow ones:
that is the method's, not ours.

Cost: O(functions * window) once a minute; between, forecasts stand and pods that lack are retried.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.fft import rfft
from numpy.linalg import pinv
from numpy.random import Generator
from numpy.typing import NDArray

from inferx.policy import F64, NS_PER_S, ClusterView, Demote, PolicyBundle, Promote, plain
from inferx.policy.parts.bringing import bring_up, pods_short
from inferx.policy.parts.counts import PeriodCounts

__all__ = ["FourierPrewarm", "bundle", "extrapolate"]


def extrapolate(series: F64, ahead: int, *, harmonics: int, degree: int) -> F64:
    """Carry on each series by trend and harmonics.

    Args:
        series: Shape (functions, samples).
        ahead: How many samples to add.
        harmonics: How many of the strongest to keep.
        degree: Degree of the trend's polynomial.

    Returns:
        Shape (functions, ahead).
    """
    samples = series.shape[1]
    # Time in windows, for the powers to be of one size.
    powers: F64 = np.linspace(0, degree, degree + 1)
    past = np.vander(np.linspace(0, 1, samples, endpoint=False), degree + 1, increasing=True)
    trend: F64 = series @ pinv(past).T
    rest: NDArray[np.complex128] = rfft(series - trend @ past.T, axis=1) / samples
    # The mean is the trend's. Every bin but the last of an even number stands for two.
    weight = np.full(rest.shape[1], 2.0)
    weight[0] = 0.0
    if samples % 2 == 0:
        weight[-1] = 1.0
    rest *= weight
    strength: F64 = np.abs(rest).round(9).astype(np.float64)
    kept = np.argsort(-strength[:, 1:], axis=1, kind="stable")[:, :harmonics] + 1
    part = np.take_along_axis(rest, kept, axis=1)
    forecast = np.zeros((len(series), ahead))
    for step in range(ahead):
        time = 1 + step / samples
        waves: F64 = (part * np.exp(2j * np.pi * time * kept)).real
        forecast[:, step] = waves.sum(axis=1) + trend @ np.power(time, powers)
    return forecast


@dataclass(slots=True)
class FourierPrewarm:
    """Brings up pods for the arrivals that trend and harmonics foretell."""

    counts: PeriodCounts
    window: int
    harmonics: int
    degree: int
    least: int
    moves: int
    _history: F64 = field(default_factory=lambda: np.zeros((0, 0)))
    """Arrivals of the latest periods, oldest first. Shape (functions, periods)."""
    _expected: F64 = field(default_factory=lambda: np.zeros(0))
    """The latest forecast."""

    def observe(self, now_ns: int, event: object) -> None:
        """Count arrivals."""
        self.counts.observe(now_ns, event)

    def forecast(self, view: ClusterView) -> F64:
        """Return the requests expected a period, this one or the next. Shape (functions,)."""
        functions = len(view.functions.specs)
        ended = self.counts.ended(view.now_ns, functions)
        if not ended and len(self._expected):
            return self._expected
        if not len(self._history):
            self._history = np.zeros((functions, 0))
        if ended:
            columns = (self._history, np.stack(ended, axis=1))
            self._history = np.concatenate(columns, axis=1)[:, -self.window :]
        self._expected = expected = np.zeros(functions)
        if self._history.shape[1] < self.least:
            return expected
        asked = np.flatnonzero(self._history.any(axis=1))
        if len(asked):
            told = extrapolate(
                self._history[asked], 2, harmonics=self.harmonics, degree=self.degree
            )
            expected[asked] = told.max(axis=1)
        return expected

    def promote(self, view: ClusterView, rng: Generator) -> Sequence[Promote | Demote]:
        """Return a promotion to HBM for the pods that lack, the most asked first."""
        return bring_up(
            pods_short(self.forecast(view), view, moves=self.moves), view, moves=self.moves
        )


def bundle(
    period_s: int = 60,
    window: int = 60,
    harmonics: int = 10,
    degree: int = 2,
    least: int = 10,
    moves: int = 4,
) -> PolicyBundle:
    """Return the bundle with IceBreaker's constants.

    Args:
        period_s: Length of a sample, 1 to 86,400.
        window: Samples that are looked back on, 4 to 10,000.
        harmonics: How many are kept, 1 to 5,000.
        degree: Degree of the trend, 0 to 3.
        least: Samples before the first forecast, 4 to `window`.
        moves: Promotions every 10 s, 0 to 1,000.

    Raises:
        ValueError: A setting is out of its range.
    """
    if not 1 <= period_s <= 86_400:
        raise ValueError(f"period_s is {period_s}; expected 1 to 86400")
    if not 4 <= window <= 10_000:
        raise ValueError(f"window is {window}; expected 4 to 10000")
    if not 1 <= harmonics <= 5_000:
        raise ValueError(f"harmonics is {harmonics}; expected 1 to 5000")
    if not 0 <= degree <= 3:
        raise ValueError(f"degree is {degree}; expected 0 to 3")
    if not 4 <= least <= window:
        raise ValueError(f"least is {least}; expected 4 to the window's {window}")
    if not 0 <= moves <= 1_000:
        raise ValueError(f"moves is {moves}; expected 0 to 1000")
    counts = PeriodCounts(period_s * NS_PER_S, most=window)
    prewarm = FourierPrewarm(counts, window, harmonics, degree, least, moves)
    return replace(
        plain.bundle(),
        name="fourier",
        prewarm=prewarm,
        observers=(prewarm,),
        control_period_ns=min(period_s, 10) * NS_PER_S,
        settle_ns=window * period_s * NS_PER_S,
    )
