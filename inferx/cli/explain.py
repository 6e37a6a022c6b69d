"""`inferx explain`: why a request of a run waited, in words; or a pod of a cluster that is up."""

from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from inferx.cli.client.explaining import function, pod
from inferx.cli.client.explaining_request import request
from inferx.core.explain import Explanation
from inferx.core.units import NS_PER_MS, NS_PER_S
from inferx.sim.life import Deferrals, Life, Start, life_of, places, slowest

__all__ = ["explain"]

_FILE = click.Path(path_type=Path)
_START = {
    "cold": "from its image",
    "restore-remote": "from its snapshot in the shared store",
    "restore-nvme": "from its snapshot on the node's disk",
    "resume": "by resuming it from host memory",
}
_MAX_SLOWEST = 1_000


class _Explain(click.Group):
    """Explains runs, unless its first word is a command's: folders are called anything else."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in self.commands:
            return super().resolve_command(ctx, args)
        return "", _explain_run, args

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records = [
            one.get_help_record(ctx) for one in (*_explain_run.params, *self.get_params(ctx))
        ]
        with formatter.section("Options, of a run"):
            formatter.write_dl([record for record in records if record is not None])
        self.format_commands(ctx, formatter)


@click.command("", add_help_option=False)
@click.argument("run", type=_FILE)
@click.argument("request", type=int, required=False)
@click.option("--policy", help="Which policy's run.  [default: the first]")
@click.option("--seed", type=int, help="Which seed.  [default: the policy's first]")
@click.option("--slowest", type=int, metavar="COUNT", help="The longest times to first token.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def _explain_run(
    *,
    run: Path,
    request: int | None,
    policy: str | None,
    seed: int | None,
    slowest: int | None,
    as_json: bool,
) -> None:
    """Say why a request of a run waited."""
    if (request is None) == (slowest is None):
        raise click.UsageError("expected REQUEST or --slowest, one of them")
    if slowest is not None:
        _explain_slowest(run, slowest, policy, seed, as_json=as_json)
        return
    assert request is not None
    life = life_of(run, request, policy=policy, seed=seed)
    if as_json:
        click.echo(_json(life))
        return
    _print_life(life, *places(run))


@click.group(
    cls=_Explain,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
    },
    subcommand_metavar="RUN [REQUEST] | COMMAND ...",
    epilog="\b\nExamples:\n  inferx explain run 1234 --policy default --seed 1\n"
    "  inferx explain run --slowest 5\n  inferx explain pod 17\n"
    "  inferx explain function acme/chat/llama\n  inferx explain request 5b0c1e9a-2f",
)
def explain() -> None:
    """Say why a request of a run waited; or why pods of a cluster are where they are.

    REQUEST is its row in the trace, counted from 0. RUN is what `inferx replay --out` wrote.
    """


explain.add_command(pod)
explain.add_command(function)
explain.add_command(request)


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _explain_slowest(
    run: Path, count: int, policy: str | None, seed: int | None, *, as_json: bool
) -> None:
    if not 1 <= count <= _MAX_SLOWEST:
        raise click.UsageError(f"--slowest {count}: expected 1 to {_MAX_SLOWEST}")
    policy, seed, requests = slowest(run, count, policy=policy, seed=seed)
    lives = [life_of(run, request, policy=policy, seed=seed) for request in requests]
    if as_json:
        click.echo(_json(lives))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for heading, justify in (("request", "right"), ("function", "left"), ("arrived s", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]  # these are two of its words
    table.add_column("TTFT s", justify="right")
    table.add_column("waited most while")
    for life in lives:
        most = max(life.stretches, key=lambda stretch: stretch.ns, default=None)
        why = "-" if most is None else f"{most.what} ({_seconds(most.ns)} s)"
        ttft = _seconds(life.first_ns - life.arrived_ns)
        table.add_row(str(life.request), life.function, _seconds(life.arrived_ns), ttft, why)
    console = Console()
    console.print(Text(f"Slowest of {policy}, seed {seed}", style="dim"))
    console.print(table)


def _seconds(ns: int) -> str:
    return f"{ns / NS_PER_S:,.3f}"


def _print_life(life: Life, nodes: list[str], gpus: list[tuple[str, int]]) -> None:
    """Print the request's events in order, then where the wait went."""
    console = Console(highlight=False)
    head = Text(f"request {life.request} of {life.function}", style="bold")
    console.print(head.append(f"  {life.policy}, seed {life.seed}", style="dim"))
    lines = Table.grid(padding=(0, 2))
    lines.add_column(justify="right", no_wrap=True)
    lines.add_column()
    for at_ns, text, details in _events(life, nodes, gpus):
        shown = Text(text)
        for detail in details:
            shown.append(f"\n  {detail}", style="dim")
        lines.add_row(Text(f"{_seconds(at_ns)} s"), shown)
    console.print(Padding(lines, (0, 0, 0, 1)))
    wait_ns = life.until_ns - life.arrived_ns
    if not life.stretches:
        console.print("\nIt did not wait.")
        return
    console.print(f"\nIt waited {_seconds(wait_ns)} s:")
    pieces = Table.grid(padding=(0, 2))
    pieces.add_column(justify="right")
    pieces.add_column()
    for stretch in life.stretches:
        if stretch.ns < NS_PER_MS and len(life.stretches) > 1:
            continue  # Messages on their way: of no interest beside seconds.
        pieces.add_row(f"{_seconds(stretch.ns)} s", f"while {stretch.what}")
    console.print(Padding(pieces, (0, 0, 0, 1)))


def _events(
    life: Life, nodes: list[str], gpus: list[tuple[str, int]]
) -> list[tuple[int, str, list[str]]]:
    """Return what happened: when, what, and its details; in order."""
    size = f"{life.input_tokens:,} tokens in, {life.output_tokens:,} out"
    arrived = f"arrived: {size}" if life.output_tokens else "arrived"
    events: list[tuple[int, str, list[str]]] = [(life.arrived_ns, arrived, [])]
    if life.deferrals is not None:
        events.append(_deferred(life.deferrals))
    if life.start is not None and life.cause != "warm":
        events.append(_decided(life, life.start, nodes, gpus))
        events += [
            (victim.left_ns, f"pod {victim.pod} of {victim.function} {victim.how}", [])
            for victim in life.start.victims
            if victim.left_ns >= 0
        ]
    if life.started_ns >= 0:
        warm = "a ready pod's slot" if life.cause == "warm" else "a slot"
        events.append((life.started_ns, f"got {warm}: pod {life.pod}", []))
    if life.first_ns >= 0 and life.output_tokens:
        events.append((life.first_ns, f"first token, {_after(life, life.first_ns)}", []))
    if life.outcome == "finished":
        events.append((life.finished_ns, f"finished, {_after(life, life.finished_ns)}", []))
    elif life.outcome == "refused":
        text = f"refused: {life.refused_why}, {_after(life, life.refused_ns)}"
        events.append((life.refused_ns, text, []))
    elif life.outcome == "aborted":
        events.append((max(life.started_ns, life.first_ns), "aborted: its pod was lost", []))
    else:
        events.append((life.until_ns, "the run ended; it was unfinished", []))
    # Sorted by time alone; what is told first stays first.
    return sorted(events, key=lambda event: event[0])


def _after(life: Life, at_ns: int) -> str:
    return f"{_seconds(at_ns - life.arrived_ns)} s after it arrived"


def _deferred(deferrals: Deferrals) -> tuple[int, str, list[str]]:
    times = "once" if deferrals.count == 1 else f"{deferrals.count:,} times"
    until = f", until {_seconds(deferrals.last_ns)} s" if deferrals.count > 1 else ""
    text = f"no pod was started for its function, {times}{until}: {deferrals.reason}"
    return deferrals.first_ns, text, _why(deferrals.explanation, [])


def _decided(
    life: Life, start: Start, nodes: list[str], gpus: list[tuple[str, int]]
) -> tuple[int, str, list[str]]:
    node = nodes[start.node] if 0 <= start.node < len(nodes) else f"node {start.node}"
    numbers = [str(gpus[gpu][1]) for gpu in start.gpus]
    on = f"{node}, GPU{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}" if numbers else node
    text = f"decided: start pod {life.pod} on {on}, {_START.get(start.start, start.start)}"
    details: list[str] = []
    if start.at_ns < life.arrived_ns:
        details.append("for a request before this one, or in advance; it was still starting")
    if start.victims:
        pods = ", ".join(f"pod {victim.pod} of {victim.function}" for victim in start.victims)
        details.append(f"to make room, these leave: {pods}")
    return start.at_ns, text, details + _why(start.explanation, gpus)


def _why(why: Explanation | None, gpus: list[tuple[str, int]]) -> list[str]:
    """Tell an explanation in words."""
    if why is None:
        return []
    lines = [f"{why.feasible} of {why.gpus} GPUs could take it"]
    if why.filtered:
        turned = ", ".join(f"{count} by {name}" for name, count in why.filtered.items())
        lines[0] += f"; turned away: {turned}"
    if why.counterfactual:
        lines.append(
            f"it {why.counterfactual}" if "would" in why.counterfactual[:6] else why.counterfactual
        )
    for candidate in why.top:
        node, number = gpus[candidate.gpu]
        terms = ", ".join(f"{name} {value:.3f}" for name, value in candidate.terms.items())
        lines.append(f"score {candidate.score:.3f}  {node} GPU {number}  ({terms})")
    if len(why.top) > 1:
        lines.append(f"margin {why.margin:.3f}")
    return lines
