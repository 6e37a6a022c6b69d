"""Whether the gateway lives, and whether it serves.

`/healthz` is for whoever restarts it: a process that answers needs none, whatever its store does.
`/readyz` is for whoever sends it requests: it looks, and says what is missing.
"""

import asyncio
from collections.abc import Callable, Mapping

from aiohttp import web

from inferx.exec.gateway.api.access import Access
from inferx.exec.gateway.api.limits import READY_S
from inferx.exec.gateway.api.routing import Route, json_answer
from inferx.exec.identity.principal import EVERY
from inferx.exec.state.store import Store, StoreError

__all__ = ["HealthRoutes"]

_PROBE = "/registry/ready"
"""Asked for, and never there."""


class HealthRoutes:
    """Serves both, and what there is to see of the router.

    Args:
        access: Who may look into the router.
        store: What must answer.
        parts: What else must stand, by name.
        router: The router's numbers.
    """

    def __init__(
        self,
        access: Access,
        store: Store,
        parts: Mapping[str, Callable[[], bool]],
        router: Callable[[], Mapping[str, object]],
    ) -> None:
        self._access = access
        self._store = store
        self._parts = parts
        self._router = router

    def routes(self) -> list[Route]:
        """Return what is served."""
        return [
            Route("GET", "/healthz", self.healthz, "Whether the gateway lives.", is_open=True),
            Route("GET", "/readyz", self.readyz, "Whether it serves.", is_open=True),
            Route("GET", "/debug/router", self.debug, "The router's numbers."),
        ]

    async def healthz(self, _: web.Request) -> web.Response:
        """GET /healthz."""
        return json_answer({"status": "ok"})

    async def readyz(self, _: web.Request) -> web.Response:
        """GET /readyz."""
        checks = {name: stands() for name, stands in self._parts.items()}
        checks["store"] = await self._store_answers()
        ready = all(checks.values())
        told = {"status": "ok" if ready else "not ready", "checks": checks}
        return json_answer(told, 200 if ready else 503)

    async def debug(self, request: web.Request) -> web.Response:
        """GET /debug/router."""
        who = await self._access.who(request)
        self._access.check(who, "read", EVERY, EVERY, "gateway")
        return json_answer(self._router())

    async def _store_answers(self) -> bool:
        try:
            async with asyncio.timeout(READY_S):
                await self._store.get(_PROBE)
        except (StoreError, TimeoutError):
            return False
        return True
