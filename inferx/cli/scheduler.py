"""`inferx scheduler`: the scheduler service."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import click
import uvloop

from inferx.cli.identity_options import AUDIT
from inferx.cli.services import (
    FILE,
    Ready,
    recording,
    run_service,
    server_credentials,
    service_options,
    tls_files,
    trace_options,
)
from inferx.exec.clock import WallClock
from inferx.exec.identity.audit_opening import open_audit
from inferx.exec.identity.tls import TlsFiles, channel_credentials
from inferx.exec.metrics.server import MetricsAddress, metrics_address, metrics_served
from inferx.exec.scheduler.leader import TermConfig
from inferx.exec.scheduler.service import SchedulerService
from inferx.exec.state.objects.objects import Objects
from inferx.exec.state.opening import open_store
from inferx.exec.tracing.config import TraceConfig
from inferx.load import load_bundle, parse_setting

__all__ = ["ADDRESS", "scheduler"]

ADDRESS = "127.0.0.1:1238"
"""Where a scheduler listens if nothing else is said."""


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExample:\n  inferx scheduler --state grpc://127.0.0.1:1237\n"
    "  inferx scheduler --state grpc://state:1237 --policy my_policy.py:bundle --set hold_s=60",
)
@click.option("--state", required=True, help="The state service: grpc://HOST:PORT.")
@click.option("--policy", default="default", show_default=True, help="Bundle, as for replay.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Of the policy.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of its chance.")
@click.option("--journal", type=FILE, help="Folder for the journal of each term.")
@AUDIT
@trace_options()
@service_options(ADDRESS)
def scheduler(
    *,
    state: str,
    policy: str,
    settings: Sequence[str],
    seed: int,
    journal: Path | None,
    audit: str | None,
    traces: TraceConfig | None,
    listen: str,
    ready_file: Path | None,
    metrics_listen: str | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    tls_authority: Path | None,
    log_json: bool,
) -> None:
    """Stand for election, and decide what runs where while it leads."""
    tls = tls_files(tls_certificate, tls_key, tls_authority)
    chosen = dict(parse_setting(one) for one in settings)
    load_bundle(policy, chosen)  # What cannot be loaded is told now, not at an election.
    config = TermConfig(
        load=load_bundle,
        policy=policy,
        settings=chosen,
        seed=seed,
        journals=journal,
        credentials=None if tls is None else channel_credentials(tls),
        audit=None if audit is None else open_audit(audit, WallClock()),
    )
    metrics = metrics_address(metrics_listen, listen, tls)
    with recording(traces, "scheduler") as recorder:
        traced = replace(config, recorder=recorder)
        work = _run(state, traced, listen, tls, metrics, Ready("scheduler", ready_file))
        run_service(work, log_json=log_json, service="scheduler", loop=uvloop.new_event_loop)


async def _run(
    state: str,
    config: TermConfig,
    listen: str,
    tls: TlsFiles | None,
    metrics: MetricsAddress | None,
    ready: Ready,
) -> None:
    clock = WallClock()
    store = await open_store(state, clock)
    try:
        async with server_credentials(tls) as credentials:
            service = SchedulerService(
                config, store, Objects(store), address=listen, credentials=credentials, clock=clock
            )
            async with metrics_served(metrics, service.metrics) as at:
                await service.run(ready=partial(ready, metrics=at))
    finally:
        await store.close()
