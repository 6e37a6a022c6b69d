"""What the page's scripts draw: every figure reduced to a few thousand numbers per policy.

Pictures of single runs show each policy's first seed; tables show every seed.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from inferx.core.types import I32, I64, Bool
from inferx.core.units import GIB, NS_PER_S
from inferx.sim.manifest import NodeFact
from inferx.sim.metrics import CAUSE_NAME, SummaryRow
from inferx.sim.occupancy import GROUP_OF_STATE, GROUPS, Spans
from inferx.sim.output import read_manifest, read_summary
from inferx.sim.report.binning import Window, lanes_of, overlap, pack, strip
from inferx.sim.stats import PAIRED_METRICS, mean_interval, metric

__all__ = ["PAGE", "payload"]

PAGE: Final = "report.html"
"""The page's name in a run directory."""
_CELLS: Final = 1_200_000
"""Budget of strip cells over the whole page: 4 MB in the worst case, a tenth of it in most."""
_AREA_BINS: Final = 240
_CAUSE_BINS: Final = 96
_HISTOGRAM_BINS: Final = 64
_DETAIL_NS: Final = 1_800 * NS_PER_S
"""Runs longer than this also get a close-up of their busiest twelfth."""
# Fine in the tail, where policies differ.
_PROBABILITY: Final = np.unique(
    np.concatenate([np.linspace(0, 1, 101), 1 - np.logspace(-2, -5, 61), [0.0]]).round(7)
)
_COUNTS: Final = ("arrived", "finished", "refused", "aborted", "unfinished")
_TABLE: Final = (*PAIRED_METRICS, "e2e_s.p90")
_COST: Final = ("cost_usd_per_1k_finished", "slo_met", "gpu_hours", "fairness_jain")
_EXTRA: Final = ("fragmentation_pct", "cold_ttft_s.p50", "cold_ttft_s.p99")


def _trim(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def _list(values: np.ndarray) -> list[float]:
    return [float(f"{value:.4g}") for value in values.tolist()]


@dataclass(slots=True, frozen=True)
class _Run:
    """One policy's first seed, as columns; functions are ranks of popularity."""

    requests: pa.Table
    spans: Spans
    function: I32
    cause: I32
    kept: Bool
    """Finished, and arrived after the warm-up."""
    answered: float
    """Share of the requests that arrived after the warm-up which finished."""

    def ns(self, name: str) -> np.ndarray:
        return np.asarray(self.requests[name].to_numpy())


def _codes(column: "pa.ChunkedArray[Any]", words: Sequence[str]) -> I32:
    found = pc.index_in(column.cast(pa.string()), value_set=pa.array(words, pa.string()))
    return np.asarray(found.fill_null(-1).to_numpy(), dtype=np.int32)


def _read(path: Path, name: str, row: SummaryRow) -> pa.Table:
    return pq.read_table(
        path / f"{name}.parquet",
        filters=[("policy", "==", row.policy), ("seed", "==", row.seed)],  # pyright: ignore[reportArgumentType]  # the stubs accept no tuple
    )


def _spans(table: pa.Table, functions: Sequence[str]) -> Spans:
    states = table["state"].cast(pa.string())
    names = list(GROUP_OF_STATE)
    group = np.array([GROUP_OF_STATE[name] for name in names], dtype=np.int32)
    numbers = {
        name: table[name].to_numpy()
        for name in (
            *("from_ns", "to_ns", "node", "gpu", "pod", "milli_gpu"),
            *("hbm_bytes", "host_bytes", "nvme_bytes", "snapshots"),
        )
    }
    return Spans(
        function=_codes(table["function"], functions),
        group=group[_codes(states, names)],
        **numbers,
    )


def _load(path: Path, row: SummaryRow, functions: Sequence[str]) -> _Run:
    requests = _read(path, "requests", row)
    done = pc.equal(requests["outcome"].cast(pa.string()), pa.scalar("finished")).to_numpy()
    late = requests["arrived_ns"].to_numpy() >= round(row.warmup_s * NS_PER_S)
    return _Run(
        requests=requests,
        spans=_spans(_read(path, "timeline", row), functions),
        function=_codes(requests["function"], functions),
        cause=_codes(requests["cause"], CAUSE_NAME),
        kept=done & late,
        answered=float((done & late).sum() / max(late.sum(), 1)),
    )


def _curve(values: np.ndarray) -> list[float]:
    """Exact quantiles on the grid of probabilities; empty without values."""
    ordered = np.sort(values)
    count = len(ordered)
    if not count:
        return []
    # The grid has seven decimals; whole numbers keep ceil() exact.
    rank = -(-np.rint(_PROBABILITY * 1e7).astype(np.int64) * count // 10**7)
    return _list(ordered[np.clip(rank, 1, count) - 1] / NS_PER_S)


def _histogram(ns: np.ndarray, edges_s: np.ndarray) -> list[int]:
    counts, _ = np.histogram(np.clip(ns / NS_PER_S, edges_s[0], edges_s[-1]), edges_s)
    return [int(count) for count in counts]


def _mean_over_time(spans: Spans, mine: Bool, weight: np.ndarray, window: Window) -> list[float]:
    rows = np.flatnonzero(mine)
    row, cell, ns = overlap(spans.from_ns[rows], spans.to_ns[rows], window)
    total = np.bincount(cell, weights=ns * weight[rows][row], minlength=window.bins)
    return _list(total / np.diff(window.edges_ns))


def _first_slice(spans: Spans) -> Bool:
    """Mark one row per pod and moment: a pod over four GPUs has four rows."""
    order = np.lexsort((spans.gpu, spans.from_ns, spans.pod))
    pod, at = spans.pod[order], spans.from_ns[order]
    fresh = np.ones(len(order), dtype=bool)
    fresh[1:] = (pod[1:] != pod[:-1]) | (at[1:] != at[:-1]) | (pod[1:] < 0)
    marked = np.zeros(len(order), dtype=bool)
    marked[order] = fresh
    return marked


def _tiers(spans: Spans, window: Window) -> dict[str, Any]:
    """What lies where, in GiB and in number: tier -> part of it -> mean of each bin.

    Host memory holds two things: pods that have no GPU, whole, and the CPU side of those that do.
    """
    live, disk = spans.gpu >= 0, spans.snapshots > 0
    asleep = ~live & ~disk
    one, first = np.ones(len(spans.gpu)), _first_slice(spans)

    def gib(mine: Bool, size_bytes: I64) -> list[float]:
        return _mean_over_time(spans, mine, size_bytes / GIB, window)

    return {
        "bytes": {
            "HBM": {"HBM": gib(live, spans.hbm_bytes)},
            "DRAM": {
                "suspended": gib(asleep, spans.host_bytes),
                "live": gib(live, spans.host_bytes),
            },
            "NVMe": {"NVMe": gib(disk, spans.nvme_bytes)},
        },
        "count": {
            "HBM": {"HBM": _mean_over_time(spans, live & first, one, window)},
            "DRAM": {"suspended": _mean_over_time(spans, asleep & first, one, window)},
            "NVMe": {"NVMe": _mean_over_time(spans, disk, spans.snapshots, window)},
        },
    }


def _capacity_gib(facts: Sequence[NodeFact]) -> dict[str, float]:
    sizes = {
        "HBM": sum(node.count * node.gpus * node.hbm_bytes for node in facts),
        "DRAM": sum(node.count * node.host_bytes for node in facts),
        "NVMe": sum(node.count * node.nvme_bytes for node in facts),
    }
    return {tier: float(f"{size / GIB:.4g}") for tier, size in sizes.items()}


def _states(spans: Spans, gpus: int, window: Window) -> dict[str, list[float]]:
    live = spans.gpu >= 0
    share = spans.milli_gpu / (10.0 * max(gpus, 1))
    return {
        name: _mean_over_time(spans, live & (spans.group == group), share, window)
        for group, name in enumerate(GROUPS[:-1])
    }


def _by_cause(run: _Run, decile: np.ndarray, span_ns: int) -> dict[str, Any]:
    at = run.ns("arrived_ns") * _CAUSE_BINS // max(span_ns, 1)
    ran = run.ns("started_ns") >= 0
    over_time, by_decile = {}, {}
    for code, name in enumerate(CAUSE_NAME[1:], start=1):
        mine = run.cause == code
        cells = np.clip(at[mine], 0, _CAUSE_BINS - 1)
        over_time[name] = np.bincount(cells, minlength=_CAUSE_BINS).tolist()
        by_decile[name] = np.bincount(decile[run.function[mine]], minlength=10).tolist()
    started = np.bincount(decile[run.function[ran]], minlength=10).tolist()
    arrived = np.bincount(np.clip(at, 0, _CAUSE_BINS - 1), minlength=_CAUSE_BINS).tolist()
    return {"time": over_time, "decile": by_decile, "started": started, "arrived": arrived}


def _windows(run: _Run, span_ns: int, bins: int) -> list[Window]:
    whole = Window(0, span_ns, bins)
    if span_ns < _DETAIL_NS:
        return [whole]
    width = span_ns // 12
    counts = np.bincount(np.clip(run.ns("arrived_ns") * 48 // span_ns, 0, 47), minlength=48)
    near = np.convolve(counts, np.ones(4, dtype=np.int64), mode="valid")
    start = int(near.argmax()) * span_ns // 48
    return [whole, Window(start, start + width, bins)]


def _edges(rows: Sequence[SummaryRow]) -> np.ndarray:
    top = max((row.ttft_s.p99 or 1.0 for row in rows), default=1.0)
    return np.logspace(-3, float(np.log10(max(top * 3, 1.0))), _HISTOGRAM_BINS + 1)


def _picture(run: _Run, row: SummaryRow, edges_s: np.ndarray, decile: np.ndarray, bins: int) -> Any:
    span_ns = max(round(row.span_s * NS_PER_S), 1)
    area = Window(0, span_ns, _AREA_BINS)
    arrived, kept = run.ns("arrived_ns"), run.kept
    ttft = run.ns("first_ns") - arrived
    lanes = lanes_of(run.spans, row.gpus)
    return {
        "span_s": row.span_s,
        "answered": run.answered,
        "curves": {
            "ttft": _curve(ttft[kept]),
            "e2e": _curve((run.ns("finished_ns") - arrived)[kept]),
            "queue": _curve((run.ns("started_ns") - arrived)[kept]),
        },
        "warm": _histogram(ttft[kept & (run.cause == 0)], edges_s),
        "cold": _histogram(ttft[kept & (run.cause > 0)], edges_s),
        "states": _states(run.spans, row.gpus, area),
        "tiers": _tiers(run.spans, area),
        "causes": _by_cause(run, decile, span_ns),
        "lanes": lanes.gpu.tolist(),
        "strips": [
            {
                "from": window.from_ns / NS_PER_S,
                "to": window.to_ns / NS_PER_S,
                "bins": window.bins,
                "cells": pack(strip(run.spans, lanes, window)),
            }
            for window in _windows(run, span_ns, bins)
        ],
    }


def _popularity(path: Path, row: SummaryRow) -> tuple[list[str], np.ndarray]:
    """Return function names by arrivals, most first, and the decile of each rank.

    Functions that only hold pods come last, in the last decile.
    """
    asked = _read(path, "requests", row)["function"].cast(pa.string()).to_pylist()
    counts = Counter(name for name in asked if name is not None)
    names = sorted(counts, key=lambda name: (-counts[name], name))
    decile = np.full(len(names), 9, dtype=np.int64)
    for number, group in enumerate(np.array_split(np.arange(len(names)), 10)):
        decile[group] = number
    held = pq.read_table(path / "timeline.parquet", columns=["function"])["function"]
    rest = sorted({str(name) for name in held.unique().to_pylist() if name} - counts.keys())
    return names + rest, np.append(decile, np.full(len(rest), 9, dtype=np.int64))


def _policy_row(rows: Sequence[SummaryRow]) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for name in (*_TABLE, *_COST, *_EXTRA):
        known = [value for row in rows if (value := metric(row, name)) is not None]
        found = mean_interval(known) if known else None
        half = None if found is None else _trim(found.half_width)
        cells[name] = None if found is None else [_trim(found.mean), half]
    return {
        "policy": rows[0].policy,
        "seeds": [row.seed for row in rows],
        "cells": cells,
        "counts": {name: sum(getattr(row, name) for row in rows) for name in _COUNTS},
    }


def _cluster(facts: Sequence[NodeFact]) -> list[int]:
    return [node.gpus for node in facts for _ in range(node.count)]


def payload(path: Path) -> dict[str, Any]:
    """Read `path`, a run directory, and return the page's data."""
    summary, manifest = read_summary(path), read_manifest(path)
    groups: dict[str, list[SummaryRow]] = {}
    for row in summary.rows:
        groups.setdefault(row.policy, []).append(row)
    firsts = [rows[0] for rows in groups.values()]
    names, decile = _popularity(path, firsts[0]) if firsts else ([], np.zeros(0, np.int64))
    edges_s = _edges(firsts)
    gpus = max((row.gpus for row in firsts), default=0)
    bins = int(np.clip(_CELLS // max(2 * gpus * len(firsts), 1), 120, 900))
    facts = msgspec.to_builtins(manifest)
    # The page is the same for the same results: the date stays in the manifest.
    facts.pop("wall_clock")
    # The page cannot hold its own checksum; drawn again, it says what it said.
    facts["outputs"].pop(PAGE, None)
    return {
        "complete": summary.complete,
        "baseline": summary.baseline,
        "slo_ttft_s": summary.slo_ttft_s,
        "warmup_s": summary.warmup_s,
        "span_s": max((row.span_s for row in firsts), default=0.0),
        "requests": max((row.arrived for row in firsts), default=0),
        "gpus": gpus,
        "nodes": _cluster(manifest.cluster),
        "capacity_gib": _capacity_gib(manifest.cluster),
        "functions": names,
        "probability": _PROBABILITY.tolist(),
        "edges_s": _list(edges_s),
        "groups": list(GROUPS),
        "causes": list(CAUSE_NAME[1:]),
        "rows": [_policy_row(rows) for rows in groups.values()],
        "hashes": {row.policy: row.result_sha256 for row in firsts},
        "paired": msgspec.to_builtins(summary.paired),
        "pictures": [
            _picture(_load(path, row, names), row, edges_s, decile, bins) for row in firsts
        ],
        "manifest": facts,
    }
