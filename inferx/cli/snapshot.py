"""`inferx snapshot`: make, restore and look after the snapshots of a node, without its agent."""

import json
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from inferx.cli import snapshot_tables as tables
from inferx.cli.agent import config_of
from inferx.cli.progress import solving
from inferx.core.events import PhaseTiming
from inferx.core.types import FunctionId, GpuId, PodId
from inferx.core.units import NS_PER_MS, NS_PER_S
from inferx.exec.agent.deployed import load_deployed
from inferx.exec.agent.executor import Executor
from inferx.exec.agent.freezing import Freezing
from inferx.exec.agent.node import assemble
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.pods import Pods
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store import FolderTier, SnapshotStore, TierName, open_store

__all__ = ["snapshot"]

_FILE = click.Path(path_type=Path)
_TIER = click.Choice(["dram", "nvme", "shared"])
_POD = PodId(1)

_config = click.option("--config", type=_FILE, help="The node's configuration.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExample:\n  inferx snapshot create deploy/functions/worker-paced.json\n"
    "  inferx snapshot list\n  inferx snapshot restore 3f2a",
)
def snapshot() -> None:
    """Make, restore and look after snapshots. No agent may run on the same state meanwhile."""


@contextmanager
def _freezing(config: Path | None, functions: Path) -> Generator[Freezing]:
    """Assemble a node for one pod; whatever of it is left at the end is removed."""
    known = load_deployed(functions)
    node = assemble(config_of(config), all_asked=False)
    try:
        pods = Pods(node, known)
        adopted = Executor(pods).recover().adopted
        if adopted:
            raise AgentError(
                f"{node.config.state}: {len(adopted)} pods of an agent that stopped; expected none:"
                " start it again, or give another state"
            )
        try:
            yield Freezing(pods)
        finally:
            for one in pods.all():
                pods.stop(PodId(one.record.pod))
            pods.close()
            node.network.close()
    finally:
        node.close()


def _function(freezing: Freezing, name: str | None) -> FunctionId:
    known = freezing.pods.functions
    named = [one.id for one in known.values() if name in {None, one.spec.name}]
    if len(named) != 1:
        names = ", ".join(one.spec.name for one in known.values())
        raise click.UsageError(f"--function {name or 'not given'}: expected one of {names}")
    return named[0]


@snapshot.command(
    epilog="\b\nExample:\n  inferx snapshot create deploy/functions/worker-paced.json --tier dram"
)
@click.argument("functions", type=_FILE)
@click.option("--function", "name", help="Which, where the file has several.")
@click.option("--gpu", "gpus", type=int, multiple=True, help="Start on this GPU; may be repeated.")
@click.option("--tier", type=_TIER, default="nvme", show_default=True, help="Where it is written.")
@_config
@_json
def create(
    *,
    functions: Path,
    name: str | None,
    gpus: tuple[int, ...],
    tier: TierName,
    config: Path | None,
    as_json: bool,
) -> None:
    """Start a function cold, wait until it can serve, write its snapshot, and end it."""
    phases = Phases()
    with _freezing(config, functions) as freezing, solving("starting and freezing a pod"):
        function = _function(freezing, name)
        # Asked before a pod is started for nothing.
        freezing.require_writing(freezing.pods.records.name(_POD))
        wanted = tuple(GpuId(gpu) for gpu in gpus) or _some(freezing, function)
        store = freezing.pods.node.store
        written = _written_to(store, tier)
        freezing.pods.create(_POD, function, wanted, phases)
        manifest = freezing.snapshot(_POD, phases, leave=True, to=written)
        if written != tier:
            with phases.step("sink", manifest.size_bytes):
                store.sink(manifest.id, tier, keep=False)
    _show(
        {"snapshot": manifest.id, "bytes": manifest.size_bytes, "tier": tier},
        phases,
        as_json=as_json,
    )


def _written_to(store: SnapshotStore, tier: TierName) -> TierName:
    """Return the folder where a snapshot for a tier is written: for a bucket, the coldest."""
    folders: list[TierName] = [one.name for one in store.tiers if isinstance(one, FolderTier)]
    if store.tier(tier).name in folders:
        return tier
    if not folders:
        raise AgentError(f"tier {tier} is a bucket: expected a tier that is a folder beside it")
    return folders[-1]


@snapshot.command(epilog="\b\nExample:\n  inferx snapshot restore 3f2a deploy/functions/")
@click.argument("snapshot_id", metavar="SNAPSHOT")
@click.argument("functions", type=_FILE)
@click.option("--gpu", "gpus", type=int, multiple=True, help="Restore onto this GPU.")
@click.option("--for", "for_s", type=click.FloatRange(0), help="End after so many seconds.")
@_config
@_json
def restore(
    *,
    snapshot_id: str,
    functions: Path,
    gpus: tuple[int, ...],
    for_s: float | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Restore a pod, say where it serves, and keep it until interrupted.

    SNAPSHOT is an id, or the beginning of one.
    """
    phases = Phases()
    with _freezing(config, functions) as freezing:
        store = freezing.pods.node.store
        found = store.get(tables.find_id(store, snapshot_id))
        known = freezing.pods.functions.values()
        named = [one.id for one in known if one.launch.function == found.manifest.function]
        if not named:
            raise click.UsageError(f"{functions}: has no {found.manifest.function}")
        wanted = tuple(GpuId(gpu) for gpu in gpus) or _some(freezing, named[0])
        one = freezing.restore(_POD, named[0], wanted, phases, snapshot=found.manifest.id)
        facts = {"snapshot": found.manifest.id, "address": one.record.address}
        _show(facts, phases, as_json=as_json)
        until = None if for_s is None else time.monotonic() + for_s
        while until is None or time.monotonic() < until:
            time.sleep(0.1)


def _some(freezing: Freezing, function: FunctionId) -> tuple[GpuId, ...]:
    """Return the first GPUs, as many as the function has slices."""
    count = freezing.pods.function(function).spec.gpus
    usable = [gpu for gpu in freezing.pods.room.gpus() if not gpu.mig_enabled]
    return tuple(GpuId(gpu.index) for gpu in usable[:count])


def _show(facts: Mapping[str, Any], phases: Phases, *, as_json: bool) -> None:
    steps = phases.as_tuple()
    took_s = sum(step.duration_ns for step in steps) / NS_PER_S
    if as_json:
        told = {**facts, "seconds": took_s, "phases": msgspec.to_builtins(steps)}
        click.echo(json.dumps(told, indent=2))
        return
    for key, value in facts.items():
        click.echo(f"{key}: {value}")
    Console().print(_steps(steps))
    click.echo(f"{took_s:.3f} s in all")


def _steps(steps: Iterable[PhaseTiming]) -> Table:
    table = Table("step", "ms", "bytes")
    for step in steps:
        moved = f"{step.moved_bytes:,}" if step.moved_bytes else ""
        table.add_row(step.phase, f"{step.duration_ns / NS_PER_MS:,.1f}", moved)
    return table


# -- the store alone ---
def _store(config: Path | None) -> SnapshotStore:
    settings = config_of(config)
    return open_store(settings.tiers)


def _print(
    facts: Mapping[str, Any],
    render: Callable[[Mapping[str, Any]], Iterable[Table]],
    *,
    as_json: bool,
) -> None:
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    console = Console()
    for table in render(facts):
        console.print(table)


@snapshot.command("list", epilog="\b\nExample:\n  inferx snapshot list --json")
@click.option("--function", default="", help="Only of this one: tenant/namespace/name@version.")
@_config
@_json
def list_(*, function: str, config: Path | None, as_json: bool) -> None:
    """List snapshots and how full the tiers are."""
    facts = tables.list_facts(_store(config), function=function)
    _print(facts, tables.list_tables, as_json=as_json)


@snapshot.command(epilog="\b\nExample:\n  inferx snapshot inspect 3f2a")
@click.argument("snapshot_id", metavar="SNAPSHOT")
@_config
@_json
def inspect(*, snapshot_id: str, config: Path | None, as_json: bool) -> None:
    """Show what a snapshot is, and what it requires."""
    store = _store(config)
    facts = tables.inspect_facts(store, tables.find_id(store, snapshot_id))
    _print(facts, tables.inspect_tables, as_json=as_json)


@snapshot.command(epilog="\b\nExample:\n  inferx snapshot verify 3f2a --tier nvme")
@click.argument("snapshot_ids", metavar="SNAPSHOT...", nargs=-1, required=True)
@click.option("--tier", type=_TIER, help="Only the copy there.")
@_config
@_json
def verify(
    *,
    snapshot_ids: tuple[str, ...],
    tier: TierName | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Read every byte of snapshots; exit status 1 where one is not what was written."""
    store = _store(config)
    found = [tables.find_id(store, one) for one in snapshot_ids]
    with solving("reading every byte"):
        facts = tables.verify_facts(store, found, tier=tier)
    _print(facts, tables.verify_tables, as_json=as_json)
    if not facts["sound"]:
        sys.exit(1)


@snapshot.command(epilog="\b\nExample:\n  inferx snapshot copy 3f2a --to shared")
@click.argument("snapshot_ids", metavar="SNAPSHOT...", nargs=-1, required=True)
@click.option("--to", "tier", type=_TIER, required=True, help="Where a copy is to be.")
@_config
@_json
def copy(
    *, snapshot_ids: tuple[str, ...], tier: TierName, config: Path | None, as_json: bool
) -> None:
    """Copy snapshots to a tier; every byte is verified on the way."""
    store = _store(config)
    found = [tables.find_id(store, one) for one in snapshot_ids]
    with solving("copying"):
        facts = tables.copy(store, found, to=tier)
    _print(facts, tables.copy_tables, as_json=as_json)


@snapshot.command(epilog="\b\nExample:\n  inferx snapshot rm 3f2a --tier dram")
@click.argument("snapshot_ids", metavar="SNAPSHOT...", nargs=-1, required=True)
@click.option("--tier", type=_TIER, help="Only the copy there.")
@click.option("--last-copy", is_flag=True, help="With --tier: even if it is the last.")
@_config
@_json
def rm(
    *,
    snapshot_ids: tuple[str, ...],
    tier: TierName | None,
    last_copy: bool,
    config: Path | None,
    as_json: bool,
) -> None:
    """Remove snapshots that nobody uses."""
    store = _store(config)
    found = [tables.find_id(store, one) for one in snapshot_ids]
    facts = tables.remove(store, found, tier=tier, last_copy=last_copy)
    _print(facts, tables.remove_tables, as_json=as_json)
