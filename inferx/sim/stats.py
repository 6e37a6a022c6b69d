"""Statements about policies, from several seeds: means and paired differences.

The unit of evidence is a seed: one row of metrics from one run. Requests within a run depend on
each other, so nothing here resamples them. Policies are compared on common random numbers; the
correlation that this bought is reported, because it is not always positive.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Final, cast

import msgspec

from inferx.sim.metrics import SummaryRow

__all__ = [
    "PAIRED_METRICS",
    "Interval",
    "PairedDifference",
    "compare",
    "holm",
    "mean_interval",
    "metric",
    "student_t_quantile",
    "student_t_two_sided",
]

PAIRED_METRICS: Final = (
    "ttft_s.p50",
    "ttft_s.p90",
    "ttft_s.p99",
    "cold_weighted_ttft_s.p99",
    "e2e_s.p50",
    "e2e_s.p99",
    "queue_s.p99",
    "cold_start_ratio",
    "slo_met_ratio",
    "refused",
    "gpu_allocated_pct",
    "gpu_resident_pct",
    "gpu_busy_pct",
    "goodput_per_gpu_hour",
    "cost_usd",
)
CONFIDENCE: Final = 0.95


class Interval(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A mean over seeds, and half the width of its 95 % interval; None from one seed."""

    mean: float
    half_width: float | None
    n: int


class PairedDifference(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One metric of one policy less the baseline's, seed by seed."""

    metric: str
    policy: str
    baseline: str
    n: int
    """Seeds that both have, with a value on both sides."""
    baseline_mean: float | None
    policy_mean: float | None
    mean_difference: float | None
    ci95_low: float | None
    ci95_high: float | None
    correlation: float | None
    """Achieved correlation of the pairs; None from one seed, or where one side does not vary."""
    p_value: float | None
    p_holm: float | None
    """Adjusted over the policies compared on this metric."""
    note: str
    """"n=1" where one seed allows no interval, "n=0" where nothing pairs, else empty."""


def metric(row: SummaryRow, name: str) -> float | None:
    """Return a number of the row by its path in the JSON: `ttft_s.p99`, `refused`."""
    value: object = row
    for part in name.split("."):
        if isinstance(value, dict):
            value = cast("dict[str, object]", value)[part]
        else:
            value = getattr(value, part)
    if value is None:
        return None
    assert isinstance(value, int | float), f"{name} is not a number"
    return float(value)


def student_t_two_sided(t: float, df: int) -> float:
    """Return P(|T| > t) for Student's t with `df` whole degrees of freedom.

    A finite sum, exact up to rounding. Cost: O(df).

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    assert df >= 1, "degrees of freedom start at 1"
    theta = math.atan2(abs(t), math.sqrt(df))
    sin, cos = math.sin(theta), math.cos(theta)
    odd = df % 2 == 1
    term = cos if odd else 1.0
    total = 0.0
    for k in range(1 if odd else 0, df - 1, 2):
        total += term
        term *= cos * cos * (k + 1) / (k + 2)
    inside = 2.0 / math.pi * (theta + sin * total) if odd else sin * total
    return min(max(1.0 - inside, 0.0), 1.0)


@cache
def student_t_quantile(df: int, confidence: float = CONFIDENCE) -> float:
    """Return t with P(|T| <= t) = `confidence`, by bisection to the last bit."""
    assert 0.0 < confidence < 1.0, "a confidence lies between 0 and 1"
    tail = 1.0 - confidence
    low, high = 0.0, 1.0
    while student_t_two_sided(high, df) > tail:
        high *= 2.0
    while low < (middle := (low + high) / 2.0) < high:
        if student_t_two_sided(middle, df) > tail:
            low = middle
        else:
            high = middle
    return high


def _spread(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard error."""
    n = len(values)
    mean = math.fsum(values) / n
    variance = math.fsum((x - mean) ** 2 for x in values) / (n - 1)
    return mean, math.sqrt(variance / n)


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the mean over seeds with Student's 95 % interval; at least one value."""
    n = len(values)
    assert n >= 1, "a mean needs a value"
    if n == 1:
        return Interval(mean=values[0], half_width=None, n=1)
    mean, error = _spread(values)
    return Interval(mean=mean, half_width=student_t_quantile(n - 1) * error, n=n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979), 65-70.
    """
    m = len(p_values)
    adjusted = [0.0] * m
    running = 0.0
    for position, row in enumerate(sorted(range(m), key=lambda i: (p_values[i], i))):
        running = max(running, min(1.0, (m - position) * p_values[row]))
        adjusted[row] = running
    return adjusted


def _correlation(left: Sequence[float], right: Sequence[float]) -> float | None:
    mean_left, mean_right = math.fsum(left) / len(left), math.fsum(right) / len(right)
    a, b = [x - mean_left for x in left], [y - mean_right for y in right]
    scale = math.sqrt(math.fsum(x * x for x in a) * math.fsum(y * y for y in b))
    if not scale:
        return None
    return min(max(math.fsum(x * y for x, y in zip(a, b, strict=True)) / scale, -1.0), 1.0)


def _pair(
    name: str, policy: str, baseline: str, ours: Sequence[float], theirs: Sequence[float]
) -> PairedDifference:
    n = len(ours)
    mean = low = high = correlation = p_value = None
    if n:
        mean = math.fsum(x - y for x, y in zip(ours, theirs, strict=True)) / n
    if n > 1 and mean is not None:
        _, error = _spread([x - y for x, y in zip(ours, theirs, strict=True)])
        half = student_t_quantile(n - 1) * error
        low, high = mean - half, mean + half
        correlation = _correlation(ours, theirs)
        certain = 0.0 if mean else 1.0
        p_value = student_t_two_sided(mean / error, n - 1) if error else certain
    return PairedDifference(
        metric=name,
        policy=policy,
        baseline=baseline,
        n=n,
        baseline_mean=math.fsum(theirs) / n if n else None,
        policy_mean=math.fsum(ours) / n if n else None,
        mean_difference=mean,
        ci95_low=low,
        ci95_high=high,
        correlation=correlation,
        p_value=p_value,
        p_holm=None,
        note="" if n > 1 else f"n={n}",
    )


def compare(
    rows: Sequence[SummaryRow], baseline: str, metrics: Sequence[str] = PAIRED_METRICS
) -> list[PairedDifference]:
    """Compare every other policy with `baseline`, seed by seed, metric by metric.

    The interval is Student's over the differences. Rows come in the order of `rows`' policies,
    within it of `metrics`. One seed gives differences without intervals, and says "n=1".
    """
    by_policy: dict[str, dict[int, SummaryRow]] = {}
    for row in rows:
        by_policy.setdefault(row.policy, {})[row.seed] = row
    base = by_policy.get(baseline)
    if base is None:
        return []
    others = [policy for policy in by_policy if policy != baseline]
    found: dict[tuple[str, str], PairedDifference] = {}
    for name in metrics:
        column: list[PairedDifference] = []
        for policy in others:
            ours: list[float] = []
            theirs: list[float] = []
            for seed in sorted(by_policy[policy].keys() & base.keys()):
                x, y = metric(by_policy[policy][seed], name), metric(base[seed], name)
                if x is not None and y is not None:
                    ours.append(x)
                    theirs.append(y)
            column.append(_pair(name, policy, baseline, ours, theirs))
        tested = [pair for pair in column if pair.p_value is not None]
        adjusted = iter(holm([pair.p_value for pair in tested if pair.p_value is not None]))
        for pair in column:
            held = None if pair.p_value is None else next(adjusted)
            found[pair.policy, name] = msgspec.structs.replace(pair, p_holm=held)
    return [found[policy, name] for policy in others for name in metrics]
