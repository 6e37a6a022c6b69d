"""Synthetic traces: an arrival process, a popularity, and lengths or durations.

Every part has its own named stream, so changing one leaves the draws of the others alone. Memory is
bounded by one chunk; cost is O(requests), in numpy.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.random import Generator

from inferx.core.errors import DescriptionError
from inferx.core.rng import stream
from inferx.core.types import F64
from inferx.core.units import FOREVER_NS, NS_PER_S
from inferx.sim.workload.arrivals import Arrivals
from inferx.sim.workload.popularity import FunctionDraw, Popularity
from inferx.sim.workload.trace import MAX_TOKENS, SHORTEST_NS, Trace, make_trace
from inferx.sim.workload.transform import from_zero

__all__ = ["Fixed", "LogNormal", "Plan", "Size", "generate"]

Z99 = 2.3263478740408408
"""The standard normal distribution's 99th percentile."""


class Size(Protocol):
    """A distribution of positive numbers: tokens or seconds."""

    def draw(self, rng: Generator, rows: int) -> F64:
        """Draw `rows` of them."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """Always the same."""

    value: float

    def __post_init__(self) -> None:
        if not 0 < self.value < math.inf:
            raise DescriptionError(f"fixed value is {self.value:g}; expected more than 0")

    def draw(self, rng: Generator, rows: int) -> F64:
        """See Size."""
        del rng
        return np.full(rows, float(self.value))


@dataclass(frozen=True, slots=True, kw_only=True)
class LogNormal:
    """Log-normal by its mean and 99th percentile.

    Of the two solutions, the one with the lighter tail; none exists where p99 is above 14.97 means.
    """

    mean: float
    p99: float

    def __post_init__(self) -> None:
        if not 0 < self.mean < self.p99 <= self.mean * math.exp(Z99**2 / 2):
            what = f"lognormal has mean {self.mean:g} and p99 {self.p99:g}"
            raise DescriptionError(f"{what}; expected mean < p99 <= 14.97 means")

    @property
    def sigma(self) -> float:
        """Standard deviation of the logarithm."""
        return Z99 - math.sqrt(Z99**2 - 2 * math.log(self.p99 / self.mean))

    def draw(self, rng: Generator, rows: int) -> F64:
        """See Size."""
        return rng.lognormal(math.log(self.mean) - self.sigma**2 / 2, self.sigma, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to generate: token requests by `input` and `output`, or plain ones by `service`.

    Attributes:
        span_ns: Arrivals are drawn over this long; the first one then becomes 0.
        input: Tokens; rounded, at least 1.
        output: Tokens; rounded, at least 1.
        service: Seconds of a plain request; at least 1 ms.
        tenants: Function i belongs to tenant i modulo this.
    """

    arrivals: Arrivals
    popularity: Popularity
    span_ns: int
    input: Size | None = None
    output: Size | None = None
    service: Size | None = None
    tenants: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.span_ns < FOREVER_NS:
            raise DescriptionError(f"the span is {self.span_ns} ns; expected more than 0")
        if (self.input is None) != (self.output is None):
            raise DescriptionError("only one of input and output lengths; expected both")
        if (self.output is None) == (self.service is None):
            raise DescriptionError("expected token lengths or service times, one of the two")
        if not 1 <= self.tenants <= self.popularity.functions:
            what = f"{self.tenants} tenants for {self.popularity.functions} functions"
            raise DescriptionError(f"{what}; expected at least 1, at most one each")


def generate(plan: Plan, seed: int) -> Iterator[Trace]:
    """Yield the trace in chunks; nothing where no request arrives within the span."""
    return from_zero(_chunks(plan, seed))


def _chunks(plan: Plan, seed: int) -> Iterator[Trace]:
    names = plan.popularity.names
    tenants = tuple(f"t{i:02d}" for i in range(plan.tenants)) if plan.tenants > 1 else ("default",)
    functions = FunctionDraw(plan.popularity, stream(seed, "workload/popularity"))
    inputs = stream(seed, "workload/input-tokens")
    outputs = stream(seed, "workload/output-tokens")
    services = stream(seed, "workload/service")
    for times in plan.arrivals.times(stream(seed, "workload/arrivals"), plan.span_ns):
        rows = len(times)
        function = functions.next(rows)
        yield make_trace(
            times,
            function=function,
            input_tokens=None if plan.input is None else _tokens(plan.input, inputs, rows),
            output_tokens=None if plan.output is None else _tokens(plan.output, outputs, rows),
            duration_ns=None
            if plan.service is None
            else np.clip(
                np.rint(plan.service.draw(services, rows) * NS_PER_S), SHORTEST_NS, FOREVER_NS // 2
            ).astype(np.int64),
            tenant=function % plan.tenants,
            names=names,
            tenants=tenants,
        )


def _tokens(size: Size, rng: Generator, rows: int) -> np.ndarray:
    return np.clip(np.rint(size.draw(rng, rows)), 1, MAX_TOKENS).astype(np.int32)
