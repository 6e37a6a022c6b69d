"""How `inferx trace` shows what it found: tables for people, JSON for programs."""

import json
import math
from collections.abc import Sequence
from typing import Any, cast

import click
from rich.console import Console
from rich.table import Table

from inferx.core.units import NS_PER_S
from inferx.sim.workload.read import TraceReader
from inferx.sim.workload.reuse import Reuse
from inferx.sim.workload.stats import Popular, Sizes, TraceStats

__all__ = ["print_json", "print_reuse", "print_stats", "print_written"]


def print_json(facts: dict[str, object]) -> None:
    """Print one JSON object; NaN, which JSON does not have, becomes null."""
    click.echo(json.dumps(_finite(facts), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in cast("dict[str, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in cast("Sequence[object]", value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_written(facts: dict[str, Any]) -> None:
    """Print what a command wrote."""
    span = f"{facts['span_ns'] / NS_PER_S:,.1f} s"
    shown = {name: value for name, value in facts.items() if name != "span_ns"}
    _print_facts("Written", {**shown, "span": span, "dropped": _reasons(facts["dropped"])})


def print_stats(reader: TraceReader, stats: TraceStats) -> None:
    """Print what `trace info` found."""
    _print_facts(
        str(reader.path),
        {
            "format": reader.format,
            "requests": f"{stats.requests:,}, {stats.token_requests:,} with tokens",
            "dropped": _reasons(reader.dropped),
            "span": f"{stats.span_ns / NS_PER_S:,.1f} s",
            "rate": f"{_number(stats.rate)} /s, at most {stats.second.peak:,} in a second, "
            f"{stats.minute.peak:,} in a minute",
            "dispersion": f"{_number(stats.second.dispersion)} by second, "
            f"{_number(stats.minute.dispersion)} by minute (Poisson: 1)",
            "gap CV": f"{_number(stats.gaps.cv)}, by function p50 "
            f"{_number(stats.gaps.per_function_cv_p50)}, p90 "
            f"{_number(stats.gaps.per_function_cv_p90)} (Poisson: 1)",
            "tied arrivals": f"{stats.gaps.tied_share:.1%}",
            "load": f"{_number(stats.load)} plain requests in service, were none delayed",
            "functions": _shares(stats.functions),
            "tenants": _shares(stats.tenants),
            "most called": ", ".join(f"{name} {n:,}" for name, n in stats.functions.first[:5]),
            "content": stats.sha256,
        },
    )
    sizes = Table("", "mean", "p50", "p90", "p99", "max")
    for column in sizes.columns[1:]:
        column.justify = "right"
    for name, size, unit in (
        ("input tokens", stats.input_tokens, 1),
        ("output tokens", stats.output_tokens, 1),
        ("duration, s", stats.duration_ns, NS_PER_S),
    ):
        if size is not None:
            sizes.add_row(name, *_row(size, unit))
    Console().print(sizes)


def print_reuse(counted: Reuse, cold: dict[str, int], misses: dict[str, int]) -> None:
    """Print what `trace reuse` counted."""
    title = f"{counted.requests:,} requests of {counted.functions:,} functions"
    table = Table("", "cold", "share", title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    rows = [(f"keep-alive {text} s", count) for text, count in cold.items()]
    rows += [(f"LRU of {text}", count) for text, count in misses.items()]
    for name, count in rows:
        table.add_row(name, f"{count:,}", f"{count / counted.requests:.1%}")
    Console().print(table)


def _print_facts(title: str, facts: dict[str, object]) -> None:
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
    Console().print(table)


def _reasons(dropped: dict[str, int]) -> str:
    return ", ".join(f"{count:,} with {why}" for why, count in dropped.items()) or "none"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:,.4g}"


def _shares(shares: Popular) -> str:
    parts = f"top 1 {shares.top1:.1%}, top 3 {shares.top3:.1%}, top 10 {shares.top10:.1%}"
    fit = f"Gini {_number(shares.gini)}, Zipf alpha {_number(shares.zipf_alpha)}"
    return f"{shares.count:,}: {parts}; {fit}"


def _row(size: Sizes, unit: int) -> list[str]:
    values = (size.mean / unit, size.p50 / unit, size.p90 / unit, size.p99 / unit, size.max / unit)
    return [f"{value:,.0f}" if value >= 1000 else f"{value:.4g}" for value in values]
