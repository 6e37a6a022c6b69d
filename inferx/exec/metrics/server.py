"""`/metrics` on a port of its own, without keys: for the loopback, or for who has a certificate.

Beyond the loopback it is served over TLS where the service has a certificate, and to scrapers with
one where it knows who signs theirs.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Final, NamedTuple

from aiohttp import web

from inferx.core.errors import DescriptionError, InferXError
from inferx.exec.identity.tls import ServerTls, TlsFiles
from inferx.exec.metrics.exposition import CONTENT_TYPE, MetricSource, exposition
from inferx.exec.metrics.process import ProcessSource

__all__ = ["OFF", "MetricsAddress", "MetricsListenError", "metrics_address", "metrics_served"]

OFF: Final = "off"
SCRAPE_S: Final = 8.0
"""Less than Prometheus waits: who is told of an error knows more than who hears nothing."""
BESIDE: Final = 8000
"""From a service's own port to that of its metrics."""
MAX_PORT: Final = (1 << 16) - 1


class MetricsListenError(InferXError):
    """The address for metrics cannot be had."""


class MetricsAddress(NamedTuple):
    """Where metrics are served; with `tls`, over that."""

    host: str
    port: int
    tls: TlsFiles | None = None


def metrics_address(
    given: str | None, listen: str, tls: TlsFiles | None = None
) -> MetricsAddress | None:
    """Return where metrics are served; None: nowhere.

    Args:
        given: HOST:PORT, or `off`; None leaves it to the service's own port: 8000 above it on the
            loopback, or a free one where there is no such port.
        listen: The service's own address.
        tls: The service's certificates; of no use on the loopback.

    Raises:
        DescriptionError: It is no address.
    """
    if given == OFF:
        return None
    host, _, port = ("127.0.0.1:0" if given is None else given).rpartition(":")
    if given is None:
        own = listen.rpartition(":")[2]
        beside = int(own) + BESIDE if own.isascii() and own.isdecimal() and int(own) else 0
        return MetricsAddress(host, beside if beside <= MAX_PORT else 0)
    if not host or not (port.isascii() and port.isdecimal()) or int(port) > MAX_PORT:
        raise DescriptionError(f"--metrics-listen {given}: expected HOST:PORT, or {OFF}")
    host = host.removeprefix("[").removesuffix("]")
    if _is_loopback(host) or tls is None or tls.certificate is None:
        return MetricsAddress(host, int(port))
    return MetricsAddress(host, int(port), tls)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@asynccontextmanager
async def metrics_served(
    address: MetricsAddress | None, sources: Sequence[MetricSource]
) -> AsyncGenerator[str]:
    """Serve `/metrics` until left; yields HOST:PORT, or nothing where it is off.

    Raises:
        MetricsListenError: The address cannot be had.
        TlsError: Certificates cannot be used.
    """
    tls = None if address is None or address.tls is None else ServerTls(address.tls)
    looking = [
        asyncio.create_task(source.run(), name="event loop")
        for source in sources
        if isinstance(source, ProcessSource)
    ]
    if tls is not None:
        looking.append(asyncio.create_task(tls.keep_fresh(), name="certificates"))
    try:
        if address is None:
            yield ""
            return
        runner = web.AppRunner(_application(sources), access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        try:
            try:
                context = None if tls is None else tls.context
                await web.TCPSite(runner, address.host, address.port, ssl_context=context).start()
            except (OSError, OverflowError) as error:
                text = error.strerror if isinstance(error, OSError) else str(error)
                at = f"{address.host}:{address.port}"
                raise MetricsListenError(f"cannot serve metrics on {at}: {text}") from error
            host, port = runner.addresses[0][:2]
            yield f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        finally:
            await runner.cleanup()
    finally:
        for task in looking:
            task.cancel()


def _application(sources: Sequence[MetricSource]) -> web.Application:
    turn = asyncio.Lock()

    async def scrape(_: web.Request) -> web.Response:
        try:
            # One at a time, so that many scrapers cost no more of the loop than one.
            async with asyncio.timeout(SCRAPE_S), turn:
                body = await exposition(sources)
        except TimeoutError:
            return web.Response(status=503, text=f"not looked up within {SCRAPE_S:.0f} s\n")
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    application = web.Application()
    application.router.add_get("/metrics", scrape)
    return application
