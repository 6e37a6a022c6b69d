"""The three tables of a run, as Arrow: one schema each, the same for every policy and seed.

Names and other words are dictionaries in a fixed order, so that equal records give equal bytes.
Times keep the record's nanoseconds, -1 for "never"; `*_s` columns are null where undefined.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa

from inferx.core.units import NS_PER_S
from inferx.sim.metrics import CAUSE_NAME, OUTCOME_NAME
from inferx.sim.record import Outcome, RunRecord
from inferx.sim.spans import column, states

__all__ = ["SCHEMAS", "decisions_table", "requests_table", "timeline_table"]

_Column: TypeAlias = "pa.Array[Any]"
_Values: TypeAlias = "_Column | np.ndarray | Sequence[object]"
_WORD: Final = pa.dictionary(pa.int32(), pa.string())
_RUN: Final = [("policy", _WORD), ("seed", pa.int64())]

SCHEMAS: Final[dict[str, pa.Schema]] = {
    "requests": pa.schema(
        [
            *_RUN,
            ("request", pa.int64()),
            ("function", _WORD),
            ("input_tokens", pa.int32()),
            ("output_tokens", pa.int32()),
            ("arrived_ns", pa.int64()),
            ("started_ns", pa.int64()),
            ("first_ns", pa.int64()),
            ("finished_ns", pa.int64()),
            ("outcome", _WORD),
            ("cause", _WORD),
            ("pod", pa.int64()),
            ("refused_ns", pa.int64()),
            ("refused_why", _WORD),
            ("queue_s", pa.float64()),
            ("ttft_s", pa.float64()),
            ("e2e_s", pa.float64()),
        ]
    ),
    "decisions": pa.schema(
        [
            *_RUN,
            ("at_ns", pa.int64()),
            ("kind", _WORD),
            ("function", _WORD),
            ("pod", pa.int64()),
            ("node", pa.int32()),
            ("gpus", pa.list_(pa.int32())),
            ("start", _WORD),
            ("reason", _WORD),
            ("victims", pa.list_(pa.int64())),
            ("explain", pa.string()),
            ("count", pa.int64()),
            ("until_ns", pa.int64()),
            ("again_ns", pa.list_(pa.int64())),
            ("again_explain", pa.list_(pa.string())),
        ]
    ),
    "timeline": pa.schema(
        [
            *_RUN,
            ("from_ns", pa.int64()),
            ("to_ns", pa.int64()),
            ("node", pa.int32()),
            ("gpu", pa.int32()),
            ("pod", pa.int64()),
            ("function", _WORD),
            ("state", _WORD),
            ("milli_gpu", pa.int64()),
            ("hbm_bytes", pa.int64()),
            ("host_bytes", pa.int64()),
            ("nvme_bytes", pa.int64()),
            ("snapshots", pa.int64()),
        ]
    ),
}


def _coded(codes: np.ndarray, words: Sequence[str], mask: np.ndarray | None = None) -> _Column:
    indices = pa.array(codes.astype(np.int32), pa.int32(), mask=mask)
    return pa.DictionaryArray.from_arrays(indices, pa.array(words, pa.string()))  # pyright: ignore[reportUnknownVariableType]  # the stubs leave its parameters open


def _words(values: Sequence[str]) -> _Column:
    """Code words in the order in which they first occur."""
    rank = {word: code for code, word in enumerate(dict.fromkeys(values))}
    codes = np.fromiter((rank[value] for value in values), np.int32, len(values))
    return _coded(codes, list(rank))


def _lists(values: Sequence[Sequence[object]], kind: pa.DataType) -> _Column:
    """Join lists end to end, without an object a number on the way."""
    ends = np.cumsum([0, *map(len, values)], dtype=np.int32)
    parts = [pa.array(value, kind) for value in values if len(value)]
    joined = pa.concat_arrays(parts) if parts else pa.array([], kind)
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), joined)


def _names(record: RunRecord, function: np.ndarray) -> _Column:
    """Return names of functions; null for -1, "no function"."""
    return _coded(function, [spec.name for spec in record.functions], function < 0)


def _table(kind: str, record: RunRecord, rows: int, columns: Mapping[str, _Values]) -> pa.Table:
    every: dict[str, _Values] = {
        "policy": _coded(np.zeros(rows, np.int32), [record.policy]),
        "seed": np.full(rows, record.seed, np.int64),
        **columns,
    }
    schema = SCHEMAS[kind]
    arrays = [
        value if isinstance(value, pa.Array) else pa.array(value, kind)
        for name, kind in zip(schema.names, schema.types, strict=True)
        for value in [every[name]]
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _seconds(to_ns: np.ndarray, from_ns: np.ndarray, known: np.ndarray) -> _Column:
    return pa.array((to_ns - from_ns) / NS_PER_S, pa.float64(), mask=~known)


def requests_table(record: RunRecord) -> pa.Table:
    """One row a request, in arrival order; `request` is its row in the trace."""
    q = record.requests
    rows = len(q.function)
    started, first = q.started_ns >= 0, q.first_ns >= 0
    done = np.asarray(q.outcome) == Outcome.FINISHED
    words = list(dict.fromkeys(why for _, why in record.refusals.values()))
    rank = {word: code for code, word in enumerate(words)}
    refused_ns, why = np.full(rows, -1, np.int64), np.full(rows, -1, np.int32)
    for request, (at_ns, word) in record.refusals.items():
        refused_ns[request], why[request] = at_ns, rank[word]
    return _table(
        "requests",
        record,
        rows,
        {
            "request": np.arange(rows, dtype=np.int64),
            "function": _names(record, q.function),
            "input_tokens": q.input_tokens,
            "output_tokens": q.output_tokens,
            "arrived_ns": q.arrived_ns,
            "started_ns": q.started_ns,
            "first_ns": q.first_ns,
            "finished_ns": q.finished_ns,
            "outcome": _coded(np.asarray(q.outcome), OUTCOME_NAME),
            "cause": _coded(np.asarray(q.cause), CAUSE_NAME, ~started),
            "pod": q.pod,
            "refused_ns": refused_ns,
            "refused_why": _coded(why, words, why < 0),
            "queue_s": _seconds(q.started_ns, q.arrived_ns, started),
            "ttft_s": _seconds(q.first_ns, q.arrived_ns, first),
            "e2e_s": _seconds(q.finished_ns, q.arrived_ns, done),
        },
    )


def decisions_table(record: RunRecord) -> pa.Table:
    """One row a decision, or a deferral with its repetitions, in the order of the first."""
    rows = record.decisions
    function = np.fromiter((row.function for row in rows), np.int32, len(rows))
    return _table(
        "decisions",
        record,
        len(rows),
        {
            "at_ns": [row.at_ns for row in rows],
            "kind": _words([row.kind for row in rows]),
            "function": _names(record, function),
            "pod": [row.pod for row in rows],
            "node": [row.node for row in rows],
            "gpus": [list(row.gpus) for row in rows],
            "start": _words([row.start for row in rows]),
            "reason": _words([row.reason for row in rows]),
            "victims": [list(row.victims) for row in rows],
            "explain": [row.explain for row in rows],
            "count": [row.count for row in rows],
            "until_ns": [row.until_ns for row in rows],
            "again_ns": _lists([row.again_ns for row in rows], pa.int64()),
            "again_explain": _lists([row.again_explain for row in rows], pa.string()),
        },
    )


def timeline_table(record: RunRecord) -> pa.Table:
    """One row a span, in the record's order."""
    rows = record.spans
    schema = SCHEMAS["timeline"]
    codes, used = states(rows)
    words = {"policy", "seed", "function", "state"}
    numbers = [
        (name, kind.to_pandas_dtype())
        for name, kind in zip(schema.names, schema.types, strict=True)
        if name not in words
    ]
    return _table(
        "timeline",
        record,
        len(rows),
        {
            **{name: column(rows, name, kind) for name, kind in numbers},  # type: ignore[arg-type]  # the stubs take a type for a value of it
            "function": _names(record, column(rows, "function", np.int32)),
            "state": _coded(codes, used),
        },
    )
