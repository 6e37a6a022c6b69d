"""The summary in a terminal: one line a policy, under 100 columns; several seeds with intervals.

A narrow terminal, or a pipe, shows the same columns in several tables; none is left out.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from inferx.sim.metrics import SummaryRow
from inferx.sim.stats import PairedDifference, mean_interval, metric

__all__ = ["short", "summary_table"]

_COLUMNS: Final = (
    ("TTFT s", "p50", "ttft_s.p50", 1.0),
    ("", "p90", "ttft_s.p90", 1.0),
    ("", "p99", "ttft_s.p99", 1.0),
    ("E2E s", "p50", "e2e_s.p50", 1.0),
    ("", "p90", "e2e_s.p90", 1.0),
    ("", "p99", "e2e_s.p99", 1.0),
    ("queue", "p99", "queue_s.p99", 1.0),
    ("cold", "%", "cold_start_ratio", 100.0),
    ("GPU %", "alloc", "gpu_allocated_pct", 1.0),
    ("", "resid", "gpu_resident_pct", 1.0),
    ("", "busy", "gpu_busy_pct", 1.0),
    ("good", "/GPUh", "goodput_per_gpu_hour", 1.0),
    ("cost", "$", "cost_usd", 1.0),
    ("refu", "sed", "refused", 1.0),
)
"""Heading over two lines, path in the row, factor."""
_LATENCY: Final = tuple(name for _, _, name, _ in _COLUMNS[:8])
_USE: Final = tuple(name for _, _, name, _ in _COLUMNS[8:])
"""GPUs, money, and who was turned away."""
_STACKS: Final = (
    ((*_LATENCY, *_USE),),
    (_LATENCY, _USE),
    (_LATENCY[:3], _LATENCY[3:6], _LATENCY[6:], _USE[:3], _USE[3:]),
)
"""Ways to spread the columns over tables, widest first; the last is for want of a better."""

_SHOWN: Final = (
    ("ttft_s.p50", "TTFT s\np50"),
    ("ttft_s.p99", "TTFT s\np99"),
    ("e2e_s.p99", "E2E s\np99"),
    ("cold_start_ratio", "cold\nratio"),
    ("gpu_allocated_pct", "GPU %\nalloc"),
    ("goodput_per_gpu_hour", "good\n/GPUh"),
)
_SHOWN_STACKS: Final = (
    (tuple(name for name, _ in _SHOWN),),
    (tuple(name for name, _ in _SHOWN[:3]), tuple(name for name, _ in _SHOWN[3:])),
    tuple((name,) for name, _ in _SHOWN),
)
_REGRET: Final = (
    ("wait s\nmean", "regret.mean_wait_s"),
    ("response s\nmean", "regret.mean_response_s"),
    ("wait s\nbound", "regret.bound_wait_s"),
    ("response s\nbound", "regret.bound_response_s"),
    ("regret\n%", "regret.regret_pct"),
    ("on demand\nbound s", "regret.on_demand_wait_s"),
    ("on demand\nregret %", "regret.on_demand_regret_pct"),
)
_THOUSAND: Final = 1_000.0
_POLICY_WIDTH: Final = 18


def short(value: float | None) -> str:
    """Return a number in at most five characters: three digits, then k and M."""
    if value is None:
        return "-"
    size = abs(value)
    if size < 9_999.5 and value == round(value):
        return f"{value:.0f}"
    if size >= 999_500:
        return f"{value / 1e6:.3g}M"
    if size >= 9_999.5:
        return f"{value / _THOUSAND:.3g}k" if size < 99_950 else f"{value / _THOUSAND:.0f}k"
    if size >= 99.95:
        return f"{value:.0f}"
    if size >= 9.995:
        return f"{value:.1f}"
    if size >= 0.00995:
        return f"{value:.2f}"
    return f"{value:.0e}".replace("e-0", "e-")


def _cell(rows: Sequence[SummaryRow], name: str, factor: float) -> Text:
    known = [value * factor for row in rows if (value := metric(row, name)) is not None]
    if not known:
        return Text("-", style="dim")
    found = mean_interval(known)
    text = Text(short(found.mean))
    if len(rows) > 1:
        width = "n=1" if found.half_width is None else f"±{short(found.half_width)}"
        text.append(f"\n{width}", style="dim")
    return text


def _by_policy(rows: Sequence[SummaryRow]) -> dict[str, list[SummaryRow]]:
    groups: dict[str, list[SummaryRow]] = {}
    for row in rows:
        groups.setdefault(row.policy, []).append(row)
    return groups


class _Fitting:
    """All of the columns, in as few tables as there is room for."""

    def __init__(
        self,
        build: Callable[[Sequence[str]], Table],
        stacks: Sequence[Sequence[Sequence[str]]],
    ) -> None:
        """Keep how to build a table of some columns, and the ways to spread them, widest first."""
        self._build, self._stacks = build, stacks

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        unbound = options.update(max_width=10_000)
        tables: list[Table] = []
        for stack in self._stacks:
            tables = [self._build(names) for names in stack]
            widths = [Measurement.get(console, unbound, table).maximum for table in tables]
            if max(widths) <= options.max_width:
                break
        for number, table in enumerate(tables):
            if number:
                yield Text("")
            yield table


def _main(groups: dict[str, list[SummaryRow]], names: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("\npolicy", max_width=_POLICY_WIDTH, overflow="fold", no_wrap=False)
    shown = [(over, under, name, factor) for over, under, name, factor in _COLUMNS if name in names]
    for over, under, _, _ in shown:
        table.add_column(f"{over}\n{under}", justify="right", no_wrap=True)
    for policy, rows in groups.items():
        table.add_row(Text(policy), *(_cell(rows, name, factor) for _, _, name, factor in shown))
    return table


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{'+' if value > 0 else ''}{short(value)}"


def _verdict(pair: PairedDifference) -> Text:
    if pair.mean_difference is None:
        return Text("-", style="dim")
    text = Text(_signed(pair.mean_difference))
    if pair.ci95_low is None or pair.ci95_high is None:
        return text
    settled = pair.p_holm is not None and pair.p_holm < 0.05
    text.stylize("bold" if settled else "dim")
    text.append(f"\n[{short(pair.ci95_low)}, {short(pair.ci95_high)}]", style="dim")
    return text


def _difference(paired: Sequence[PairedDifference]) -> list[RenderableType]:
    """A table of differences from the baseline, and how to read it."""
    if not paired:
        return []
    seeds = max(pair.n for pair in paired)
    told = (
        "n=1: one seed, no interval."
        if seeds < 2
        else f"n={seeds} seeds, paired; [95 % interval]; bold: p < 0.05 after Holm's correction."
    )
    head = Text(f"Less {paired[0].baseline}, on the same arrivals. {told}", style="dim")
    return [Text(""), head, _Fitting(partial(_paired, paired), _SHOWN_STACKS)]


def _paired(paired: Sequence[PairedDifference], names: Sequence[str]) -> Table:
    found = {(pair.policy, pair.metric): pair for pair in paired}
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("\npolicy", max_width=_POLICY_WIDTH, overflow="fold")
    metrics = {name for _, name in found}
    shown = [(name, title) for name, title in _SHOWN if name in names and name in metrics]
    for _, title in shown:
        table.add_column(title, justify="right", no_wrap=True)
    for policy in dict.fromkeys(pair.policy for pair in paired):
        table.add_row(Text(policy), *(_verdict(found[policy, name]) for name, _ in shown))
    return table


def _regret(groups: dict[str, list[SummaryRow]]) -> list[RenderableType]:
    """A table of distances to what nobody could beat."""
    measured = {
        policy: [row for row in rows if row.regret is not None] for policy, rows in groups.items()
    }
    found = sorted({row.regret.bound for rows in measured.values() for row in rows if row.regret})
    if not found:
        return []
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("\npolicy", max_width=_POLICY_WIDTH, overflow="fold")
    for title, _ in _REGRET:
        table.add_column(title, justify="right", no_wrap=True)
    for policy, rows in measured.items():
        # A policy that sometimes starts ahead of demand has no mean of the others' bounds.
        cells = [
            _cell(rows, name, 1.0)
            if all(metric(row, name) is not None for row in rows)
            else Text("-", style="dim")
            for _, name in _REGRET
        ]
        table.add_row(Text(policy), *cells)
    head = Text(f"Over what no policy could beat: {', '.join(found)}.", style="dim")
    return [Text(""), head, table]


def _conservation(groups: dict[str, list[SummaryRow]]) -> Text:
    parts: list[str] = []
    for policy, rows in groups.items():
        sums = [sum(getattr(row, name) for row in rows) for name in ("arrived", "finished")]
        rest = [
            f"{count:,} {name}"
            for name in ("refused", "aborted", "unfinished")
            if (count := sum(getattr(row, name) for row in rows))
        ]
        parts.append(f"{policy}: {' + '.join([f'{sums[1]:,} finished', *rest])} = {sums[0]:,}")
    return Text("\n".join(parts), style="dim")


def summary_table(
    rows: Sequence[SummaryRow], paired: Sequence[PairedDifference] = ()
) -> RenderableType:
    """Return what a replay prints: the table, the differences, and where every request went.

    With several seeds a cell is the mean over seeds, and below it Student's 95 % half-width.
    Quantiles of different seeds are averaged as numbers of those seeds; no quantile is pooled.
    """
    groups = _by_policy(rows)
    return Group(
        _Fitting(partial(_main, groups), _STACKS),
        *_difference(paired),
        *_regret(groups),
        Text(""),
        _conservation(groups),
    )
