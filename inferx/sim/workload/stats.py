"""What a trace is like: rate, burstiness, popularity, sizes. One pass, O(functions) memory.

Counts, means, extremes, dispersion and shares are exact. Quantiles come from logarithmic buckets
and are within `RELATIVE_ERROR` of the exact ones.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inferx.core.types import F64, I64
from inferx.core.units import NS_PER_S
from inferx.sim.workload.reuse import Gaps
from inferx.sim.workload.trace import Trace, TraceHash

__all__ = [
    "Burstiness",
    "Popular",
    "RateWithin",
    "Sizes",
    "TraceStats",
    "gini",
    "trace_stats",
    "zipf_alpha",
]

RELATIVE_ERROR = 0.001

_GAMMA_LOG = math.log((1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR))
_BUCKETS = math.ceil(math.log(2.0**63) / _GAMMA_LOG) + 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RateWithin:
    """Arrivals counted in windows of one width, the first window beginning at 0.

    `dispersion` is the variance of the counts over their mean: 1 for a Poisson process.
    """

    peak: int
    mean: float
    dispersion: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Burstiness:
    """Gaps between arrivals. CV is standard deviation over mean; 1 for a Poisson process.

    The per-function figures are over functions with at least three requests; NaN without any.
    """

    cv: float
    per_function_cv_p50: float
    per_function_cv_p90: float
    tied_share: float
    """Share of gaps that are 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Popular:
    """How requests are shared, by function or by tenant."""

    count: int
    """Those with at least one request."""
    top1: float
    top3: float
    top10: float
    gini: float
    zipf_alpha: float
    """See `zipf_alpha`; NaN below three."""
    first: tuple[tuple[str, int], ...]
    """Name and requests of the ten most called; ties in order of first appearance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """A distribution of positive integers."""

    mean: float
    p50: float
    p90: float
    p99: float
    max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceStats:
    """One trace, described."""

    sha256: str
    requests: int
    token_requests: int
    span_ns: int
    rate: float
    """Requests per second between the first arrival and the last; NaN below two."""
    second: RateWithin
    minute: RateWithin
    gaps: Burstiness
    functions: Popular
    tenants: Popular
    input_tokens: Sizes | None
    """Over token requests; None without any."""
    output_tokens: Sizes | None
    duration_ns: Sizes | None
    """Over plain requests; None without any."""
    load: float
    """Mean plain requests in service at once, were none delayed."""


def gini(counts: NDArray[np.integer]) -> float:
    """Return the Gini coefficient of counts: 0 when all are equal, towards 1 when one has all."""
    if not len(counts):
        return math.nan
    ordered = np.sort(counts).astype(np.float64)
    rank = np.arange(1, len(ordered) + 1)
    return float((2 * rank - len(ordered) - 1) @ ordered / (len(ordered) * ordered.sum()))


def zipf_alpha(counts: NDArray[np.integer]) -> float:
    """Fit log(count) = c - alpha * log(rank) by least squares over all positive counts."""
    ordered = np.sort(counts[counts > 0])[::-1]
    if len(ordered) < 3:
        return math.nan
    rank = np.log(np.arange(1, len(ordered) + 1))
    return float(-np.polyfit(rank, np.log(ordered), 1)[0])


class _Windows:
    """Counts by window of time; only the window that is still open is kept."""

    def __init__(self, width_ns: int) -> None:
        self._width_ns = width_ns
        self._open = 0
        self._open_count = 0
        self._peak = 0
        self._squares = 0
        self._total = 0

    def update(self, arrival_ns: I64) -> None:
        windows, counts = np.unique(arrival_ns // self._width_ns, return_counts=True)
        if not len(windows):
            return
        self._total += len(arrival_ns)
        if windows[0] == self._open:
            counts[0] += self._open_count
        else:
            self._close(np.array([self._open_count]))
        self._close(counts[:-1])
        self._open, self._open_count = int(windows[-1]), int(counts[-1])

    def _close(self, counts: NDArray[np.integer]) -> None:
        if len(counts):
            self._peak = max(self._peak, int(counts.max()))
            self._squares += int((counts * counts).sum())

    def result(self) -> RateWithin:
        self._close(np.array([self._open_count]))
        windows = self._open + 1
        self._open_count = 0
        mean = self._total / windows
        dispersion = (self._squares / windows - mean * mean) / mean if self._total else math.nan
        return RateWithin(peak=self._peak, mean=mean, dispersion=dispersion)


class _Sketch:
    """Quantiles of positive integers from buckets whose edges grow geometrically."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BUCKETS, np.int64)
        self._sum = 0
        self._max = 0

    def update(self, values: NDArray[np.integer]) -> None:
        if not len(values):
            return
        # Zero shares the bucket of one: nothing smaller is positive.
        bucket = np.ceil(np.log(np.maximum(values, 1)) / _GAMMA_LOG).astype(np.int64)
        self._counts += np.bincount(bucket, minlength=_BUCKETS)
        self._sum += (
            int(values.sum(dtype=np.int64)) if values.max() < 1 << 40 else sum(values.tolist())
        )
        self._max = max(self._max, int(values.max()))

    def result(self) -> Sizes | None:
        total = int(self._counts.sum())
        if not total:
            return None
        ends = np.cumsum(self._counts)

        def quantile(share: float) -> float:
            bucket = int(np.searchsorted(ends, max(1, math.ceil(share * total))))
            middle = 2 * math.exp(bucket * _GAMMA_LOG) / (1 + math.exp(_GAMMA_LOG))
            return min(middle if bucket else 1.0, float(self._max))

        return Sizes(
            mean=self._sum / total,
            p50=quantile(0.5),
            p90=quantile(0.9),
            p99=quantile(0.99),
            max=self._max,
        )


class _GapStats:
    """Moments of the gaps, over all and by function."""

    def __init__(self) -> None:
        self._gaps = Gaps()
        self._last_ns = -1
        self._total, self._squares, self._count, self._ties = 0, 0.0, 0, 0
        self._of = np.zeros((3, 0))
        """By function: gaps, their sum and the sum of their squares, in seconds."""

    def update(self, chunk: Trace) -> None:
        if not len(chunk):
            return
        first = chunk.arrival_ns[:1] if self._last_ns < 0 else self._last_ns
        gap_ns = np.diff(chunk.arrival_ns, prepend=first)[1 if self._last_ns < 0 else 0 :]
        self._last_ns = int(chunk.arrival_ns[-1])
        self._count += len(gap_ns)
        self._total += int(gap_ns.sum())
        self._squares += float(np.square(gap_ns / NS_PER_S).sum())
        self._ties += int((gap_ns == 0).sum())
        function, own_ns = self._gaps.update(chunk)
        function, own = function[own_ns >= 0], own_ns[own_ns >= 0] / NS_PER_S
        functions = len(chunk.names)
        grown = np.zeros((3, functions))
        grown[:, : self._of.shape[1]] = self._of
        moments = (np.ones(len(own)), own, own * own)
        self._of = grown + [np.bincount(function, moment, functions) for moment in moments]

    def result(self) -> Burstiness:
        count, total, squares = self._of[:, self._of[0] >= 2]
        cvs = _cv(count, total, squares)
        cvs = cvs[np.isfinite(cvs)]
        whole = _cv(*(np.array([x]) for x in (self._count, self._total / NS_PER_S, self._squares)))
        return Burstiness(
            cv=float(whole[0]),
            per_function_cv_p50=float(np.quantile(cvs, 0.5)) if len(cvs) else math.nan,
            per_function_cv_p90=float(np.quantile(cvs, 0.9)) if len(cvs) else math.nan,
            tied_share=self._ties / self._count if self._count else math.nan,
        )


def _cv(count: F64, total: F64, squares: F64) -> F64:
    """Coefficient of variation from moments; NaN where the mean is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / count
        variance = np.maximum(squares / count - mean * mean, 0.0)
        cv: F64 = np.where(total > 0, np.sqrt(variance) / mean, np.nan)
    return cv


def _popular(counts: I64, names: tuple[str, ...]) -> Popular:
    most = np.argsort(-counts, kind="stable")
    first: list[int] = most[:10].tolist()
    used = counts[most][counts[most] > 0]
    total = max(1, int(used.sum()))
    return Popular(
        count=len(used),
        top1=float(used[:1].sum() / total),
        top3=float(used[:3].sum() / total),
        top10=float(used[:10].sum() / total),
        gini=gini(used),
        zipf_alpha=zipf_alpha(used),
        first=tuple((names[i], int(counts[i])) for i in first if counts[i]),
    )


def _grown(counts: I64, chunk_codes: NDArray[np.integer], size: int) -> I64:
    counted = np.bincount(chunk_codes, minlength=size)
    counted[: len(counts)] += counts
    return counted


def trace_stats(chunks: Iterable[Trace]) -> TraceStats:
    """Describe a trace in one pass."""
    digest = TraceHash()
    second, minute, gaps = _Windows(NS_PER_S), _Windows(60 * NS_PER_S), _GapStats()
    inputs, outputs, durations = _Sketch(), _Sketch(), _Sketch()
    functions, tenants = np.zeros(0, np.int64), np.zeros(0, np.int64)
    names: tuple[str, ...] = ()
    tenant_names: tuple[str, ...] = ()
    token_requests, first_ns, last_ns, work = 0, 0, 0, 0.0
    for chunk in chunks:
        if not len(chunk):
            continue
        first_ns = first_ns if digest.rows else int(chunk.arrival_ns[0])
        last_ns = int(chunk.arrival_ns[-1])
        digest.update(chunk)
        names, tenant_names = chunk.names, chunk.tenants
        second.update(chunk.arrival_ns)
        minute.update(chunk.arrival_ns)
        gaps.update(chunk)
        with_tokens = chunk.output_tokens > 0
        token_requests += int(with_tokens.sum())
        inputs.update(chunk.input_tokens[with_tokens])
        outputs.update(chunk.output_tokens[with_tokens])
        durations.update(chunk.duration_ns[~with_tokens])
        work += float(chunk.duration_ns.sum(dtype=np.float64))
        functions = _grown(functions, chunk.function, len(names))
        tenants = _grown(tenants, chunk.tenant, len(tenant_names))
    span_ns = last_ns - first_ns
    return TraceStats(
        sha256=digest.hexdigest(names, tenant_names),
        requests=digest.rows,
        token_requests=token_requests,
        span_ns=span_ns,
        rate=(digest.rows - 1) * NS_PER_S / span_ns if span_ns else math.nan,
        second=second.result(),
        minute=minute.result(),
        gaps=gaps.result(),
        functions=_popular(functions, names),
        tenants=_popular(tenants, tenant_names),
        input_tokens=inputs.result(),
        output_tokens=outputs.result(),
        duration_ns=durations.result(),
        load=work / span_ns if span_ns else math.nan,
    )
