"""`inferx trace info` and `reuse`: what a trace is, without changing it."""

import dataclasses
from pathlib import Path

import click

from inferx.cli.trace.files import watched
from inferx.cli.trace.options import FILE, JSON, READ_SEED, READING, example, options, seconds_ns
from inferx.cli.trace.tables import print_json, print_reuse, print_stats
from inferx.core.errors import DescriptionError
from inferx.sim.workload.read import open_trace
from inferx.sim.workload.reuse import reuse as count_reuse
from inferx.sim.workload.stats import trace_stats

__all__ = ["info", "reuse"]


@click.command(
    epilog=example(
        "inferx trace info traces/demo.parquet",
    )
)
@click.argument("trace", type=FILE)
@options(READ_SEED, *READING, JSON)
def info(*, trace: Path, seed: int, sort: bool, durations: Path | None, as_json: bool) -> None:
    """Describe a trace: rate, burstiness, popularity, sizes.

    Quantiles are within 0.1 %; all other figures are exact.
    """
    reader = open_trace(trace, seed=seed, sort=sort, durations=durations)
    described = trace_stats(watched(reader))
    if as_json:
        facts = {"path": str(trace), "format": reader.format, "dropped": reader.dropped}
        print_json({**facts, **dataclasses.asdict(described)})
        return
    print_stats(reader, described)


@click.command(
    epilog=example(
        "inferx trace reuse traces/demo.parquet --keep-alive 10,60 --slots 1,4 --json",
    )
)
@click.argument("trace", type=FILE)
@click.option(
    "--keep-alive",
    default="10,60,600,1800",
    show_default=True,
    metavar="SECONDS,...",
    help="Count cold starts where functions stay this long after an arrival.",
)
@click.option(
    "--slots",
    default="1,4,16",
    show_default=True,
    metavar="COUNT,...",
    help="Count misses of a least-recently-used cache of so many functions.",
)
@options(READ_SEED, *READING, JSON)
def reuse(
    *,
    trace: Path,
    keep_alive: str,
    slots: str,
    seed: int,
    sort: bool,
    durations: Path | None,
    as_json: bool,
) -> None:
    """Count how often a function is found cold, exactly.

    A cold start is a first use, or a gap between arrivals of one function above the keep-alive.
    """
    keeps = {item: seconds_ns("keep-alive", item) for item in _items(keep_alive)}
    rooms = {item: _slots(item) for item in _items(slots)}
    reader = open_trace(trace, seed=seed, sort=sort, durations=durations)
    counted = count_reuse(
        watched(reader), keep_alive_ns=list(keeps.values()), slots=list(rooms.values())
    )
    cold = {text: counted.cold_starts_by_keep_alive_ns[ns] for text, ns in keeps.items()}
    misses = {text: counted.lru_misses_by_slots[count] for text, count in rooms.items()}
    if as_json:
        print_json(
            {
                "trace": str(trace),
                "rows_with_a_model": counted.requests,
                "models": counted.functions,
                "lru_misses_by_slots": misses,
                "cold_starts_by_keep_alive_s": cold,
            }
        )
        return
    print_reuse(counted, cold, misses)


def _slots(text: str) -> int:
    if not text.isdecimal():
        raise DescriptionError(f"slots {text!r}: expected a whole number, at least 1")
    return int(text)


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]
