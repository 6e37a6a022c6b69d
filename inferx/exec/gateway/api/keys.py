"""API keys over HTTP. A key is shown by the answer that issues it, and never again."""

import msgspec
from aiohttp import web

from inferx.exec.gateway.api.access import Access, granted
from inferx.exec.gateway.api.routing import Parameter, Route, json_answer, read_struct
from inferx.exec.gateway.refusals import Refused
from inferx.exec.identity.audit import Target
from inferx.exec.identity.key_desk import KeyDesk, KeyRequest
from inferx.exec.identity.keys import KeyId, KeyRecord
from inferx.exec.identity.principal import EVERY
from inferx.spec.reference import is_name

__all__ = ["KeyRoutes"]

_TENANT = Parameter("tenant", "Whose keys; `*` is the administrators'.", {"type": "string"})
_NAMESPACE = Parameter("namespace", "Of one namespace alone.", {"type": "string"})


class KeyRoutes:
    """Serves the keys."""

    def __init__(self, access: Access, desk: KeyDesk) -> None:
        self._access = access
        self._desk = desk

    def routes(self) -> list[Route]:
        """Return what is served."""
        return [
            Route("GET", "/apikey/", self.list, "The records of keys.", (_TENANT, _NAMESPACE)),
            Route(
                "PUT",
                "/apikey/",
                self.issue,
                "Issue a key; the only time it is shown.",
                body="KeyRequest",
                answers="Issued",
                status=201,
            ),
            Route(
                "DELETE",
                "/apikey/{tenant}/{namespace}/{id}/",
                self.revoke,
                "Make a key good for nothing, for ever.",
            ),
        ]

    async def list(self, request: web.Request) -> web.Response:
        """GET /apikey/."""
        who = await self._access.who(request)
        tenant = request.query.get("tenant", EVERY)
        namespace = request.query.get("namespace")
        self._access.check(who, "read", tenant, namespace or EVERY, "apikey")
        found = await self._desk.records(who, tenant, namespace)
        return json_answer([_shown(one) for one in granted(found)])

    async def issue(self, request: web.Request) -> web.Response:
        """PUT /apikey/."""
        who = await self._access.who(request)
        if not who.grants:
            self._access.check_list(who, "apikey", "")
        asked = await read_struct(request, KeyRequest)
        self._access.check(who, "administer", asked.tenant, asked.namespace, "apikey")
        target = Target(
            type="apikey", tenant=asked.tenant, namespace=asked.namespace, name=asked.label
        )
        async with self._access.act(who, "issue", target):
            secret = granted(await self._desk.issue(who, asked))
        return json_answer({"id": secret.id, "key": secret.token}, 201)

    async def revoke(self, request: web.Request) -> web.Response:
        """DELETE /apikey/TENANT/NAMESPACE/ID/."""
        who = await self._access.who(request)
        place = request.match_info
        tenant, namespace, key_id = place["tenant"], place["namespace"], place["id"]
        self._access.check(who, "administer", tenant, namespace, "apikey")
        if not is_name(key_id):
            raise Refused("not found", f"{key_id[:40]!r}: there is no such API key")
        target = Target(type="apikey", tenant=tenant, namespace=namespace, name=key_id)
        async with self._access.act(who, "revoke", target):
            record = granted(await self._desk.revoke(who, tenant, namespace, KeyId(key_id)))
        return json_answer(_shown(record))


def _shown(record: KeyRecord) -> dict[str, object]:
    """Return a record without what its key is compared with."""
    told: dict[str, object] = msgspec.to_builtins(record)
    del told["sha256"]
    return told
