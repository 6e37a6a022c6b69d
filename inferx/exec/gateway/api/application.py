"""The API as one application on a loopback port.

The gateway's front sends here what it does not serve itself, so that nothing of the API is in the
way of a request for inference.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import grpc
from aiohttp import web

from inferx import __version__
from inferx.exec.clock import Clock
from inferx.exec.gateway.api.access import Access
from inferx.exec.gateway.api.agents import Agents
from inferx.exec.gateway.api.errors import answer_errors
from inferx.exec.gateway.api.health import HealthRoutes
from inferx.exec.gateway.api.keys import KeyRoutes
from inferx.exec.gateway.api.leader import Leader
from inferx.exec.gateway.api.limits import BODY_BYTES, STOP_S
from inferx.exec.gateway.api.logs import LogRoutes
from inferx.exec.gateway.api.metrics import MetricsRoutes
from inferx.exec.gateway.api.objects import ObjectRoutes
from inferx.exec.gateway.api.openapi import description
from inferx.exec.gateway.api.page import PageRoutes
from inferx.exec.gateway.api.requests import RequestRoutes
from inferx.exec.gateway.api.roles import RoleRoutes
from inferx.exec.gateway.api.routing import Route, json_answer
from inferx.exec.gateway.api.views import ViewRoutes
from inferx.exec.gateway.api.watching import Watches
from inferx.exec.gateway.records import Records
from inferx.exec.identity.audit import Audit
from inferx.exec.identity.authenticator import Authenticator
from inferx.exec.identity.key_desk import KeyDesk
from inferx.exec.identity.role_desk import RoleDesk
from inferx.exec.metrics.exposition import MetricSource
from inferx.exec.state.objects.objects import Objects
from inferx.exec.state.store import Store

__all__ = ["Api", "ApiParts"]

HOST = "127.0.0.1"


class ApiParts(NamedTuple):
    """What the API is made of; all of it is the gateway's.

    Attributes:
        leader: Gives the leader's address; empty while nobody leads.
        credentials: Of the channels to it and to nodes.
        stands: What must stand for the gateway to serve, by name.
        router: The router's numbers.
        name: What the gateway is registered as.
        records: Its latest requests.
        metrics: What Prometheus is told.
        audit: The audit log; None keeps none.
        issuers: URLs of those whose tokens are taken.
    """

    store: Store
    objects: Objects
    authenticator: Authenticator
    clock: Clock
    leader: Callable[[], str]
    credentials: grpc.ChannelCredentials | None
    stands: Mapping[str, Callable[[], bool]]
    router: Callable[[], Mapping[str, object]]
    name: str
    records: Records
    metrics: Sequence[MetricSource] = ()
    audit: Audit | None = None
    issuers: tuple[str, ...] = ()


class Api:
    """One gateway's."""

    def __init__(self, parts: ApiParts) -> None:
        access = Access(parts.authenticator, parts.audit)
        self._leader = Leader(parts.leader, parts.credentials)
        self._watches = Watches(access, parts.objects)
        agents = Agents(parts.objects, self._leader, parts.credentials)
        self._logs = LogRoutes(access, agents)
        self.routes: list[Route] = [
            *PageRoutes().routes(),
            *HealthRoutes(access, parts.store, parts.stands, parts.router).routes(),
            *MetricsRoutes(access, parts.metrics).routes(),
            *ObjectRoutes(access, parts.objects, self._watches).routes(),
            *ViewRoutes(access, self._leader).routes(),
            *RequestRoutes(access, self._leader, parts.records, parts.name).routes(),
            *self._logs.routes(),
            *KeyRoutes(access, KeyDesk(parts.store, parts.clock)).routes(),
            *RoleRoutes(access, RoleDesk(parts.store, parts.clock, parts.issuers)).routes(),
        ]
        told = description(self.routes, __version__)

        async def describe(_: web.Request) -> web.Response:
            return json_answer(told)

        says = "This description."
        self.routes.append(Route("GET", "/openapi.json", describe, says, is_open=True))
        self._runner: web.AppRunner | None = None

    async def listen(self) -> str:
        """Begin to serve; return where."""
        application = web.Application(middlewares=[answer_errors], client_max_size=BODY_BYTES)
        for route in self.routes:
            for path in {route.path, route.path.rstrip("/") or "/"}:
                application.router.add_route(route.method, path, route.serve)
        self._runner = web.AppRunner(
            application, handle_signals=False, access_log=None, shutdown_timeout=STOP_S
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        return f"{host}:{port}"

    def end_watches(self) -> None:
        """End what would not end by itself."""
        self._watches.end()
        self._logs.end()

    async def close(self) -> None:
        """Serve no more."""
        self.end_watches()
        if self._runner is not None:
            await self._runner.cleanup()
        await self._leader.close()
