"""What a run means: one row of numbers, each with one definition (docs/metrics.md).

Laws:
1. Nothing is dropped in silence: arrived = finished + refused + aborted + unfinished, asserted.
2. Quantiles are exact order statistics (`inverted_cdf`), over finished requests; never averaged.
3. No number is called utilisation: allocated, resident and busy are three shares of all GPUs.
4. Sums of floats are `math.fsum`, so a row does not depend on the width of a machine's vectors.
"""

import hashlib
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import msgspec
import numpy as np

from inferx.core.types import F64, I32, I64, Bool
from inferx.core.units import MILLI_PER_GPU, NS_PER_S
from inferx.sim.occupancy import Spans, fragmentation_pct, gpu_rows, state_pct
from inferx.sim.oracle.regret import Regret
from inferx.sim.record import Cause, DecisionRow, Outcome, RequestColumns, RunRecord
from inferx.sim.silence import silence_us, weighted_quantile_ns

__all__ = [
    "CAUSE_NAME",
    "OUTCOME_NAME",
    "QUANTILE_METHOD",
    "Decile",
    "Quantiles",
    "SummaryRow",
    "Weighted",
    "quantile_ns",
    "result_sha256",
    "summarise",
]

QUANTILE_METHOD: Final = "inverted_cdf"
CAUSE_NAME: Final = tuple(cause.name.lower().replace("_", "-") for cause in Cause)
"""A cause as text, indexed by `Cause`; the words of `DecisionRow.start`."""
OUTCOME_NAME: Final = tuple(outcome.name.lower() for outcome in Outcome)
_NS_PER_HOUR: Final = 3_600 * NS_PER_S
_COLUMNS: Final = (
    ("function", "<i4"),
    ("input_tokens", "<i4"),
    ("output_tokens", "<i4"),
    ("arrived_ns", "<i8"),
    ("started_ns", "<i8"),
    ("first_ns", "<i8"),
    ("finished_ns", "<i8"),
    ("outcome", "<i1"),
    ("cause", "<i1"),
    ("pod", "<i8"),
)


class Quantiles(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Three order statistics, in the unit that the field's name ends in; None where none exists."""

    p50: float | None
    p90: float | None
    p99: float | None


class Weighted(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Two order statistics of weighted values, in seconds; None where nothing has a weight."""

    p50: float | None
    p99: float | None


class Decile(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A tenth of the functions, by rank of their arrivals; the first holds the most popular."""

    functions: int
    arrived: int
    finished: int
    cold_start_ratio: float | None
    ttft_s: Quantiles


class SummaryRow(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One policy, one seed. Every field, its unit and its denominator: docs/metrics.md."""

    policy: str
    seed: int
    arrived: int
    finished: int
    refused: int
    aborted: int
    unfinished: int
    cold_starts: int
    ttft_s: Quantiles
    e2e_s: Quantiles
    queue_s: Quantiles
    gpu_allocated_pct: float
    gpu_resident_pct: float
    gpu_busy_pct: float
    goodput_per_gpu_hour: float
    cost_usd: float
    result_sha256: str
    # More of the same run.
    span_s: float
    gpus: int
    gpu_hours: float
    warmup_s: float
    measured: int
    """Finished requests that arrived after the warm-up: what the quantiles are over."""
    started: int
    cold_start_ratio: float | None
    cold_starts_by_cause: dict[str, int]
    cold_ttft_s: Quantiles
    warm_ttft_s: Quantiles
    cold_weighted_ttft_s: Weighted
    tpot_s: Quantiles
    slo_ttft_s: float
    slo_met: int
    slo_met_ratio: float | None
    gpu_busy_of_allocated_pct: float | None
    gpu_state_pct: dict[str, float]
    fragmentation_pct: float | None
    fairness_jain: float | None
    cost_usd_per_1k_finished: float | None
    popularity_deciles: list[Decile]
    link_bytes: dict[str, int]
    counters: dict[str, int]
    decisions_by_kind: dict[str, int]
    regret: Regret | None = None
    """Where the command asks for it."""


def quantile_ns(sorted_ns: np.ndarray, per_mille: int) -> float | None:
    """Return the smallest value that at least `per_mille` of 1,000 values do not exceed.

    `sorted_ns` ascends. This is numpy's `inverted_cdf`, in whole numbers: no interpolation, so
    the answer is a value that occurred.
    """
    count = len(sorted_ns)
    if not count:
        return None
    return float(sorted_ns[max(-(-count * per_mille // 1_000), 1) - 1])


def _quantiles(ns: np.ndarray) -> Quantiles:
    values = np.sort(ns)

    def at(per_mille: int) -> float | None:
        value = quantile_ns(values, per_mille)
        return None if value is None else value / NS_PER_S

    return Quantiles(p50=at(500), p90=at(900), p99=at(990))


def _cold_weighted(record: RunRecord, *, done: Bool, warmup_ns: int) -> Weighted:
    q = record.requests
    given_up_ns = np.array([spec.queue_timeout_ns for spec in record.functions], np.int64)
    waited_ns = np.where(done, q.first_ns - q.arrived_ns, given_up_ns[q.function])
    late = q.arrived_ns >= warmup_ns
    values_ns, weights = waited_ns[late], silence_us(q.function, q.arrived_ns)[late]

    def at(per_mille: int) -> float | None:
        value = weighted_quantile_ns(values_ns, weights, per_mille)
        return None if value is None else value / NS_PER_S

    return Weighted(p50=at(500), p99=at(990))


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _pct(part: float, whole: float) -> float:
    return 100.0 * part / whole if whole else 0.0


def result_sha256(record: RunRecord) -> str:
    """Return the SHA-256 of what happened: request columns, then decisions.

    Integers are little-endian arrays and strings are UTF-8 with their lengths, each block headed
    by its name and size, so the hash is the same on any machine and for any number of jobs. The
    policy's name and the seed are left out: equal results hash equal. `explain` is left out too:
    it holds float scores, and it is optional.
    """
    digest = hashlib.sha256(b"inferx result 2\n")

    def block(name: str, payload: bytes) -> None:
        digest.update(f"{name} {len(payload)}\n".encode())
        digest.update(payload)

    for name, dtype in _COLUMNS:
        column = getattr(record.requests, name)
        block(name, np.ascontiguousarray(column, dtype=dtype).tobytes())
    decisions = record.decisions
    for name in ("at_ns", "function", "pod", "node"):
        values = [getattr(row, name) for row in decisions]
        block(name, np.array(values, dtype="<i8").tobytes())
    block("count", np.array([row.count for row in decisions], dtype="<i8").tobytes())
    again = [np.asarray(row.again_ns, dtype="<i8") for row in decisions if row.count > 1]
    block("again_ns", b"".join(times.tobytes() for times in again))
    block("gpu_count", np.array([len(row.gpus) for row in decisions], dtype="<i8").tobytes())
    block("gpus", np.array([gpu for row in decisions for gpu in row.gpus], dtype="<i8").tobytes())
    for name in ("kind", "start", "reason"):
        texts = [getattr(row, name).encode() for row in decisions]
        block(f"{name}_size", np.array([len(text) for text in texts], dtype="<i8").tobytes())
        block(name, b"".join(texts))
    return digest.hexdigest()


def _check(requests: RequestColumns, done: Bool) -> None:
    """Assert that every finished request went forward in time."""
    steps = (requests.arrived_ns, requests.started_ns, requests.first_ns, requests.finished_ns)
    for before, after in pairwise(steps):
        assert (before[done] <= after[done]).all(), "a finished request went back in time"


def _fairness(function: I32, good: Bool) -> float | None:
    """Jain's index of the share of requests, per function, that met the target."""
    arrived = np.bincount(function)
    met = np.bincount(function[good], minlength=len(arrived))
    share = (met[arrived > 0] / arrived[arrived > 0]).tolist()
    squares = math.fsum(x * x for x in share)
    return math.fsum(share) ** 2 / (len(share) * squares) if squares else None


def _deciles(function: I32, ttft_ns: I64, *, kept: Bool, ran: Bool, cold: Bool) -> list[Decile]:
    """Group functions by rank of arrivals; at most ten groups, sizes differ by at most one."""
    arrived = np.bincount(function)
    rank = np.argsort(-arrived, kind="stable")
    rank = rank[arrived[rank] > 0]
    rows: list[Decile] = []
    for group in np.array_split(rank, 10):
        if not group.size:
            continue
        mine = np.isin(function, group)
        rows.append(
            Decile(
                functions=len(group),
                arrived=int(mine.sum()),
                finished=int((mine & kept).sum()),
                cold_start_ratio=_ratio(int((mine & cold).sum()), int((mine & ran).sum())),
                ttft_s=_quantiles(ttft_ns[mine & kept]),
            )
        )
    return rows


def _tpot(requests: RequestColumns, kept: Bool) -> Quantiles:
    many = kept & (requests.output_tokens > 1)
    decode = (requests.finished_ns - requests.first_ns)[many]
    return _quantiles(decode / (requests.output_tokens[many] - 1))


def _by_kind(decisions: Sequence[DecisionRow]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in decisions:
        counts[row.kind] = counts.get(row.kind, 0) + row.count
    return dict(sorted(counts.items()))


def _weights(function: I32, functions: int) -> F64:
    return np.bincount(function, minlength=functions).astype(np.float64)


def summarise(record: RunRecord, *, slo_ttft_s: float = 2.0, warmup_ns: int = 0) -> SummaryRow:
    """Return the run's row.

    Args:
        record: What the run left behind.
        slo_ttft_s: A finished request is good where its TTFT is at most this.
        warmup_ns: Requests that arrived earlier are left out of quantiles and deciles. Counts,
            ratios of counts, GPU shares, goodput and cost are over the whole run.

    Cost: O(requests log requests + spans).
    """
    q = record.requests
    outcome = np.asarray(q.outcome)
    done, started = outcome == Outcome.FINISHED, q.started_ns >= 0
    _check(q, done)
    counts = [int((outcome == kind).sum()) for kind in Outcome]
    arrived = len(outcome)
    assert sum(counts) == arrived, "arrived = finished + refused + aborted + unfinished"
    kept = done & (q.arrived_ns >= warmup_ns)
    cold = started & (np.asarray(q.cause) != Cause.WARM)
    ttft_ns = q.first_ns - q.arrived_ns
    good = done & (ttft_ns <= round(slo_ttft_s * NS_PER_S))
    of_gpu, span_ns = gpu_rows(record.nodes), record.span_ns
    gpus = len(of_gpu)
    hbm = sum(node.gpus * node.hbm_bytes for node in record.nodes)
    busy_ns = int(record.gpu_busy_ns.sum())
    allocated = math.fsum(record.gpu_allocated_milli_ns.tolist())
    resident = math.fsum(record.gpu_resident_byte_ns.tolist())
    gpu_hours = gpus * span_ns / _NS_PER_HOUR
    cost = math.fsum(node.usd_per_hour for node in record.nodes) * span_ns / _NS_PER_HOUR
    finished, met = counts[Outcome.FINISHED], int(good.sum())
    spans = Spans.of(record.spans)
    return SummaryRow(
        policy=record.policy,
        seed=record.seed,
        arrived=arrived,
        finished=finished,
        refused=counts[Outcome.REFUSED],
        aborted=counts[Outcome.ABORTED],
        unfinished=counts[Outcome.UNFINISHED],
        cold_starts=int(cold.sum()),
        ttft_s=_quantiles(ttft_ns[kept]),
        e2e_s=_quantiles((q.finished_ns - q.arrived_ns)[kept]),
        queue_s=_quantiles((q.started_ns - q.arrived_ns)[kept]),
        gpu_allocated_pct=_pct(allocated, gpus * MILLI_PER_GPU * span_ns),
        gpu_resident_pct=_pct(resident, hbm * span_ns),
        gpu_busy_pct=_pct(busy_ns, gpus * span_ns),
        goodput_per_gpu_hour=met / gpu_hours if gpu_hours else 0.0,
        cost_usd=cost,
        result_sha256=result_sha256(record),
        span_s=span_ns / NS_PER_S,
        gpus=gpus,
        gpu_hours=gpu_hours,
        warmup_s=warmup_ns / NS_PER_S,
        measured=int(kept.sum()),
        started=int(started.sum()),
        cold_start_ratio=_ratio(int(cold.sum()), int(started.sum())),
        cold_starts_by_cause={
            CAUSE_NAME[cause]: int((cold & (np.asarray(q.cause) == cause)).sum())
            for cause in Cause
            if cause is not Cause.WARM
        },
        cold_ttft_s=_quantiles(ttft_ns[kept & cold]),
        warm_ttft_s=_quantiles(ttft_ns[kept & ~cold]),
        cold_weighted_ttft_s=_cold_weighted(record, done=done, warmup_ns=warmup_ns),
        tpot_s=_tpot(q, kept),
        slo_ttft_s=slo_ttft_s,
        slo_met=met,
        slo_met_ratio=_ratio(met, arrived),
        gpu_busy_of_allocated_pct=_pct(busy_ns * MILLI_PER_GPU, allocated) if allocated else None,
        gpu_state_pct=state_pct(spans, gpus=gpus, span_ns=span_ns),
        fragmentation_pct=fragmentation_pct(
            spans,
            nodes=record.nodes,
            functions=record.functions,
            weight=_weights(q.function, len(record.functions)),
            span_ns=span_ns,
        ),
        fairness_jain=_fairness(q.function, good),
        cost_usd_per_1k_finished=_ratio(1_000 * cost, finished),
        popularity_deciles=_deciles(q.function, ttft_ns, kept=kept, ran=started, cold=cold),
        link_bytes=dict(sorted(record.link_bytes.items())),
        counters=dict(sorted(record.counters.items())),
        decisions_by_kind=_by_kind(record.decisions),
    )
