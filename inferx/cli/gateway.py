"""`inferx gateway`: the gateway service."""

import gc
import socket
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import click
import uvloop

from inferx.cli.identity_options import IdentityOptions, identity_options
from inferx.cli.services import (
    FILE,
    Ready,
    recording,
    run_service,
    service_options,
    tls_files,
    trace_options,
)
from inferx.core.errors import DescriptionError
from inferx.exec.clock import WallClock
from inferx.exec.gateway.service import GatewayConfig, GatewayService
from inferx.exec.identity.audit_opening import open_audit
from inferx.exec.identity.tls import ServerTls, channel_credentials
from inferx.exec.metrics.server import MetricsAddress, metrics_address, metrics_served
from inferx.exec.state.objects.objects import Objects
from inferx.exec.state.opening import open_store
from inferx.exec.tracing.config import TraceConfig
from inferx.load import load_bundle, parse_setting

__all__ = ["gateway"]

COLLECT_AFTER = 50_000
"""Objects made since the last collection. Requests leave few cycles, and many objects."""


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExample:\n  inferx gateway --state grpc://127.0.0.1:1237",
)
@click.option("--state", required=True, help="The state service: grpc://HOST:PORT.")
@click.option("--name", help="What it is registered as.  [default: the host's name and the port]")
@click.option("--policy", default="default", show_default=True, help="Bundle, as for replay.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Of the policy.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of its chance.")
@click.option("--journal", type=FILE, help="Folder for its journal.")
@click.option("--https-certificate", type=FILE, help="Serve clients HTTPS alone, with it: PEM.")
@click.option("--https-key", type=FILE, help="Its private key.")
@identity_options
@click.option("--log-requests", is_flag=True, help="Log every request.")
@trace_options(begins=True)
@service_options("127.0.0.1:4000")
def gateway(
    *,
    state: str,
    name: str | None,
    policy: str,
    settings: Sequence[str],
    seed: int,
    journal: Path | None,
    https_certificate: Path | None,
    https_key: Path | None,
    audit: str | None,
    identity: IdentityOptions,
    log_requests: bool,
    traces: TraceConfig | None,
    listen: str,
    ready_file: Path | None,
    metrics_listen: str | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    tls_authority: Path | None,
    log_json: bool,
) -> None:
    """Take requests in, and send them to pods that are leased from the scheduler."""
    tls = tls_files(tls_certificate, tls_key, tls_authority)
    https = tls_files(https_certificate, https_key, None)
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal():
        raise DescriptionError(f"--listen {listen}: expected HOST:PORT")
    chosen = dict(parse_setting(one) for one in settings)
    load_bundle(policy, chosen)
    name = name or f"{socket.gethostname()}-{port}"
    config = GatewayConfig(
        load=load_bundle,
        name=name,
        host=host.removeprefix("[").removesuffix("]"),
        port=int(port),
        policy=policy,
        settings=chosen,
        seed=seed,
        journals=journal,
        issuers=identity.settings(),
        public=identity.public,
        log_requests=log_requests,
        credentials=None if tls is None else channel_credentials(tls),
        https=None if https is None else ServerTls(https),
    )
    metrics = metrics_address(metrics_listen, listen, tls)
    with recording(traces, "gateway", **{"inferx.gateway": name}) as recorder:
        traced = replace(config, recorder=recorder)
        work = _run(state, traced, audit, metrics, Ready("gateway", ready_file))
        run_service(
            work, log_json=log_json, service="gateway", name=name, loop=uvloop.new_event_loop
        )


async def _run(
    state: str,
    config: GatewayConfig,
    audit: str | None,
    metrics: MetricsAddress | None,
    ready: Ready,
) -> None:
    clock = WallClock()
    log = None if audit is None else open_audit(audit, clock)
    store = await open_store(state, clock)
    # What is there now stays: the collector need not look at it for each few hundred requests.
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    try:
        service = GatewayService(config, store, Objects(store), clock, audit=log)
        async with metrics_served(metrics, service.metrics) as at:
            await service.run(ready=partial(ready, metrics=at))
    finally:
        await store.close()
