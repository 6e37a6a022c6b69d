"""`inferx agent`: one node's agent, what the node can do, and how fast it is at it."""

import asyncio
import json
import signal
import socket as socket_module
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from inferx.cli.agent_bench import bench
from inferx.cli.agent_end import end
from inferx.cli.agent_member import Member, run_member
from inferx.cli.services import (
    Ready,
    recording,
    run_service,
    service_options,
    tls_files,
    trace_options,
)
from inferx.cli.stand_ins import worker_options, worker_settings
from inferx.core.types import NodeId
from inferx.exec.agent.config import AgentConfig, read_config
from inferx.exec.agent.control import serve
from inferx.exec.agent.deployed import load_deployed
from inferx.exec.agent.executor import Executor, Recovered
from inferx.exec.agent.node import Node, assemble
from inferx.exec.agent.pods import Pods
from inferx.exec.agent.sandbox_kind import SANDBOX_WAIT_S
from inferx.exec.agent.service import AgentService
from inferx.exec.logs import log_to_stderr
from inferx.exec.metrics.node import NodeSource
from inferx.exec.metrics.process import ProcessSource
from inferx.exec.metrics.server import OFF, MetricsAddress, metrics_address, metrics_served
from inferx.exec.tracing.config import TraceConfig
from inferx.spec.sizes import parse_bytes

__all__ = ["agent"]

_FILE = click.Path(path_type=Path)


def config_of(path: Path | None) -> AgentConfig:
    """Return the configuration in a file, or the default one."""
    return AgentConfig() if path is None else read_config(path)


def _size(ctx: click.Context, option: click.Parameter, text: str | None) -> int | None:
    del ctx
    return None if text is None else parse_bytes(option.opts[-1], text)


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExample:\n  inferx agent probe\n"
    "  inferx agent --config node.toml --functions functions/\n"
    "  inferx agent --config node.toml --state grpc://state:1237",
)
@click.option("--config", type=_FILE, help="The node's configuration; see docs/node-agent.md.")
@click.option("--functions", type=_FILE, help="File or folder of the functions that may run here.")
@click.option("--node", type=click.IntRange(0), default=0, help="The scheduler's id of this node.")
@click.option("--state", help="The state service of the cluster to join: grpc://HOST:PORT.")
@click.option("--name", help="What the node is called in it.  [default: the host's name]")
@click.option("--host", callback=_size, metavar="SIZE", help="Host memory that pods may be given.")
@click.option("--stand-in-workers", is_flag=True, help="Run `inferx worker` in place of images.")
@trace_options()
@worker_settings
@click.option("--journal", type=_FILE, help="Folder for its journal.")
@service_options("127.0.0.1:1233")
@click.pass_context
def agent(
    ctx: click.Context,
    *,
    config: Path | None,
    functions: Path | None,
    node: int,
    state: str | None,
    name: str | None,
    host: int | None,
    stand_in_workers: bool,
    traces: TraceConfig | None,
    worker_set: Sequence[str],
    journal: Path | None,
    listen: str,
    ready_file: Path | None,
    metrics_listen: str | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    tls_authority: Path | None,
    log_json: bool,
) -> None:
    """Run this node's agent until it is interrupted. Pods outlive it, and are found again.

    With --state it joins a cluster, whose schedulers tell it of functions; without, it takes
    commands at its own socket alone.
    """
    if ctx.invoked_subcommand is not None:
        return
    settings = config_of(config)
    # One that is in no cluster listens at its own socket alone, unless told otherwise.
    alone = OFF if state is None else None
    tls = tls_files(tls_certificate, tls_key, tls_authority)
    metrics = metrics_address(metrics_listen or alone, listen, tls)
    if state is not None:
        member = Member(
            state=state,
            name=name or socket_module.gethostname(),
            host_bytes=host or 0,
            stand_in_workers=stand_in_workers,
            worker_options=worker_options(worker_set),
            journals=journal,
            listen=listen,
            metrics=metrics,
            tls=tls,
        )
        with recording(traces, "agent", **{"inferx.node": member.name}) as recorder:
            run_service(
                run_member(settings, member, Ready("agent", ready_file), recorder),
                log_json=log_json,
                service="agent",
                name=member.name,
            )
        return
    if functions is None:
        raise click.UsageError(
            "--functions: nothing; expected a file or folder of functions, or --state"
        )
    log_to_stderr(as_json=log_json, service="agent")
    known = load_deployed(functions)
    adapters = assemble(settings, wait_s=SANDBOX_WAIT_S)
    try:
        service = AgentService(
            Executor(Pods(adapters, known)),
            node=NodeId(node),
            state=settings.state,
            name=name or socket_module.gethostname(),
            journals=journal,
        )
        asyncio.run(_run(service, settings.socket, metrics))
    finally:
        adapters.close()


async def _run(service: AgentService, socket: Path, metrics: MetricsAddress | None) -> None:
    runner = await serve(service, socket)
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        async with metrics_served(metrics, (ProcessSource("agent"), NodeSource(service))):
            await service.run(ready=lambda found: _ready(found, socket))
    except asyncio.CancelledError:
        click.echo("stopped; pods go on", err=True)
    finally:
        await runner.cleanup()


def _ready(found: Recovered, socket: Path) -> None:
    told = f"agent ready at {socket}"
    if found.adopted or found.killed or found.leftovers:
        told += (
            f"; {len(found.adopted)} pods adopted, {len(found.killed)} ended that were in the"
            f" middle of something, {found.leftovers} unfinished snapshots removed"
        )
    click.echo(told, err=True)
    for line in found.unreadable:
        click.echo(line, err=True)


@agent.command(epilog="\b\nExample:\n  inferx agent probe --json")
@click.option("--config", type=_FILE, help="The node's configuration.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def probe(*, config: Path | None, as_json: bool) -> None:
    """Tell what this node can do, and what it cannot and why."""
    node: Node = assemble(config_of(config))
    try:
        facts = {
            "capabilities": msgspec.to_builtins(node.capabilities),
            "gpus": msgspec.to_builtins(node.inventory.gpus()),
            "platform": msgspec.to_builtins(node.platform),
        }
    finally:
        node.close()
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    table = Table("capability", "", "why not, or what")
    for one in node.capabilities:
        told = one.reason or ", ".join(f"{key} {value}" for key, value in one.facts.items())
        table.add_row(one.name, "yes" if one.available else "no", told)
    Console().print(table)


agent.add_command(bench)
agent.add_command(end)
