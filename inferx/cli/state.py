"""`inferx state`: the state service."""

import asyncio
from pathlib import Path

import click
import uvloop

from inferx.cli.services import Ready, run_service, server_credentials, service_options, tls_files
from inferx.exec.clock import WallClock
from inferx.exec.identity.tls import TlsFiles
from inferx.exec.metrics.process import ProcessSource
from inferx.exec.metrics.server import MetricsAddress, metrics_address, metrics_served
from inferx.exec.metrics.state import CountedStore, StateSource
from inferx.exec.state.opening import open_store
from inferx.exec.state.server import ADDRESS, served

__all__ = ["state"]


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExample:\n  inferx state --store sqlite:state.db\n"
    "  inferx state --store etcd://10.0.0.1:2379,10.0.0.2:2379",
)
@click.option("--store", required=True, help="Where state is kept: sqlite:PATH, etcd://HOST:PORT.")
@service_options(ADDRESS)
def state(
    *,
    store: str,
    listen: str,
    ready_file: Path | None,
    metrics_listen: str | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    tls_authority: Path | None,
    log_json: bool,
) -> None:
    """Keep the cluster's state, and serve it to the other services."""
    tls = tls_files(tls_certificate, tls_key, tls_authority)
    metrics = metrics_address(metrics_listen, listen, tls)
    work = _run(store, listen, tls, metrics, Ready("state", ready_file))
    run_service(work, log_json=log_json, service="state", loop=uvloop.new_event_loop)


async def _run(
    url: str,
    listen: str,
    tls: TlsFiles | None,
    metrics: MetricsAddress | None,
    ready: Ready,
) -> None:
    store = CountedStore(await open_store(url, WallClock()))
    sources = (ProcessSource("state"), StateSource(store))
    try:
        async with (
            server_credentials(tls) as credentials,
            metrics_served(metrics, sources) as at,
            served(store, listen, credentials=credentials) as serving,
        ):
            host, _, _ = listen.rpartition(":")
            ready(f"{host}:{serving.port}", metrics=at)
            await asyncio.Event().wait()
    finally:
        await store.close()
