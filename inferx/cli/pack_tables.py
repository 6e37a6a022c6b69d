"""What `inferx pack` prints: tables for a reader, JSON for a program."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from inferx.sim.packing.curves import METRICS
from inferx.sim.packing.experiment import SHOWN, TITLES, Compared, short_names
from inferx.sim.packing.output import PackRow, rows_of
from inferx.sim.packing.runs import PackRun

__all__ = ["show_packing"]


def show_packing(
    runs: Sequence[PackRun], compared: list[Compared] | None, out: Path | None, *, as_json: bool
) -> None:
    """Print the runs, beside the published curves if there are any, and where they were written."""
    if as_json:
        told: dict[str, object] = {"runs": rows_of(runs)}
        if compared is not None:
            told["compared"] = [
                {
                    "workload": one.workload,
                    "policy": one.policy,
                    "metric": one.metric,
                    "seeds": one.seeds,
                    "max_difference_percent": one.most,
                }
                for one in compared
            ]
        click.echo(msgspec.json.format(msgspec.json.encode(told), indent=2).decode())
        return
    console = Console(width=None if sys.stdout.isatty() else 120)
    for metric in METRICS:
        console.print(_table(runs, metric) if compared is None else _beside(compared, metric))
    if any(run.optimum_milli is not None for run in runs):
        console.print(_beside_optimum(rows_of(runs)))
    if out is not None:
        console.print(f"{out / 'curves.csv'}", highlight=False, soft_wrap=True)


def _grid(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, box=None, padding=(0, 2, 0, 0), title_justify="left")
    for heading in headings:
        text = heading in {"workload", "policy"}
        table.add_column(heading, justify="left" if text else "right", no_wrap=True)
    return table


def _table(runs: Sequence[PackRun], metric: str) -> Table:
    """Return one line a workload and policy."""
    loads = SHOWN[metric]
    table = _grid(TITLES[metric], ["workload", "policy", "seeds", *map(str, loads)])
    groups: dict[tuple[str, str], list[PackRun]] = {}
    for run in runs:
        groups.setdefault((run.workload, run.policy), []).append(run)
    middle = np.mean if metric == "alloc" else np.median
    shown = short_names([run.workload for run in runs])
    for (workload, policy), some in groups.items():
        curve = middle(np.array([run.curves.of(metric) for run in some]), axis=0)
        cells = ["-" if np.isnan(curve[load]) else f"{curve[load]:.2f}" for load in loads]
        table.add_row(shown[workload], policy, str(len(some)), *cells)
    return table


def _beside(compared: Sequence[Compared], metric: str) -> Table:
    """Return one line a workload and policy: ours, below it the published, if it differs."""
    loads = SHOWN[metric]
    headings = ["workload", "policy", "seeds", *map(str, loads), "max diff."]
    table = _grid(TITLES[metric] + "; published below", headings)
    shown = short_names([one.workload for one in compared])
    for one in compared:
        if one.metric == metric:
            ours = [f"{one.ours[load]:.2f}" for load in loads]
            theirs = [f"{one.theirs[load]:.2f}" for load in loads]
            workload = shown[one.workload]
            table.add_row(workload, one.policy, str(one.seeds), *ours, f"{one.most:.2f}")
            table.add_row("", "published", "", *theirs, "", style="dim")
    return table


def _beside_optimum(rows: Sequence[PackRow]) -> Table:
    """Return one line a workload and policy: what it placed in the end, and the most that fits."""
    headings = ["placed", "% of all", "optimum", "% of all", "regret %"]
    table = _grid(
        "Thousandths of GPUs placed in the end, and at most; mean over seeds",
        ["workload", "policy", "seeds", *headings],
    )
    groups: dict[tuple[str, str], list[PackRow]] = {}
    for row in rows:
        groups.setdefault((row.workload, row.policy), []).append(row)
    shown = short_names([row.workload for row in rows])
    for (workload, policy), some in groups.items():
        told = [
            (r.placed_milli, r.placed_percent, r.optimum_milli, r.optimum_percent, r.regret_percent)
            for r in some
        ]
        milli, share, most, most_share, regret = np.array(told, np.float64).mean(axis=0).tolist()
        cells = [f"{milli:.0f}", f"{share:.2f}", f"{most:.0f}", f"{most_share:.2f}"]
        table.add_row(shown[workload], policy, str(len(some)), *cells, f"{regret:.2f}")
    return table
