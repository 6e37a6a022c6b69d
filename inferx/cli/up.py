"""`inferx up`: a whole cluster on this machine, for as long as the command runs."""

import asyncio
import json
import os
import re
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import click

from inferx.cli.identity_options import IdentityOptions, identity_options
from inferx.cli.services import FILE, run_service, trace_options
from inferx.cli.stand_ins import worker_options, worker_settings
from inferx.core.errors import DescriptionError
from inferx.exec.clock import WallClock
from inferx.exec.files import write_whole
from inferx.exec.identity.audit_opening import audit_url
from inferx.exec.identity.bootstrap import bootstrap_admin_key
from inferx.exec.state.opening import open_store
from inferx.exec.supervision import Child, supervised
from inferx.exec.tracing.config import TraceConfig
from inferx.spec.sizes import parse_bytes

__all__ = ["up"]

HOST = "127.0.0.1"
MAX_AGENTS = 16
ENDING = "ending: services first, then pods; it takes a few seconds"
STAND_IN_HOST = "1TiB"
"""Host memory that a node tells to have where workers stand in: they hold a 1024th of theirs."""

SNAPSHOTS_GIB = 64
"""Of snapshots that each node keeps, and that all keep together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What the command line asks for."""

    listen: str
    gpus: str | None
    host: str | None
    agents: int
    stand_in_workers: bool
    worker_set: tuple[str, ...]
    policy: str
    settings: tuple[str, ...]
    store: str | None
    journal: bool
    audit: str | None
    identity: IdentityOptions
    ready_file: Path | None
    log_json: bool
    traces: TraceConfig | None


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExample:\n  inferx up --gpus 2x80GiB --stand-in-workers\n"
    "  inferx up --agents 3 --policy my_policy.py:bundle --folder cluster/",
)
@click.option("--listen", default=f"{HOST}:4000", show_default=True, help="Where the gateway is.")
@click.option("--gpus", help="GPUs that each node declares, as 2x80GiB.  [default: those found]")
@click.option(
    "--host", metavar="SIZE", help="Host memory of each node that pods may be given, as 4GiB."
)
@click.option(
    "--agents", type=click.IntRange(1, MAX_AGENTS), default=1, show_default=True, help="Nodes."
)
@click.option("--stand-in-workers", is_flag=True, help="Run `inferx worker` in place of images.")
@worker_settings
@click.option("--policy", default="default", show_default=True, help="Bundle, as for replay.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Of the policy.")
@click.option("--store", help="Where state is kept.  [default: SQLite, in the folder]")
@click.option("--folder", type=FILE, help="What stays after it.  [default: nothing does]")
@click.option("--journal", is_flag=True, help="Write the machines' journals to the folder.")
@identity_options
@click.option("--ready-file", type=FILE, help="Written, as JSON, once it serves.")
@click.option("--log-json", is_flag=True, help="Log lines of JSON.")
@trace_options(begins=True)
def up(
    *,
    listen: str,
    gpus: str | None,
    host: str | None,
    agents: int,
    stand_in_workers: bool,
    worker_set: tuple[str, ...],
    policy: str,
    settings: tuple[str, ...],
    store: str | None,
    folder: Path | None,
    journal: bool,
    audit: str | None,
    identity: IdentityOptions,
    ready_file: Path | None,
    log_json: bool,
    traces: TraceConfig | None,
) -> None:
    """Run state service, scheduler, gateway and agents on this machine until Ctrl-C.

    It prints where the gateway is and which file has an administrator's key. Nothing listens
    beyond this machine, and nothing is left after it but what --folder keeps.
    """
    if gpus is not None:
        _check_gpus(gpus)
    worker_options(worker_set)
    if host is not None:
        parse_bytes("--host", host)
    # What cannot be used is told before anything is started.
    identity.settings()
    if audit is not None:
        audit_url(audit)
    wanted = _Wanted(
        listen=listen,
        gpus=gpus,
        host=host,
        agents=agents,
        stand_in_workers=stand_in_workers,
        worker_set=worker_set,
        policy=policy,
        settings=settings,
        store=store,
        journal=journal,
        audit=audit,
        identity=identity,
        ready_file=ready_file,
        log_json=log_json,
        traces=traces,
    )
    with ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="inferx-up-")))
        folder = folder.absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        run_service(_run(wanted, folder), log_json=log_json, service="up", ending=ENDING)


def _check_gpus(text: str) -> None:
    count, _, size = text.partition("x")
    if not re.fullmatch("[0-9]{1,2}", count) or not 1 <= int(count) <= 8:
        raise DescriptionError(f"--gpus {text}: expected count and size, as in 2x80GiB")
    parse_bytes("--gpus", size)


async def _run(wanted: _Wanted, folder: Path) -> None:
    children: list[Child] = []
    configs = [_node_config(wanted, folder, number) for number in range(wanted.agents)]
    try:
        try:
            await _start(wanted, folder, configs, children)
        except BaseException:
            for child in reversed(children):
                await child.end()
            raise
        await supervised(children)
    finally:
        # Pods outlive their agents, also one that was just about to find them again.
        for config in configs:
            await _end_pods(config)


async def _end_pods(config: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "inferx", "agent", "end", "--config", str(config)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        # A second Ctrl-C of whom it takes too long is for all of a terminal's group.
        start_new_session=True,
    )
    _, said = await process.communicate()
    if process.returncode:
        click.echo(f"{config.stem}: {said.decode(errors='replace').strip()}", err=True)


async def _start(
    wanted: _Wanted, folder: Path, configs: Sequence[Path], children: list[Child]
) -> None:
    logs = ("--log-json",) if wanted.log_json else ()
    traces = wanted.traces
    otlp = () if traces is None else ("--otlp", traces.endpoint)
    ratio = () if traces is None else ("--trace-ratio", str(traces.ratio))
    metrics: dict[str, str] = {}
    services: dict[str, str] = {}

    async def started(name: str, *arguments: str) -> str:
        listen = ("--metrics-listen", f"{HOST}:0")
        command = (sys.executable, "-m", "inferx", *arguments, *listen, *logs)
        child = Child(name, command, folder)
        children.append(child)
        click.echo(f"starting {name}", err=True)
        told = await child.start()
        metrics[name] = str(told["metrics"])
        services[name] = arguments[0]
        return str(told["address"])

    journal = ("--journal", str(folder / "journals")) if wanted.journal else ()
    audit = ("--audit", wanted.audit or f"sqlite:{folder / 'audit.db'}")
    store = wanted.store or f"sqlite:{folder / 'state.db'}"
    address = await started("state", "state", "--store", store, "--listen", f"{HOST}:0")
    state = f"grpc://{address}"
    policy = ("--policy", wanted.policy, *(x for one in wanted.settings for x in ("--set", one)))
    key = await _admin_key(state, folder)
    scheduler = await started(
        "scheduler",
        *("scheduler", "--state", state, "--listen", f"{HOST}:0"),
        *(*policy, *journal, *audit, *otlp),
    )
    for config in configs:
        name = config.stem
        stand_in = ("--stand-in-workers",) if wanted.stand_in_workers else ()
        workers = [x for one in wanted.worker_set for x in ("--worker-set", one)]
        room = wanted.host or (STAND_IN_HOST if wanted.stand_in_workers else None)
        await started(
            name,
            *("agent", "--config", str(config), "--state", state, "--name", name),
            *("--listen", f"{HOST}:0", *stand_in, *(("--host", room) if room else ())),
            *(*workers, *journal, *otlp),
        )
    gateway = await started(
        "gateway",
        # Started again it is the same one, wherever it listens, and has its leases back at once.
        *("gateway", "--state", state, "--name", "gateway", "--listen", wanted.listen),
        *(*policy, *journal, *audit, *wanted.identity.words(), *otlp, *ratio),
    )
    _write_targets(metrics, services, folder)
    url = f"http://{gateway}"
    click.echo(f"inferx is up at {url}; an administrator's key is in {key}", err=True)
    click.echo(f"  export INFERX_SERVER={url} INFERX_API_KEY=$(cat {key})", err=True)
    if wanted.ready_file is not None:
        told = {
            "gateway": url,
            "api_key": key.read_text().strip(),
            "api_key_file": str(key),
            "state": state,
            "scheduler": scheduler,
            "metrics": metrics,
            "folder": str(folder),
            "processes": {child.name: child.pid for child in children},
        }
        write_whole(wanted.ready_file, json.dumps(told).encode())


def _write_targets(metrics: Mapping[str, str], services: Mapping[str, str], folder: Path) -> None:
    """Write where Prometheus reads, as its `file_sd_configs` takes it."""
    targets = [
        {"targets": [address], "labels": {"service": services[name], "name": name}}
        for name, address in metrics.items()
    ]
    write_whole(folder / "prometheus.json", json.dumps(targets).encode())


async def _admin_key(state: str, folder: Path) -> Path:
    path = folder / "admin.key"
    clock = WallClock()
    store = await open_store(state, clock)
    try:
        async with asyncio.timeout(10):
            await bootstrap_admin_key(store, clock, path)
    finally:
        await store.close()
    return path


def _node_config(wanted: _Wanted, folder: Path, number: int) -> Path:
    """Write a node's configuration: names, folders and addresses of its own."""
    state = folder / f"node-{number}"
    state.mkdir(mode=0o700, exist_ok=True)
    config = folder / f"node-{number}.toml"
    name, subnet = _node_place(config, number)
    gpus = f'declare = "{wanted.gpus}"\n' if wanted.gpus else ""
    sandbox = '[sandbox]\nkind = "process"\n' if wanted.stand_in_workers else ""
    config.write_text(
        f'[agent]\nname = "{name}"\nstate = "{state}"\n'
        f'[network]\nsubnet = "{subnet}"\n'
        f"{sandbox}[gpu]\n{gpus}"
        f'[store.nvme]\npath = "{state / "snapshots"}"\nbudget_gib = {SNAPSHOTS_GIB}\n'
        f'[store.shared]\npath = "{folder / "shared"}"\nbudget_gib = {SNAPSHOTS_GIB}\n'
    )
    return config


def _node_place(config: Path, number: int) -> tuple[str, str]:
    """Return a node's name on this machine, and its subnet.

    It is what it was in the same folder before: an `up` that was killed left pods under that name,
    with networks and cgroups, and the node finds them by it.
    """
    with suppress(FileNotFoundError, tomllib.TOMLDecodeError, KeyError):
        told = tomllib.loads(config.read_text())
        return told["agent"]["name"], told["network"]["subnet"]
    # A cgroup's name is at most eight characters, and another `up` may run beside this one.
    second = 64 + os.getpid() % 64
    third = (os.getpid() // 64) % 16 * 16 + number
    return f"u{os.getpid() % 0xFFFFF:05x}{number:x}", f"10.{second}.{third}.0/24"
