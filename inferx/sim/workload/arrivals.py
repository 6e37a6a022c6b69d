"""Arrival processes: each draws the arrivals of a span, in chunks, from one generator.

Rates are requests per second. Times are integer nanoseconds after the beginning of the span.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.random import Generator

from inferx.core.errors import DescriptionError
from inferx.core.types import F64, I64
from inferx.core.units import NS_PER_S
from inferx.sim.workload.trace import CHUNK_ROWS

__all__ = ["Arrivals", "Diurnal", "Gamma", "Mmpp", "Poisson", "Weibull"]

MAX_RATE = 1e7
"""Requests per second; above it a nanosecond grid is too coarse for gaps."""
MIN_CV = 0.01
MAX_CV = 100.0
SOJOURNS = 1024
"""Stays in a state of an MMPP that are drawn at once."""


class Arrivals(Protocol):
    """A point process on the line."""

    def times(self, rng: Generator, span_ns: int) -> Iterator[I64]:
        """Yield the arrivals in [0, span_ns), in order, at most `CHUNK_ROWS` at a time."""
        ...


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # Also refuses NaN.
        raise DescriptionError(f"{name} is {value:g}; expected {low:g} to {high:g}")


def _check(*, rate: float, cv: float = 1.0) -> None:
    _within("rate", rate, 1 / MAX_RATE, MAX_RATE)
    _within("cv", cv, MIN_CV, MAX_CV)


def _renewal(gaps_s: Callable[[], F64], span_ns: int) -> Iterator[I64]:
    """Add up gaps; the first arrival comes one whole gap after 0."""
    now_ns = 0
    while True:
        gaps_ns = gaps_s() * NS_PER_S
        # Cut in floats first: one absurd gap must not wrap around in integers.
        kept = gaps_ns[: int(np.searchsorted(np.cumsum(gaps_ns), span_ns - now_ns)) + 1]
        over = len(kept) < len(gaps_ns)
        times = now_ns + np.cumsum(np.rint(np.minimum(kept, span_ns)).astype(np.int64))
        inside = times[: int(np.searchsorted(times, span_ns))]
        yield inside
        if over or len(inside) < len(times):
            return
        now_ns = int(times[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Poisson:
    """Independent arrivals at a constant rate."""

    rate: float

    def __post_init__(self) -> None:
        _check(rate=self.rate)

    def times(self, rng: Generator, span_ns: int) -> Iterator[I64]:
        """See Arrivals."""
        return _renewal(lambda: rng.standard_exponential(CHUNK_ROWS) / self.rate, span_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gamma:
    """Gamma gaps by rate and coefficient of variation: 1 is Poisson, above it is bursty."""

    rate: float
    cv: float

    def __post_init__(self) -> None:
        _check(rate=self.rate, cv=self.cv)

    def times(self, rng: Generator, span_ns: int) -> Iterator[I64]:
        """See Arrivals."""
        shape = self.cv**-2
        scale = 1 / (shape * self.rate)
        return _renewal(lambda: rng.standard_gamma(shape, CHUNK_ROWS) * scale, span_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weibull:
    """Weibull gaps by rate and coefficient of variation."""

    rate: float
    cv: float

    def __post_init__(self) -> None:
        _check(rate=self.rate, cv=self.cv)

    @property
    def shape(self) -> float:
        """The shape that has this coefficient of variation, by bisection."""
        low, high = 0.1, 200.0
        for _ in range(80):
            middle = math.sqrt(low * high)
            if _weibull_cv(middle) > self.cv:
                low = middle
            else:
                high = middle
        return math.sqrt(low * high)

    def times(self, rng: Generator, span_ns: int) -> Iterator[I64]:
        """See Arrivals."""
        shape = self.shape
        scale = 1 / (self.rate * math.gamma(1 + 1 / shape))
        return _renewal(lambda: rng.weibull(shape, CHUNK_ROWS) * scale, span_ns)


def _weibull_cv(shape: float) -> float:
    second = math.lgamma(1 + 2 / shape) - 2 * math.lgamma(1 + 1 / shape)
    return math.sqrt(math.expm1(second))


@dataclass(frozen=True, slots=True, kw_only=True)
class Diurnal:
    """A Poisson process whose rate follows a sine: rate * (1 + amplitude * sin(2 pi t / period)).

    `amplitude` 1 falls silent once a period. Drawn by thinning one at the highest rate.
    """

    rate: float
    amplitude: float = 0.8
    period: float = 86_400.0

    def __post_init__(self) -> None:
        _check(rate=self.rate)
        _within("amplitude", self.amplitude, 0, 1)
        _within("period", self.period, 1e-3, 1e9)

    def times(self, rng: Generator, span_ns: int) -> Iterator[I64]:
        """See Arrivals."""
        arriving, thinning = rng.spawn(2)
        highest = Poisson(rate=min(self.rate * (1 + self.amplitude), MAX_RATE))
        for times in highest.times(arriving, span_ns):
            phase = 2 * np.pi * (times / (self.period * NS_PER_S))
            share = (1 + self.amplitude * np.sin(phase)) / (1 + self.amplitude)
            yield times[thinning.random(len(times)) < share]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mmpp:
    """A Poisson process whose rate is that of a hidden state: quiet, busy, ...

    State i lasts an exponential time of mean `stays[i]` seconds at `rates[i]`; then any other
    state follows, all alike. It starts in state 0. Drawn exactly: a Poisson process of rate 1 is
    mapped through the inverse of the load offered so far, so memory does not depend on the rates.
    """

    rates: tuple[float, ...]
    stays: tuple[float, ...]

    def __post_init__(self) -> None:
        if not 2 <= len(self.rates) == len(self.stays):
            what = f"{len(self.rates)} rates and {len(self.stays)} stays"
            raise DescriptionError(f"mmpp has {what}; expected as many of each, at least 2")
        for rate in self.rates:
            _within("rate", rate, 0, MAX_RATE)
        _check(rate=max(self.rates))
        for stay in self.stays:
            _within("stay", stay, 1e-3, 1e9)

    @property
    def rate(self) -> float:
        """The mean rate over a long time."""
        return float(np.dot(self.rates, self.stays)) / sum(self.stays)

    def times(self, rng: Generator, span_ns: int) -> Iterator[I64]:
        """See Arrivals."""
        staying, points = rng.spawn(2)
        rates, stays = np.array(self.rates), np.array(self.stays)
        span = span_ns / NS_PER_S
        ends, loads, state, unit = np.zeros(1), np.zeros(1), 0, 0.0
        while True:
            units = unit + np.cumsum(points.standard_exponential(CHUNK_ROWS))
            unit = float(units[-1])
            while loads[-1] < unit and ends[-1] < span:
                steps = staying.integers(1, len(rates), SOJOURNS)
                states = (state + np.cumsum(steps) - steps[0]) % len(rates)
                state = int((states[-1] + staying.integers(1, len(rates))) % len(rates))
                lasts = staying.standard_exponential(SOJOURNS) * stays[states]
                ends = np.append(ends, ends[-1] + np.cumsum(lasts))
                loads = np.append(loads, loads[-1] + np.cumsum(lasts * rates[states]))
            seconds = np.interp(units, loads, ends, right=np.inf)
            inside = seconds[: int(np.searchsorted(seconds, span))]
            times = (inside * NS_PER_S).astype(np.int64)
            yield times[times < span_ns]
            if len(inside) < len(seconds):
                return
            passed = max(0, int(np.searchsorted(loads, unit)) - 1)
            ends, loads = ends[passed:], loads[passed:]
