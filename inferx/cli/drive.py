"""`inferx drive`: a trace's requests sent to a running cluster, in real time."""

import asyncio
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console

from inferx.cli.client.command import SETTINGS, Asking, asking
from inferx.cli.experiment import PROFILE_OF
from inferx.cli.live_journals import read_journals
from inferx.cli.live_profile import about_run
from inferx.cli.live_profile import calibrated as calibration
from inferx.cli.live_records import LIVE, check_names, observed, predicted, world_of
from inferx.cli.live_tables import outcome_table
from inferx.cli.options import canonical_words, seconds_ns
from inferx.cli.progress import watching
from inferx.client.driving import Answer, Call
from inferx.client.driving import drive as send
from inferx.client.errors import ClientError
from inferx.client.names import place_of
from inferx.core.errors import DescriptionError
from inferx.core.units import NS_PER_MS, NS_PER_S
from inferx.sim.link import LinkModel
from inferx.sim.output import RunWriter, summary_table
from inferx.sim.profile import load_profile
from inferx.sim.report import write_report
from inferx.sim.workload.popularity import Popularity
from inferx.sim.workload.read import open_trace, read_trace
from inferx.sim.workload.trace import Trace
from inferx.sim.workload.transform import assign, parse_assign
from inferx.spec.functions import dump_functions

__all__ = ["drive"]

_FILE = click.Path(path_type=Path)
_UNSHAPING = frozenset({"out", "overwrite", "as_json", "server", "context", "journals"})
_NAMES = {"as_json": "json", "profiles": "predict"}
_MOST_AT_ONCE = 10_000


@click.command(
    context_settings=SETTINGS,
    epilog="\b\nExamples:\n  inferx drive trace.parquet --in public/demo\n"
    "  inferx drive trace.parquet --in public/demo --journals cluster/journals \\\n"
    "    --predict this-node.toml --out run",
)
@click.argument("trace", type=_FILE)
@click.option("--in", "place", required=True, metavar="TENANT/NAMESPACE", help="Whose functions.")
@click.option("--assign", "spread", metavar="SHARES", help="As for replay: zipf:1.1,50.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="Of --assign.")
@click.option(
    "--journals",
    type=_FILE,
    metavar="DIR",
    help="What the cluster's machines write down: where requests waited, and what held GPUs.",
)
@click.option(
    "--predict",
    "profiles",
    multiple=True,
    metavar="PROFILE",
    help="Simulate the same as well, with a profile of this cluster's nodes; may be repeated.",
)
@click.option(
    "--calibrate",
    type=_FILE,
    metavar="FILE",
    help="Write a profile of what this run measured, to predict the next with.",
)
@click.option("--link-delay-ms", default=0.25, show_default=True, help="Simulated, one way.")
@click.option(
    "--at-once",
    type=click.IntRange(1, _MOST_AT_ONCE),
    default=1000,
    show_default=True,
    help="Open requests at most; who is due beyond that is sent late.",
)
@click.option(
    "--within", default=600.0, show_default=True, metavar="SECONDS", help="To answer a request."
)
@click.option(
    "--slo-ttft", default=2.0, show_default=True, metavar="SECONDS", help="A good first token."
)
@click.option("-o", "--out", type=_FILE, metavar="RUN", help="Directory to write, as replay does.")
@click.option("--overwrite", is_flag=True, help="Replace RUN if it is a former run.")
@click.option("--json", "as_json", is_flag=True, help="Print summary.json instead of tables.")
@asking
@click.pass_context
def drive(ctx: click.Context, /, *, ask: Asking, **given: Any) -> None:
    """Send a trace's requests to a cluster when they are due, in real time.

    The trace's functions are those of a namespace. Arrivals do not wait for answers. Without
    --journals it prints what the client saw; with them, RUN holds what a replay's holds, and
    --predict puts the simulator's prediction beside it. A simulated cluster begins empty: so should
    the real one.
    """
    out: Path | None = given["out"]
    journals: Path | None = given["journals"]
    for option in ("out", "as_json", "profiles", "calibrate"):
        if journals is None and given[option]:
            name = _NAMES.get(option, option)
            raise click.UsageError(f"--{name} needs --journals; expected where they are")
    profiles = [load_profile(one) for one in given["profiles"]]
    calibrated: Path | None = given["calibrate"]
    if calibrated is not None and not calibrated.parent.is_dir():
        raise DescriptionError(f"{calibrated}: no folder {calibrated.parent}; expected one")
    trace = _trace(given["trace"], given["spread"], given["seed"])
    calls = _calls(trace, given["place"])
    within_s = seconds_ns("within", given["within"]) / NS_PER_S
    if journals is None:
        answers, stopped = _sent(ask, calls, given["at_once"], within_s)
        Console().print(outcome_table(calls, answers))
        if stopped is not None:
            raise stopped
        return
    check_names(trace, read_journals(journals))
    files = {f"profile.{Path(one).stem}": Path(one) for one in given["profiles"]}
    inputs = {"trace": given["trace"]} | {n: one for n, one in files.items() if one.is_file()}
    with tempfile.TemporaryDirectory(prefix="inferx-") as name:
        writer = RunWriter(
            Path(name) / "run" if out is None else out,
            command=list(canonical_words(ctx, without=_UNSHAPING)),
            inputs=inputs,
            baseline=LIVE if profiles else None,
            slo_ttft_s=seconds_ns("slo-ttft", given["slo_ttft"]) / NS_PER_S,
            overwrite=given["overwrite"],
            page=None if out is None else write_report,
        )
        with writer:
            answers, stopped = _sent(ask, calls, given["at_once"], within_s)
            told = read_journals(journals)
            live = observed(trace, answers, told)
            writer.add(live)
            writer.attach("functions.json", dump_functions(live.functions))
            nodes = msgspec.json.format(msgspec.json.encode(live.nodes), indent=1)
            writer.attach("cluster.json", nodes.decode() + "\n")
            if stopped is not None:
                raise stopped
            if calibrated is not None:
                base = profiles[0] if profiles else load_profile(PROFILE_OF["snapshot"])
                _write(calibrated, calibration(told.heard, live, base, about_run(calibrated.stem)))
            delay_ns = seconds_ns("link-delay-ms", given["link_delay_ms"], unit_ns=NS_PER_MS)
            for profile in profiles:
                world = world_of(told, profile, LinkModel(delay_ns=delay_ns))
                writer.add(predicted(trace, told, world))
        if given["as_json"]:
            click.echo((writer.path / "summary.json").read_text("utf-8"), nl=False)
            return
        console = Console()
        console.print(outcome_table(calls, answers))
        console.print(summary_table(writer.rows, writer.paired))
        if out is not None:
            console.print(f"\n{out / 'report.html'}", highlight=False, soft_wrap=True)


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    aside.rename(path)


def _trace(path: Path, spread: str | None, seed: int) -> Trace:
    open_trace(path)
    trace = read_trace(path, seed=seed)
    shares: Popularity | None = None if spread is None else parse_assign(spread)
    if shares is not None:
        trace = assign(trace, shares, seed)
    if not len(trace):
        raise DescriptionError(f"{path}: no requests; expected at least one")
    plain = trace.output_tokens == 0
    if plain.any():
        raise DescriptionError(
            f"{path}: request {int(plain.argmax())} has a duration; expected tokens, which can be"
            " asked for"
        )
    return trace


def _calls(trace: Trace, place: str) -> list[Call]:
    where = place_of("function", [place])
    if not where.namespace:
        raise ClientError(f"--in {place}: expected TENANT/NAMESPACE")
    names = [f"{where.tenant}/{where.namespace}/{name}" for name in trace.names]
    return [
        Call(due_ns, names[function], tokens_in, tokens_out)
        for due_ns, function, tokens_in, tokens_out in zip(
            trace.arrival_ns.tolist(),
            trace.function.tolist(),
            trace.input_tokens.tolist(),
            trace.output_tokens.tolist(),
            strict=True,
        )
    ]


def _sent(
    ask: Asking, calls: Sequence[Call], at_once: int, within_s: float
) -> tuple[list[Answer], KeyboardInterrupt | None]:
    """Send them; return what became of them, and what ended it early, as Ctrl-C does."""
    answers = [Answer() for _ in calls]
    with watching([("requests sent", len(calls))]) as tell:

        def sent(count: int) -> None:
            if tell is not None:
                tell(0, count)

        job = send(
            ask.server, ask.key, calls, answers, at_once=at_once, within_s=within_s, on_sent=sent
        )
        try:
            asyncio.run(job)
        except KeyboardInterrupt as stop:
            if not any(one.sent_ns >= 0 for one in answers):
                raise
            return answers, stop
    return answers, None
