"""What is compared: numbers of a live run, of the predictions of it, and how far these are off."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from inferx.sim.metrics import CAUSE_NAME, SummaryRow
from inferx.sim.output import read_summary
from inferx.sim.record import RunRecord
from inferx.sim.tables import requests_table

__all__ = ["COUNTS", "TIMES", "columns_of", "numbers", "request_columns", "same_cause"]

TIMES = {
    "ttft_s.p50": "TTFT p50",
    "ttft_s.p90": "TTFT p90",
    "ttft_s.p99": "TTFT p99",
    "warm_ttft_s.p50": "TTFT p50, warm",
    "cold_ttft_s.p50": "TTFT p50, waited for a start",
    "cold_ttft_s.p90": "TTFT p90, waited for a start",
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


def numbers(row: SummaryRow) -> dict[str, float]:
    """Return a run's numbers by the keys of `TIMES` and `COUNTS`."""
    found: dict[str, float] = {}
    for key in TIMES:
        name, _, quantile = key.partition(".")
        if quantile:
            value = getattr(getattr(row, name), quantile)
            found[key] = float("nan") if value is None else value
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


def request_columns(run: Path) -> dict[str, dict[str, list]]:
    """Return, for each of a run's records, its requests in order of arrival."""
    table = pq.read_table(run / "requests.parquet").to_pandas()
    return {
        row.policy: _columns(table.loc[table.policy == row.policy])
        for row in read_summary(run).rows
    }


def columns_of(record: RunRecord) -> dict[str, list]:
    """Return the same of one record."""
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
