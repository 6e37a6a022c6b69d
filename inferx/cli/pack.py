"""`inferx pack`: arrivals of placement requests under several packing rules, side by side."""

import os
import platform
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from inferx import __version__
from inferx.cli.options import canonical_words, parse_seeds
from inferx.cli.pack_tables import show_packing
from inferx.core.errors import DescriptionError
from inferx.load import load_rule
from inferx.policy.packing import rules
from inferx.policy.packing.published import PUBLISHED
from inferx.sim.manifest import git_fact
from inferx.sim.oracle.packing import PAIRS_LIMIT
from inferx.sim.packing.experiment import (
    FGD_WORKLOADS,
    compare,
    document,
    read_published,
)
from inferx.sim.packing.output import refuse_early, write_pack
from inferx.sim.packing.runs import PackJob, PackPolicy, PackRun, run_jobs

__all__ = ["pack"]

_FILE: Final = click.Path(path_type=Path)
_UNSHAPING: Final = frozenset({"out", "overwrite", "jobs", "as_json"})
_MAX_JOBS: Final = 1_024


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExamples:\n"
    "  inferx pack openb_pod_list_default.csv --nodes openb_node_list_gpu_node.csv \\\n"
    "    --policy fgd --policy best-fit --orders orders.npz --seed 42..51 --out packed\n"
    "  inferx pack --experiment fgd --jobs 2",
)
@click.argument("pods", type=_FILE, nargs=-1)
@click.option("--nodes", type=_FILE, metavar="NODES.csv", help="The cluster: an openb node list.")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="NAME|FILE.py:RULE",
    help=f"A rule to pack by; repeat it to compare. As published: {', '.join(PUBLISHED)}.  "
    f"[default: these]  Others: {', '.join(rules())}.",
)
@click.option(
    "--orders",
    type=_FILE,
    metavar="ORDERS.npz",
    help="Order of arrival and of ties, by workload and seed. Without it both are drawn: pods are "
    "shuffled, then cloned at random up to 130 % of the GPUs.",
)
@click.option("--seed", default="42", show_default=True, metavar="SEEDS", help="3, 1..5 or 1,4,7.")
@click.option(
    "--optimum",
    is_flag=True,
    help="Also the most that could be placed of the same requests; for small lists: requests of "
    f"GPUs times GPUs at most {PAIRS_LIMIT:,}.",
)
@click.option(
    "--experiment",
    type=click.Choice(["fgd"]),
    help="A published comparison, regenerated and printed beside the published numbers. Pod and "
    "node lists come from openb/ in the folder that INFERX_TRACE_DIR names.",
)
@click.option(
    "--published",
    type=_FILE,
    metavar="DIR",
    help="The authors' curves and orders, for --experiment.  "
    "[default: $INFERX_TRACE_DIR/../oracles/fgd]",
)
@click.option(
    "--jobs", default=1, show_default=True, help="Processes; results do not depend on it."
)
@click.option("-o", "--out", type=_FILE, metavar="DIR", help="Directory to write: curves.csv.")
@click.option("--overwrite", is_flag=True, help="Replace DIR if `inferx pack` wrote it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.pass_context
def pack(ctx: click.Context, /, **given: Any) -> None:
    """Pack pods onto nodes until the GPUs have been asked for 1.3 times over.

    PODS are openb pod lists. Nothing is served and nobody leaves: it shows how many GPUs each rule
    can still allocate when little is left, and how much of the rest is fragments.
    """
    if not 1 <= given["jobs"] <= _MAX_JOBS:
        raise DescriptionError(f"jobs {given['jobs']}: expected 1 to {_MAX_JOBS}")
    seeds = parse_seeds(
        "42..51" if given["experiment"] and _default(ctx, "seed") else given["seed"]
    )
    policies = _policies(given["policies"])
    published = None
    if given["experiment"]:
        pods, nodes, orders, folder = _experiment(given)
        published = read_published(folder)
    else:
        pods, nodes, orders = given["pods"], given["nodes"], given["orders"]
        if not pods or nodes is None:
            raise click.UsageError("expected PODS.csv and --nodes NODES.csv, or --experiment")
        if given["published"] is not None:
            raise click.UsageError("--published goes with --experiment")
    _once([path.name.removesuffix(".csv") for path in pods])
    out: Path | None = given["out"]
    if out is not None:
        refuse_early(out, overwrite=given["overwrite"])
    jobs = [
        PackJob(path, nodes, orders, seed, policies, given["optimum"])
        for path in pods
        for seed in seeds
    ]
    began = time.monotonic()
    runs = _run(jobs, given["jobs"])
    wall_s = time.monotonic() - began
    compared = None if published is None else compare(runs, published)
    command = list(canonical_words(ctx, without=_UNSHAPING))
    if out is not None:
        inputs = {f"pods.{path.name}": path for path in pods} | {"nodes": nodes}
        write_pack(
            out,
            runs,
            command=command,
            inputs=inputs if orders is None else inputs | {"orders": orders},
            shown=str if given["experiment"] is None else _below_traces,
            attached={}
            if compared is None
            else {
                "comparison.md": document(compared, command, _circumstances(runs, given, wall_s))
            },
            overwrite=given["overwrite"],
        )
    show_packing(runs, compared, out, as_json=given["as_json"])


def _below_traces(path: Path) -> str:
    """Return a path as whoever sets the same variable would write it."""
    traces = Path(os.environ["INFERX_TRACE_DIR"])
    for folder, name in ((traces, "$INFERX_TRACE_DIR"), (traces.parent, "$INFERX_TRACE_DIR/..")):
        if path.is_relative_to(folder):
            return f"{name}/{path.relative_to(folder)}"
    return str(path)


def _circumstances(runs: Sequence[PackRun], given: dict[str, Any], wall_s: float) -> str:
    """Say on what, when and how fast the runs were made."""
    git = git_fact()
    commit = "no commit" if git is None else git.commit[:7] + (", changed" if git.dirty else "")
    # Of this process and of those that have ended.
    cpu_s = sum(os.times()[:4])
    made = datetime.now(UTC).date().isoformat()
    return (
        f"{len(runs)} runs: {cpu_s:.0f} s of computing, {wall_s:.0f} s by the clock, other work on "
        f"the machine included; {given['jobs']} of {os.cpu_count()} {platform.machine()} cores, "
        f"InferX {__version__} ({commit}), Python {platform.python_version()}, "
        f"numpy {np.__version__}, {made}."
    )


def _default(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is click.core.ParameterSource.DEFAULT


def _policies(given: Sequence[str]) -> tuple[PackPolicy, ...]:
    known = (*PUBLISHED, *rules())
    for name in given:
        if name not in known and ":" not in name:
            raise DescriptionError(
                f"policy {name!r}: unknown; expected one of {', '.join(known)}, FILE.py:NAME or "
                "MODULE:NAME"
            )
    _once(given)
    chosen = [
        PackPolicy(name, None if name in PUBLISHED else partial(load_rule, name))
        for name in given or PUBLISHED
    ]
    for policy in chosen:
        if policy.make is not None:
            policy.make()  # A rule that cannot be made is told before the first run.
    return tuple(chosen)


def _once(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise DescriptionError(f"{name}: given twice; expected once")


def _experiment(given: dict[str, Any]) -> tuple[tuple[Path, ...], Path, Path, Path]:
    """Return pod lists, node list, orders, and the folder of published curves."""
    if given["pods"] or given["nodes"] or given["orders"]:
        raise click.UsageError("--experiment brings its own pods, nodes and orders")
    traces = os.environ.get("INFERX_TRACE_DIR")
    if not traces:
        raise DescriptionError(
            "INFERX_TRACE_DIR is not set; expected a folder of public traces, with openb/ in it"
        )
    openb = Path(traces) / "openb"
    folder: Path = given["published"] or Path(traces).parent / "oracles" / "fgd"
    pods = tuple(openb / f"openb_pod_list_{name}.csv" for name in FGD_WORKLOADS)
    return pods, openb / "openb_node_list_gpu_node.csv", folder / "orders.npz", folder


def _run(jobs: Sequence[PackJob], workers: int) -> list[PackRun]:
    runs: list[PackRun] = []
    with _watching(len(jobs)) as tell, closing(run_jobs(jobs, workers=workers)) as done:
        for index, some in enumerate(done):
            runs += some
            tell(index + 1, f"{some[0].workload}, seed {some[0].seed}")
    return runs


@contextmanager
def _watching(total: int) -> Generator[Callable[[int, str], None]]:
    """Show a bar on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _done, _what: None
        return
    columns = (TextColumn("packing {task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)

        def tell(done: int, what: str) -> None:
            bar.update(task, completed=done, description=what)

        yield tell
