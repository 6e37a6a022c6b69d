"""Grants, revokes and lists roles by name, for those who may.

Laws:
1. Nobody grants or revokes what they could not do themselves: it takes full access to all of it.
2. It is said at which issuer a name is meant; of one that is the only one it goes without saying.
3. A role is granted once: who grants it again changes nothing of who granted it, and when.
"""

from typing import Final

import msgspec

from inferx.core.errors import InferXError
from inferx.exec.clock import Clock
from inferx.exec.identity.principal import EVERY, Denied, Principal
from inferx.exec.identity.rights import Action, authorize
from inferx.exec.identity.roles import (
    Role,
    RoleRecord,
    read_record,
    role_prefix,
    store_key,
    write_record,
)
from inferx.exec.state.store import ABSENT, Delete, Expect, Put, Store

__all__ = ["RoleDesk", "RoleRequest", "RoleRequestError"]

TRIES: Final = 5
"""Attempts to change a record that somebody else changes at the same time."""


class RoleRequestError(InferXError):
    """A role that cannot be granted or revoked as asked."""


class RoleRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked for; see `RoleRecord`. An empty issuer is the only one that there is."""

    role: Role
    username: str
    tenant: str
    namespace: str = EVERY
    issuer: str = ""


class RoleDesk:
    """The one place that writes granted roles.

    Args:
        store: Where they are kept.
        clock: The time.
        issuers: URLs of those whose tokens this process takes.
    """

    __slots__ = ("_clock", "_issuers", "_store")

    def __init__(self, store: Store, clock: Clock, issuers: tuple[str, ...]) -> None:
        self._store = store
        self._clock = clock
        self._issuers = issuers

    def meant(self, principal: Principal, request: RoleRequest, *, new: bool) -> RoleRecord:
        """Return the record of what is asked for, as it would be kept.

        A `new` one is of an issuer whose tokens are taken; one that is to be revoked can be of any.

        Raises:
            RoleRequestError: There can be no such role, or it is not said whose it is.
        """
        try:
            return RoleRecord(
                issuer=self._issuer(request.issuer, new=new),
                username=request.username,
                role=request.role,
                tenant=request.tenant,
                namespace=request.namespace,
                by=principal.name,
                granted_ns=self._clock.now_ns(),
            )
        except ValueError as error:
            raise RoleRequestError(str(error)) from error

    async def grant(self, principal: Principal, record: RoleRecord) -> RoleRecord | Denied:
        """Keep a role; one that was granted before stays as it was.

        Raises:
            RoleRequestError: Others keep changing it.
        """
        if denied := _denied(principal, "administer", record.tenant, record.namespace):
            return denied
        key = store_key(record)
        for _ in range(TRIES):
            entry = await self._store.get(key)
            if entry is not None and (before := read_record(key, entry.value)) is not None:
                return before
            # What lies there and is no record grants nothing, and gives way to one.
            expected = Expect(key, ABSENT if entry is None else entry.modified)
            change = Put(key, write_record(record))
            if await self._store.commit([expected], [change]) is not None:
                return record
        raise _changed(key)

    async def revoke(self, principal: Principal, record: RoleRecord) -> bool | Denied:
        """Remove a role; say whether there was one.

        Raises:
            RoleRequestError: Others keep changing it.
        """
        if denied := _denied(principal, "administer", record.tenant, record.namespace):
            return denied
        key = store_key(record)
        for _ in range(TRIES):
            entry = await self._store.get(key)
            if entry is None:
                return False
            if await self._store.commit([Expect(key, entry.modified)], [Delete(key)]) is not None:
                return True
        raise _changed(key)

    async def holders(
        self, principal: Principal, role: Role, tenant: str, namespace: str
    ) -> tuple[RoleRecord, ...] | Denied:
        """Return the records of a role: by name: over a namespace, or a whole tenant (`EVERY`)."""
        if denied := _denied(principal, "read", tenant, namespace):
            return denied
        listing = await self._store.list(role_prefix(role, tenant, namespace))
        found = (read_record(entry.key, entry.value) for entry in listing.entries)
        return tuple(sorted(filter(None, found), key=lambda record: record.user[::-1]))

    def _issuer(self, named: str, *, new: bool) -> str:
        if named:
            if new and named not in self._issuers:
                found = f"{named[:200]!r}, whose tokens are not taken"
                raise RoleRequestError(f"a role's issuer: {found}; {self._told()}")
            return named
        if len(self._issuers) != 1:
            raise RoleRequestError(f"a role's issuer: not named; {self._told()}")
        return self._issuers[0]

    def _told(self) -> str:
        if not self._issuers:
            return "the gateway takes no tokens, so a name is nobody's (--oidc-issuer)"
        return f"expected {' or '.join(self._issuers)}"


def _changed(key: str) -> RoleRequestError:
    return RoleRequestError(f"{key}: changed by others {TRIES} times in a row; try again")


def _denied(principal: Principal, action: Action, tenant: str, namespace: str) -> Denied | None:
    decision = authorize(principal, action, tenant, namespace, "role")
    return decision if isinstance(decision, Denied) else None
