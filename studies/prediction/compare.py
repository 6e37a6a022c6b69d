"""What is compared: numbers of a live run, of the predictions of it, and how far these are off."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from inferx.sim.metrics import CAUSE_NAME, SummaryRow, summarise
from inferx.sim.output import read_summary
from inferx.sim.record import RunRecord
from inferx.sim.tables import requests_table

__all__ = [
    "COUNTS",
    "KINDS",
    "TIMES",
    "by_kind",
    "columns_of",
    "middle",
    "numbers_of",
    "observed_run",
    "same_cause",
    "spread",
]

KINDS = ("warm", *CAUSE_NAME[1:])
"""What a request may have waited for."""
Numbers = dict[str, float | None]

TIMES = {
    "ttft_s.p50": "TTFT p50",
    "ttft_s.p90": "TTFT p90",
    "ttft_s.p99": "TTFT p99",
    "warm_ttft_s.p50": "TTFT p50, warm",
    "cold_ttft_s.p50": "TTFT p50, waited for a start",
    "cold_ttft_s.p90": "TTFT p90, waited for a start",
    "cold_ttft_s.mean": "TTFT mean, waited for a start",
    "queue_s.p90": "wait for a slot p90",
    "tpot_s.p50": "time per output token p50",
    "e2e_s.p50": "end to end p50",
    "e2e_s.p90": "end to end p90",
    "e2e_s.p99": "end to end p99",
    "gpu_seconds": "GPU-seconds charged to pods",
    "busy_gpu_seconds": "GPU-seconds with a request in service",
}
"""Seconds, by their key."""
COUNTS = {
    "finished": "requests finished",
    "refused": "requests refused",
    "aborted": "requests aborted",
    "cold_starts": "requests that waited for a start",
    **{f"waited.{cause}": f"… {cause}" for cause in CAUSE_NAME[1:]},
    "starts_cold": "pods started from nothing",
    "starts_restore-nvme": "pods restored from the disk",
    "starts_restore-remote": "pods restored from the shared store",
    "starts_resume": "pods resumed",
    "suspends": "pods suspended",
    "snapshots": "pods dumped",
    "stops": "pods ended",
    "evictions": "pods that left for another",
}
"""Whole numbers, by their key; a counter that nothing counted is left out."""


def numbers_of(record: RunRecord) -> Numbers:
    """Return a run's numbers by the keys of `TIMES` and `COUNTS`."""
    return _numbers(summarise(record), columns_of(record))


def observed_run(run: Path) -> tuple[Numbers, dict[str, list]]:
    """Return a live run's numbers, and its requests in order of arrival."""
    row = read_summary(run).rows[0]
    table = pq.read_table(run / "requests.parquet").to_pandas()
    columns = _columns(table.loc[table.policy == row.policy])
    return _numbers(row, columns), columns


def _numbers(row: SummaryRow, columns: dict[str, list]) -> Numbers:
    found: Numbers = {}
    for key in TIMES:
        name, _, quantile = key.partition(".")
        if quantile and quantile != "mean":
            found[key] = getattr(getattr(row, name), quantile)
    waited = [ttft for kind in KINDS[1:] for ttft in _of_kind(columns, kind)]
    found["cold_ttft_s.mean"] = float(np.mean(waited)) if waited else None
    gpu_s = row.gpus * row.span_s
    found["gpu_seconds"] = row.gpu_allocated_pct / 100 * gpu_s
    found["busy_gpu_seconds"] = row.gpu_busy_pct / 100 * gpu_s
    for key in COUNTS:
        name, _, cause = key.partition(".")
        if cause:
            found[key] = row.cold_starts_by_cause[cause]
        else:
            found[key] = getattr(row, name, None) or row.counters.get(name, 0)
    return found


def _of_kind(columns: dict[str, list], kind: str) -> list[float]:
    """Return the times to first token of the requests that waited for a kind of start."""
    return [
        ttft
        for ttft, cause in zip(columns["ttft_s"], columns["cause"], strict=True)
        if cause == kind and ttft is not None
    ]


def middle(rows: Sequence[Numbers]) -> Numbers:
    """Return each number's median over runs, of those that have it."""
    return {key: _over(rows, key, np.median) for key in rows[0]}


def spread(rows: Sequence[Numbers]) -> dict[str, list[float | None]]:
    """Return each number's least and largest over runs."""
    return {key: [_over(rows, key, np.min), _over(rows, key, np.max)] for key in rows[0]}


def _over(rows: Sequence[Numbers], key: str, of) -> float | None:
    values = [value for row in rows if (value := row[key]) is not None]
    return float(of(values)) if values else None


def by_kind(runs: Sequence[dict[str, list]]) -> dict[str, list[float]]:
    """Return for each kind of start how many a run waited for it, and TTFT p10, p50 and p90.

    Over the requests of all runs together; kinds that nobody waited for are left out.
    """
    found: dict[str, list[float]] = {}
    for kind in KINDS:
        times = [ttft for columns in runs for ttft in _of_kind(columns, kind)]
        if times:
            marks = np.quantile(times, (0.1, 0.5, 0.9), method="inverted_cdf")
            found[kind] = [len(times) / len(runs), *(round(float(one), 6) for one in marks)]
    return found


def columns_of(record: RunRecord) -> dict[str, list]:
    """Return a record's requests in order of arrival."""
    return _columns(requests_table(record).to_pandas())


def _columns(table) -> dict[str, list]:
    names = ("function", "cause", "arrived_ns", "ttft_s", "e2e_s")
    return {name: [_plain(value) for value in table[name]] for name in names}


def same_cause(live: Sequence[str], predicted: Sequence[str]) -> float:
    """Return the share of requests that waited for the same: a start of the same kind, or none."""
    return float(np.mean([one == two for one, two in zip(live, predicted, strict=True)]))


def _plain(value):
    if isinstance(value, float):
        return None if np.isnan(value) else round(value, 6)
    return int(value) if isinstance(value, np.integer) else value
