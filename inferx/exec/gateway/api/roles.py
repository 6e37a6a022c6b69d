"""Roles over HTTP: granted and revoked by a user's name, listed, and told to whom they are."""

import msgspec
from aiohttp import web

from inferx.core.errors import DescriptionError
from inferx.exec.gateway.api.access import Access, granted
from inferx.exec.gateway.api.routing import Route, json_answer, read_struct
from inferx.exec.gateway.refusals import Refused
from inferx.exec.identity.audit import Target
from inferx.exec.identity.principal import ANONYMOUS, EVERY, Principal
from inferx.exec.identity.role_desk import RoleDesk, RoleRequest
from inferx.exec.identity.roles import LEVELS, Role, RoleRecord

__all__ = ["RoleRoutes"]


class RoleRoutes:
    """Serves the roles."""

    def __init__(self, access: Access, desk: RoleDesk) -> None:
        self._access = access
        self._desk = desk

    def routes(self) -> list[Route]:
        """Return what is served."""
        return [
            Route("POST", "/rbac/", self.grant, "Grant a role by name.", body="RoleRequest"),
            Route("DELETE", "/rbac/", self.revoke, "Revoke a role by name.", body="RoleRequest"),
            Route("GET", "/rbac/roles/", self.own, "What who asks may do, and where."),
            Route(
                "GET",
                "/rbac/tenantusers/{role}/{tenant}/",
                self.holders,
                "Who was granted a role in a whole tenant, by name.",
            ),
            Route(
                "GET",
                "/rbac/namespaceusers/{role}/{tenant}/{namespace}/",
                self.holders,
                "Who was granted a role in a namespace, by name.",
            ),
        ]

    async def grant(self, request: web.Request) -> web.Response:
        """POST /rbac/."""
        who, record = await self._asked(request, new=True)
        async with self._access.act(who, "grant", _target(record)):
            kept = granted(await self._desk.grant(who, record))
        return json_answer(msgspec.to_builtins(kept))

    async def revoke(self, request: web.Request) -> web.Response:
        """DELETE /rbac/."""
        who, record = await self._asked(request, new=False)
        async with self._access.act(who, "revoke", _target(record)):
            if not granted(await self._desk.revoke(who, record)):
                whose = f"{record.username!r} of {record.issuer}"
                raise Refused("not found", f"{whose} was not granted that role by name")
        return json_answer({})

    async def _asked(self, request: web.Request, *, new: bool) -> tuple[Principal, RoleRecord]:
        """Return who asks, if they may, and the record of what they ask for."""
        who = await self._access.who(request)
        if not who.grants:
            self._access.check_list(who, "role", "")
        asked = await read_struct(request, RoleRequest)
        self._access.check(who, "administer", asked.tenant, asked.namespace, "role")
        return who, self._desk.meant(who, asked, new=new)

    async def own(self, request: web.Request) -> web.Response:
        """GET /rbac/roles/."""
        who = await self._access.who(request)
        if who.name == ANONYMOUS.name:
            raise Refused("unauthenticated", "no key and no token; nobody has no roles")
        grants = sorted({(one.tenant, one.namespace, one.level) for one in who.grants})
        return json_answer(
            [
                {"level": level.name.lower(), "tenant": tenant, "namespace": namespace}
                for tenant, namespace, level in grants
            ]
        )

    async def holders(self, request: web.Request) -> web.Response:
        """GET /rbac/tenantusers/ROLE/TENANT/, /rbac/namespaceusers/ROLE/TENANT/NAMESPACE/."""
        who = await self._access.who(request)
        place = request.match_info
        tenant, namespace = place["tenant"], place.get("namespace", EVERY)
        self._access.check(who, "read", tenant, namespace, "role")
        found = await self._desk.holders(who, _role(place["role"]), tenant, namespace)
        return json_answer([msgspec.to_builtins(one) for one in granted(found)])


def _role(word: str) -> Role:
    if word not in LEVELS:
        raise DescriptionError(f"role: {word[:40]!r}; expected {' or '.join(LEVELS)}")
    return word


def _target(record: RoleRecord) -> Target:
    """Return whom an act is about; who it is of is beside it."""
    whose = f"{record.role} oidc:{record.issuer}#{record.username}"
    return Target(type="role", tenant=record.tenant, namespace=record.namespace, name=whose)
