"""Azure Functions 2019 day files: invocations of each function in each of the day's 1,440 minutes.

Function = owner, app and function together, tenant = owner. The counts say nothing finer than a
minute, so a minute's arrivals are spread over it uniformly and independently, as a Poisson process
would given their number, from the reader's seed. Durations are kept in a companion file: a function
gets its average there; without the file, or not in it, it gets `DEFAULT_DURATION_NS`.

Memory: the counts that are not zero, 12 bytes each, and the arrivals of one minute.

Source: Shahrad et al., "Serverless in the Wild", ATC 2020; Azure/AzurePublicDataset (CC-BY-4.0).
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from inferx.core.errors import DescriptionError
from inferx.core.rng import stream
from inferx.core.types import I32, I64
from inferx.core.units import NS_PER_MS, NS_PER_S
from inferx.sim.workload.source import Head, Rows, Source, Texts, shown, texts
from inferx.sim.workload.table import Table, joined, tables

NAME = "azure-functions-2019"
EXPECTS = "HashOwner,HashApp,HashFunction,Trigger,1,2,...,1440"
ORDERED = True
COMPANION = True

DEFAULT_DURATION_NS = NS_PER_S
MAX_PER_MINUTE = 10_000_000
"""Most invocations of one function in one minute."""

_KEY = ("HashOwner", "HashApp", "HashFunction")
_MINUTES = tuple(str(minute) for minute in range(1, 1441))
_MINUTE_NS = 60 * NS_PER_S


def matches(head: Head) -> bool:
    """Tell by the key and the minutes."""
    return head.columns.issuperset((*_KEY, *_MINUTES))


def rows(source: Source) -> Iterator[Rows]:
    """Read all counts, then make the arrivals, a minute at a time."""
    cells: list[tuple[I32, I32, I32]] = []
    tenant_of: dict[int, int] = {}
    for table in tables(source, (*_KEY, *_MINUTES)):
        function = source.functions.codes(_names(table))
        tenant = source.tenants.codes(table.text("HashOwner"))
        tenant_of.update(zip(function.tolist(), tenant.tolist(), strict=True))
        counts = _counts(table)
        at, row = counts.nonzero()
        cells.append((at.astype(np.int32), function[row], counts[at, row]))
    if not cells:
        return
    minutes, functions, counts = (np.concatenate(part) for part in zip(*cells, strict=True))
    cells.clear()
    order = np.argsort(minutes, kind="stable")
    functions, counts = functions[order], counts[order]
    edges = np.searchsorted(minutes[order], np.arange(len(_MINUTES) + 1))
    tenants = np.array([tenant_of[code] for code in range(len(tenant_of))], np.int32)
    durations_ns = _durations(source)
    rng = stream(source.seed, "workload/azure-functions-2019")
    for minute in range(len(_MINUTES)):
        cell = slice(edges[minute], edges[minute + 1])
        function = np.repeat(functions[cell], counts[cell])
        inside_ns = (rng.random(len(function)) * _MINUTE_NS).astype(np.int64)
        order = np.argsort(inside_ns, kind="stable")
        function = function[order]
        yield Rows(
            at_ns=inside_ns[order] + minute * _MINUTE_NS,
            function=function,
            duration_ns=durations_ns[function],
            tenant=tenants[function],
            place=lambda row: f"{source.path}: arrival {row}",
        )


def _names(table: Table) -> Texts:
    return joined([table.text(name) for name in _KEY], "/")


def _counts(table: Table) -> I32:
    """Return the counts, shape (minutes, rows)."""
    text = pa.concat_arrays([table.text(name) for name in _MINUTES])
    try:
        counts: I32 = pc.cast(text, pa.int32()).to_numpy().reshape(len(_MINUTES), len(table))
    except pa.ArrowInvalid:
        # Slower, and either finds the bad cell or reads what the cast above was too strict for.
        counts = np.stack([_whole(table, name) for name in _MINUTES])
    wrong = (counts < 0) | (counts > MAX_PER_MINUTE)
    if wrong.any():
        minute, row = np.argwhere(wrong)[0]
        what = f"{counts[minute, row]} invocations in minute {minute + 1}"
        raise table.error(int(row), f"{what}; expected 0 to {MAX_PER_MINUTE}")
    return counts


def _whole(table: Table, name: str) -> I32:
    values = table.numbers(name, high=MAX_PER_MINUTE, called=f"column {name!r}")
    wrong = values != np.floor(values)
    if wrong.any():
        found = shown(table.text(name)[int(wrong.argmax())].as_py())
        what = f"column {name!r} is {found}; expected a whole number of invocations"
        raise table.error(int(wrong.argmax()), what)
    return values.astype(np.int32)


def _durations(source: Source) -> I64:
    """Return each function's duration, shape (functions,)."""
    known = {} if source.durations is None else _averages(source.durations)
    names = source.functions.names
    return np.array([known.get(name, DEFAULT_DURATION_NS) for name in names], np.int64)


def _averages(path: Path) -> dict[str, int]:
    companion = Source(path=path)
    columns = (*_KEY, "Average")
    if not companion.head().columns.issuperset(columns):
        raise DescriptionError(f"{path}:1: expected columns {','.join(columns)}")
    known: dict[str, int] = {}
    for table in tables(companion, columns):
        averages = table.durations_ns("Average", scale_ns=NS_PER_MS).tolist()
        known.update(zip(texts(_names(table)), averages, strict=True))
    return known
