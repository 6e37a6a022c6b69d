"""`inferx replay`: a request trace under several policies, side by side."""

import contextlib
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np
from rich.console import Console

from inferx.cli.experiment import (
    EXPLAINED,
    Entry,
    Experiment,
    Replication,
    entries_of,
    parse_profiles,
)
from inferx.cli.options import (
    Chosen,
    OrderedCommand,
    canonical_words,
    chosen_policies,
    parse_seeds,
    seconds_ns,
    share,
)
from inferx.cli.progress import solving, watching
from inferx.core.errors import DescriptionError
from inferx.core.types import NodeSpec
from inferx.core.units import NS_PER_MS, NS_PER_S
from inferx.sim.contained import without_exit
from inferx.sim.faults import Faults, load_faults
from inferx.sim.link import LinkModel
from inferx.sim.oracle.regret import Bounds, bounds_of, regret_of
from inferx.sim.output import RunWriter, summary_table
from inferx.sim.report import write_report
from inferx.sim.sweep import Job, sweep
from inferx.sim.workload.popularity import Popularity
from inferx.sim.workload.read import open_trace
from inferx.sim.workload.stored import map_trace
from inferx.sim.workload.transform import parse_assign
from inferx.spec.cluster import load_cluster
from inferx.spec.document import exists
from inferx.spec.functions import dump_functions

__all__ = ["replay"]

_FILE = click.Path(path_type=Path)
_UNSHAPING = frozenset({"out", "overwrite", "jobs", "as_json"})
"""Parameters that do not change the result; the manifest's command leaves them out."""
_PREPARED = ("none", "remote", "nvme")
_MAX_ROUTERS = 1_024
_MAX_JOBS = 1_024


@click.command(
    cls=OrderedCommand,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExamples:\n"
    "  inferx replay traces/demo.parquet --cluster traces/demo-cluster.toml \\\n"
    "    --policy default --policy inferx-reference --against inferx-reference --out run\n"
    "  inferx replay azure.csv --assign zipf:1.1,50 --cluster g6e.12xlarge=2,p5.48xlarge=1 \\\n"
    "    --policy my_policy.py:bundle --set hold_s=60 --policy default --seed 1..5 --jobs 2",
)
@click.argument("trace", type=_FILE)
@click.option(
    "--cluster",
    required=True,
    metavar="FILE|TYPE=COUNT,...",
    help="The GPUs: a TOML file, or instance types and how many of each.",
)
@click.option(
    "--functions",
    default="auto",
    show_default=True,
    metavar="auto[:TEMPLATE]|FILE|DIR",
    help="What the trace's names are: made up by template, or described.",
)
@click.option(
    "--assign",
    "spread",
    metavar="SHARES",
    help="Spread the requests over functions: zipf:1.1,50, uniform:50.",
)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="NAME|FILE.py:BUNDLE",
    help="A policy to replay under; repeat it to compare.  [default: default]",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of the --policy before it.",
)
@click.option(
    "--seed",
    default="1",
    show_default=True,
    metavar="SEEDS",
    help="3, 1..5 or 1,4,7. Each is a replication of the whole experiment, made-up functions and "
    "assignment included; all policies of a seed meet the same requests.",
)
@click.option("--against", metavar="POLICY", help="Show differences from this one of the policies.")
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    metavar="[MECHANISM=]NAME|FILE.toml",
    help="How long starts take. By default each policy's mechanism chooses: snapshot criu-memfd, "
    "loader serverlessllm, none safetensors.",
)
@click.option(
    "--prepared",
    default="remote",
    show_default=True,
    metavar="none|remote|nvme",
    help="Where snapshots are when the run begins: nowhere, in the shared store, or on every "
    "node's disk as well.",
)
@click.option("--faults", type=_FILE, metavar="FILE", help="TOML file of faults to inject.")
@click.option("--routers", default=1, show_default=True, help="Gateways that share the pods.")
@click.option("--link-delay-ms", default=0.25, show_default=True, help="One way, any message.")
@click.option("--link-jitter-ms", default=0.0, show_default=True, help="Mean of a random delay.")
@click.option("--link-loss", default=0.0, show_default=True, help="Share of messages lost.")
@click.option("--link-duplicate", default=0.0, show_default=True, help="Share that come twice.")
@click.option(
    "--slo-ttft", default=2.0, show_default=True, metavar="SECONDS", help="A good first token."
)
@click.option(
    "--warmup",
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="Leave earlier arrivals out of quantiles.",
)
@click.option(
    "--regret",
    is_flag=True,
    help="Solve for what no policy could beat, and say how far each is from it.",
)
@click.option(
    "--explain/--no-explain",
    default=None,
    help="Keep why each decision came out as it did, for `inferx explain`.  [default: up to "
    f"{EXPLAINED:,} requests]",
)
@click.option(
    "--allow-misfits",
    is_flag=True,
    help="Replay functions that fit no node all the same; nobody will serve them.",
)
@click.option("--sort", is_flag=True, help="Sort a trace that should be in order but is not.")
@click.option("--durations", type=_FILE, metavar="FILE", help="For Azure Functions 2019.")
@click.option(
    "--jobs", default=1, show_default=True, help="Processes; results do not depend on it."
)
@click.option("-o", "--out", type=_FILE, metavar="RUN", help="Directory to write: tables, report.")
@click.option("--overwrite", is_flag=True, help="Replace RUN if it is a former run.")
@click.option("--json", "as_json", is_flag=True, help="Print summary.json instead of tables.")
@click.pass_context
def replay(ctx: click.Context, /, **given: Any) -> None:
    """Replay a request trace under several policies.

    Prints one line a policy, differences from --against where asked, and where every request went.
    RUN holds the same as Parquet and JSON, and report.html, which needs no network.
    """
    seeds = parse_seeds(given["seed"])
    nodes = load_cluster(given["cluster"])
    ctx.meta["chosen"] = chosen = chosen_policies(
        ctx.meta["order"], given["policies"], given["settings"]
    ) or [Chosen("default", ())]
    entries, baseline = _entries(given, chosen)
    experiment = _experiment(given, nodes)
    inputs = _inputs(given, entries)
    # Before anything is checksummed: it may be large, or have no end.
    open_trace(given["trace"], sort=given["sort"], durations=given["durations"])
    out: Path | None = given["out"]
    with tempfile.TemporaryDirectory(prefix="inferx-") as name:
        folder = Path(name)
        writer = RunWriter(
            folder / "run" if out is None else out,
            command=list(canonical_words(ctx, without=_UNSHAPING)),
            inputs=inputs,
            settings=_settings(entries),
            baseline=baseline,
            slo_ttft_s=seconds_ns("slo-ttft", given["slo_ttft"]) / NS_PER_S,
            warmup_ns=seconds_ns("warmup", given["warmup"]),
            overwrite=given["overwrite"],
            page=None if out is None else write_report,
        )
        try:
            with writer, _nothing_of_nothing(writer):
                replications = experiment.replicate(seeds, folder)
                _check_warmup(given["warmup"], replications)
                _attach(writer, nodes, replications)
                try:
                    jobs = experiment.jobs(entries, replications)
                    warmup_ns = seconds_ns("warmup", given["warmup"])
                    bounds = (
                        _bounds(jobs, warmup_ns, experiment.spread)
                        if given["regret"]
                        else [None] * len(jobs)
                    )
                    _run(writer, jobs, replications, given["jobs"], bounds)
                except KeyboardInterrupt:
                    _detach_unused(writer, replications)
                    raise
        except KeyboardInterrupt:
            if writer.rows:
                _show(writer, out, as_json=given["as_json"])
            raise
        _show(writer, out, as_json=given["as_json"])


@contextlib.contextmanager
def _nothing_of_nothing(writer: RunWriter) -> Generator[None]:
    """Leave no directory where Ctrl-C came before the first run was complete."""
    try:
        yield
    except KeyboardInterrupt:
        if not writer.rows:
            writer.abort()
        raise


def _check_warmup(warmup_s: float, replications: list[Replication]) -> None:
    """Refuse a warm-up that leaves no arrival to tell of."""
    last_s = min(replication.last_ns for replication in replications) / NS_PER_S
    if warmup_s > last_s:
        raise DescriptionError(
            f"warmup {warmup_s:g}: expected at most {last_s:g} s, when the last request arrives"
        )


def _bounds(jobs: list[Job], warmup_ns: int, spread: Popularity | None) -> list[Bounds | None]:
    """Return each job's bounds; jobs that differ in their policy alone share them."""
    # Runs of the same function can be foreseen in part.
    chances: dict[str, float] = {}
    if spread is not None and not spread.sticky:
        chances = dict(zip(spread.names, spread.shares().tolist(), strict=True))
    # A file may call its profile what another does: the object is what is shared.
    solved: dict[tuple[int, int], Bounds] = {}
    with solving("bounds") as tell:
        for job in jobs:
            key = (job.seed, id(job.world.profile))
            if key not in solved:
                tell(f"bounds of seed {job.seed}, profile {job.world.profile.name}")
                names = tuple(function.name for function in job.world.functions)
                shares = np.array([chances.get(name, 0.0) for name in names]) if chances else None
                trace = map_trace(job.trace, names, ())
                solved[key] = bounds_of(trace, job.world, warmup_ns=warmup_ns, shares=shares)
    return [solved[job.seed, id(job.world.profile)] for job in jobs]


def _run(
    writer: RunWriter,
    jobs: list[Job],
    replications: list[Replication],
    workers: int,
    bounds: Sequence[Bounds | None],
) -> None:
    """Run the jobs and write their records as they come."""
    requests = {replication.seed: replication.requests for replication in replications}
    totals = [(f"{job.policy}, seed {job.seed}", requests[job.seed]) for job in jobs]
    with (
        watching(totals) as tell,
        contextlib.closing(sweep(jobs, workers=workers, on_progress=tell)) as records,
    ):
        for record, best in zip(records, bounds, strict=True):
            writer.add(record, None if best is None else regret_of(record, best))


def _show(writer: RunWriter, out: Path | None, *, as_json: bool) -> None:
    """Print what the run directory holds."""
    if as_json:
        click.echo((writer.path / "summary.json").read_text("utf-8"), nl=False)
        return
    console = Console()
    console.print(summary_table(writer.rows, writer.paired))
    if out is not None:
        console.print(f"\n{out / 'report.html'}", highlight=False, soft_wrap=True)


def _entries(given: Mapping[str, Any], chosen: list[Chosen]) -> tuple[list[Entry], str | None]:
    """Return the policies and the label of the baseline, which joins them if it is not there."""
    profiles = parse_profiles(given["profiles"])
    against: str | None = given["against"]
    # What a policy prints is not our output, and it does not end us.
    with contextlib.redirect_stdout(sys.stderr), without_exit():
        entries = entries_of(chosen, profiles)
        if against is None:
            return entries, None
        for entry in entries:
            if against in {entry.label, entry.chosen.spec, entry.chosen.words}:
                return entries, entry.label
        entries = entries_of([*chosen, Chosen(against, ())], profiles)
        return entries, entries[-1].label


def _experiment(given: Mapping[str, Any], nodes: tuple[NodeSpec, ...]) -> Experiment:
    if given["prepared"] not in _PREPARED:
        raise DescriptionError(
            f"prepared {given['prepared']!r}: expected one of {', '.join(_PREPARED)}"
        )
    for name, most in (("routers", _MAX_ROUTERS), ("jobs", _MAX_JOBS)):
        if not 1 <= given[name] <= most:
            raise DescriptionError(f"{name} {given[name]}: expected 1 to {most}")
    faults = Faults() if given["faults"] is None else load_faults(given["faults"], nodes)
    return Experiment(
        trace=given["trace"],
        sort=given["sort"],
        durations=given["durations"],
        spread=None if given["spread"] is None else parse_assign(given["spread"]),
        functions=given["functions"],
        nodes=nodes,
        allow_misfits=given["allow_misfits"],
        prepared=given["prepared"],
        routers=given["routers"],
        faults=faults,
        link=LinkModel(
            delay_ns=seconds_ns("link-delay-ms", given["link_delay_ms"], unit_ns=NS_PER_MS),
            jitter_ns=seconds_ns("link-jitter-ms", given["link_jitter_ms"], unit_ns=NS_PER_MS),
            loss=share("link-loss", given["link_loss"]),
            duplicate=share("link-duplicate", given["link_duplicate"]),
        ),
        explain=given["explain"],
    )


def _inputs(given: Mapping[str, Any], entries: list[Entry]) -> dict[str, Path]:
    """Return the files that the result depends on, by role; missing ones are told by readers.

    Raises:
        DescriptionError: One is a pipe or a device, which could be read once, or for ever.
    """
    inputs: dict[str, Path | None] = {
        "trace": given["trace"],
        "cluster": Path(given["cluster"]),
        "functions": Path(given["functions"].removeprefix("auto:")),
        "durations": given["durations"],
        "faults": given["faults"],
    }
    for entry in entries:
        where = entry.chosen.spec.rpartition(":")[0] or entry.chosen.spec
        inputs[f"policy.{entry.label}"] = Path(where) if where.endswith(".py") else None
        profile = Path(entry.profile_name)
        inputs[f"profile.{entry.profile.name}"] = profile if profile.suffix == ".toml" else None
    found = {role: path for role, path in inputs.items() if path is not None and exists(path)}
    for role, path in found.items():
        if not (path.is_file() or path.is_dir()):
            what = role.partition(".")[0]
            raise DescriptionError(f"{path}: not a regular file; expected one as {what}")
    return found


def _settings(entries: list[Entry]) -> dict[str, str]:
    settings: dict[str, str] = {}
    for entry in entries:
        settings[f"policy.{entry.label}"] = entry.chosen.words
        settings[f"profile.{entry.label}"] = entry.profile_name
    return settings


def _attach(
    writer: RunWriter, nodes: tuple[NodeSpec, ...], replications: list[Replication]
) -> None:
    """Write the descriptions that the run used; functions once where all seeds share them."""
    cluster = msgspec.json.format(msgspec.json.encode(nodes), indent=1)
    writer.attach("cluster.json", cluster.decode() + "\n")
    if _alike(replications):
        writer.attach("functions.json", dump_functions(replications[0].functions))
        return
    for replication in replications:
        writer.attach(_functions_of(replication), dump_functions(replication.functions))


def _detach_unused(writer: RunWriter, replications: list[Replication]) -> None:
    """Take back the functions of seeds that never ran: the rows do not need them."""
    ran = {row.seed for row in writer.rows}
    if not _alike(replications):
        for replication in replications:
            if replication.seed not in ran:
                writer.detach(_functions_of(replication))


def _alike(replications: list[Replication]) -> bool:
    return all(one.functions == replications[0].functions for one in replications)


def _functions_of(replication: Replication) -> str:
    return f"functions-seed-{replication.seed}.json"
