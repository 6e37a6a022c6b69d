"""The gateway's metrics at its own address, for scrapers that bring a key."""

import asyncio
from collections.abc import Sequence

from aiohttp import web

from inferx.exec.gateway.api.access import Access
from inferx.exec.gateway.api.routing import Route
from inferx.exec.identity.principal import EVERY
from inferx.exec.metrics.exposition import CONTENT_TYPE, MetricSource, exposition

__all__ = ["MetricsRoutes"]


class MetricsRoutes:
    """Serves them to who may read gateways: they name every tenant's functions.

    Args:
        access: Who may.
        sources: What they are of.
    """

    def __init__(self, access: Access, sources: Sequence[MetricSource]) -> None:
        self._access = access
        self._sources = sources
        self._turn = asyncio.Lock()

    def routes(self) -> list[Route]:
        """Return what is served."""
        says = "The gateway's metrics, in Prometheus' text format."
        return [Route("GET", "/metrics", self.metrics, says, answers="text/plain")]

    async def metrics(self, request: web.Request) -> web.Response:
        """GET /metrics."""
        who = await self._access.who(request)
        self._access.check(who, "read", EVERY, EVERY, "gateway")
        async with self._turn:
            body = await exposition(self._sources)
        return web.Response(
            body=body, headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"}
        )
