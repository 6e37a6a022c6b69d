"""`inferx agent bench`: how fast this node dumps and restores, beside the floor of its tiers."""

import os
import platform
import shlex
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import click
import msgspec
from rich.console import Console

from inferx.cli import agent_bench_tables as tables
from inferx.cli.progress import solving
from inferx.core.errors import DescriptionError
from inferx.exec.agent.bench import (
    About,
    Bench,
    Clones,
    Plan,
    Results,
    Round,
    Subject,
    opened,
    require_memory,
    temporary_config,
)
from inferx.exec.agent.config import AgentConfig, read_config
from inferx.exec.agent.host_memory import available_bytes
from inferx.exec.agent.network import HostNetwork
from inferx.exec.agent.node import Node
from inferx.exec.agent.store import TierName
from inferx.spec.sizes import parse_bytes

__all__ = ["bench"]

_FILE = click.Path(path_type=Path)
_NAMES: tuple[TierName, ...] = get_args(TierName)


def _sizes(ctx: click.Context, option: click.Parameter, text: str) -> tuple[int, ...]:
    del ctx
    sizes = tuple(parse_bytes(option.opts[-1], one) for one in text.split(","))
    if not all(sizes):
        raise DescriptionError(f"{option.opts[-1]} {text!r}: expected sizes of more than no bytes")
    return sizes


def _tiers(ctx: click.Context, option: click.Parameter, text: str) -> tuple[TierName, ...]:
    del ctx
    wanted = text.split(",")
    for one in wanted:
        if one not in _NAMES:
            expected = ", ".join(_NAMES)
            raise DescriptionError(f"{option.opts[-1]} {text!r}: expected some of {expected}")
    return tuple(name for name in _NAMES if name in wanted)


@click.command(
    epilog="\b\nExample:\n  inferx agent bench --sizes 10MB,100MB\n"
    "  inferx agent bench --torch --out bench.json --profile this-node.toml",
)
@click.option("--config", type=_FILE, help="The node's configuration; without, one for the bench.")
@click.option(
    "--sandbox",
    type=click.Choice(["auto", "containerd", "runc", "process"]),
    help="Without --config: where the pods live.  [default: auto]",
)
@click.option("--containerd", metavar="SOCKET", help="Without --config: where containerd listens.")
@click.option(
    "--sizes",
    callback=_sizes,
    default="10MB,100MB,1GB,4GB",
    show_default=True,
    help="Weights of the pods.",
)
@click.option(
    "--tiers", callback=_tiers, default="dram,nvme", show_default=True, help="Where snapshots go."
)
@click.option("--rounds", type=click.IntRange(1, 1000), default=3, show_default=True)
@click.option("--torch", "with_torch", is_flag=True, help="A torch worker of 512 MiB as well.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of weights.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--out", type=_FILE, help="Write the JSON to this file.")
@click.option("--profile", type=_FILE, help="Write a profile that `inferx replay --profile` takes.")
@click.option(
    "--of-workers",
    is_flag=True,
    help="Let it be one of such workers on declared GPUs, for `inferx drive --predict`.",
)
def bench(
    *,
    config: Path | None,
    sandbox: str | None,
    containerd: str | None,
    sizes: tuple[int, ...],
    tiers: tuple[TierName, ...],
    rounds: int,
    with_torch: bool,
    seed: int,
    as_json: bool,
    out: Path | None,
    profile: Path | None,
    of_workers: bool,
) -> None:
    """Measure cold starts, dumps and restores by size and tier, beside `dd` of the same bytes.

    Pods of `inferx worker` are started in the node's own sandbox, dumped, and restored from a warm
    and a cold page cache, lazily, and three at once; memory and answer must be what they were.
    Ctrl-C ends it, with what has been measured. No agent may run on the same state meanwhile.
    """
    if of_workers and profile is None:
        raise click.UsageError("--of-workers tells of the profile; expected --profile as well")
    if config is not None and (sandbox or containerd):
        raise click.UsageError("--config says where the pods live; expected it, or the options")
    plan = Plan(sizes, tiers, rounds, torch=with_torch, seed=seed)
    require_memory(plan.subjects(), available_bytes())
    for path in (out, profile):
        if path is not None and not path.parent.is_dir():
            raise DescriptionError(f"{path}: no folder {path.parent}; expected one")
    done: list[Round] = []
    cloned: list[Clones] = []
    about: About | None = None
    try:
        with (
            _configuration(config, sandbox, containerd) as settings,
            opened(settings, plan) as measured,
        ):
            about = _about(measured.node, plan)
            with solving("measuring") as tell:
                _run(measured, done, cloned, tell)
            about = msgspec.structs.replace(about, finished=True)
    finally:
        # Also of what was interrupted, or has failed in the middle.
        if about is not None and done:
            _tell(
                Results(about=about, rounds=tuple(done), clones=tuple(cloned)),
                as_json=as_json,
                out=out,
                profile=profile,
                of_workers=of_workers,
            )


@contextmanager
def _configuration(
    path: Path | None, sandbox: str | None, containerd: str | None
) -> Generator[AgentConfig]:
    if path is not None:
        yield read_config(path)
        return
    with temporary_config(sandbox=sandbox or "auto") as config:
        yield msgspec.structs.replace(config, containerd=containerd or config.containerd)


def _run(
    bench: Bench, done: list[Round], cloned: list[Clones], tell: Callable[[str], None]
) -> None:
    """Measure everything, each result noted as soon as it is there."""
    plan = bench.plan
    subjects = plan.subjects()
    several = plan.cloned(available_bytes())
    total = len(subjects) * len(plan.tiers) * plan.rounds
    for subject in subjects:
        with bench.holding(subject):
            for tier in plan.tiers:
                for _ in range(plan.rounds):
                    what = f"{len(done) + 1}/{total} {subject.title} on {tier}"
                    done.append(bench.round(subject, tier, _saying(tell, what)))
            if subject == several:
                tell(f"clones of {subject.title}")
                cloned.extend(_clones(bench, subject))


def _clones(bench: Bench, subject: Subject) -> Sequence[Clones]:
    if isinstance(bench.node.network, HostNetwork):
        # On the host's network a port serves one pod.
        return ()
    return [bench.clones(subject, tier) for tier in bench.plan.tiers]


def _saying(tell: Callable[[str], None], what: str) -> Callable[[str], None]:
    return lambda step: tell(f"{what}: {step}")


def _about(node: Node, plan: Plan) -> About:
    # The simulator knows the checkout that the package is of; its reader is used here.
    from inferx.sim.manifest import git_fact

    git = git_fact()
    commit = "" if git is None else f"{git.commit}{'+changes' if git.dirty else ''}"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return About(
        command=shlex.join(["inferx", *sys.argv[1:]]),
        commit=commit,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=f"{node.platform.cpu or platform.machine()}, {os.cpu_count()} CPUs,"
        f" {memory / 2**30:.0f} GiB",
        kernel=node.platform.kernel,
        sandbox=node.sandbox.name,
        snapshotter=node.snapshotter.name,
        network="host" if isinstance(node.network, HostNetwork) else "bridge",
        criu=node.platform.criu,
        gpus=_gpus(node),
        seed=plan.seed,
        rounds=plan.rounds,
        finished=False,
    )


def _gpus(node: Node) -> str:
    """Say who tells of the GPUs: a stand-in for a library is a file of another name."""
    told = [one for one in node.capabilities if one.name.startswith(("gpu/", "inventory/"))]
    for one in told:
        if one.available:
            facts = ", ".join(f"{key} {value}" for key, value in one.facts.items())
            return f"{len(node.inventory.gpus())} by {one.name} ({facts}); the pods use none"
    return "none"


def _tell(
    results: Results,
    *,
    as_json: bool,
    out: Path | None,
    profile: Path | None,
    of_workers: bool,
) -> None:
    text = msgspec.json.format(msgspec.json.encode(results), indent=1).decode()
    if out is not None:
        out.write_text(f"{text}\n", encoding="utf-8")
    if profile is not None:
        from inferx.cli.agent_profile import profile_text

        text_of = profile_text(results, name=profile.stem, of_workers=of_workers)
        profile.write_text(text_of, encoding="utf-8")
    if as_json:
        click.echo(text)
        return
    console = Console()
    for line in tables.about_lines(results.about):
        console.print(line, highlight=False)
    for table in tables.bench_tables(results):
        console.print(table)
