"""Issues, lists and revokes API keys, for those who may.

Laws:
1. Nobody issues what they could not do themselves: it takes full access to all that a key opens.
2. A key is known by all processes once `issue` has returned and their watches have told.
3. A record is changed where it was not changed by somebody else meanwhile, and is kept when its
   key is revoked: that it was there is part of the record of who could do what.
"""

from typing import Final

import msgspec

from inferx.core.errors import InferXError
from inferx.exec.clock import Clock
from inferx.exec.identity.keys import (
    AccessLevel,
    KeyId,
    KeyRecord,
    Secret,
    digest_of,
    key_prefix,
    make_secret,
    read_record,
    store_key,
    write_record,
)
from inferx.exec.identity.limits import UNLIMITED, Limits
from inferx.exec.identity.principal import Denied, Principal
from inferx.exec.identity.rights import Action, authorize
from inferx.exec.state.store import ABSENT, Entry, Expect, Put, Store

__all__ = ["KeyDesk", "KeyRequest", "KeyRequestError", "new_record"]

TRIES: Final = 5
"""Attempts to change a record that somebody else changes at the same time."""


class KeyRequestError(InferXError):
    """A key that cannot be issued or found as asked."""


class KeyRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked for; see `KeyRecord`."""

    tenant: str
    namespace: str
    level: AccessLevel
    label: str
    expires_ns: int | None = None
    limits: Limits = UNLIMITED


def new_record(request: KeyRequest, secret: Secret, *, issuer: str, now_ns: int) -> KeyRecord:
    """Return the record of a new key.

    Raises:
        KeyRequestError: There can be no such key.
    """
    if request.expires_ns is not None and request.expires_ns <= now_ns:
        raise KeyRequestError("a key's expiry: it is past; expected a time to come, or none")
    try:
        return KeyRecord(
            id=secret.id,
            sha256=digest_of(secret.token),
            tenant=request.tenant,
            namespace=request.namespace,
            level=request.level,
            label=request.label,
            issuer=issuer,
            issued_ns=now_ns,
            expires_ns=request.expires_ns,
            limits=request.limits,
        )
    except ValueError as error:
        raise KeyRequestError(str(error)) from error


class KeyDesk:
    """The one place that writes API keys."""

    __slots__ = ("_clock", "_store")

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def issue(self, principal: Principal, request: KeyRequest) -> Secret | Denied:
        """Make a key. The answer is the only time it is shown.

        Raises:
            KeyRequestError: There can be no such key.
        """
        if denied := _denied(principal, "administer", request.tenant, request.namespace):
            return denied
        secret = make_secret()
        record = new_record(request, secret, issuer=principal.name, now_ns=self._clock.now_ns())
        key = store_key(record)
        done = await self._store.commit([Expect(key, ABSENT)], [Put(key, write_record(record))])
        assert done is not None, "64 random bits came twice"
        return secret

    async def records(
        self, principal: Principal, tenant: str, namespace: str | None = None
    ) -> tuple[KeyRecord, ...] | Denied:
        """Return the records of a tenant's keys, or of one namespace's; there is no key in them."""
        if denied := _denied(principal, "read", tenant, namespace or "*"):
            return denied
        listing = await self._store.list(key_prefix(tenant, namespace))
        found = (read_record(entry.key, entry.value) for entry in listing.entries)
        return tuple(record for record in found if record is not None)

    async def revoke(
        self, principal: Principal, tenant: str, namespace: str, key_id: KeyId
    ) -> KeyRecord | Denied:
        """Make a key good for nothing, for ever; one that was revoked already stays so.

        Raises:
            KeyRequestError: There is no such key, or others keep changing it.
        """
        if denied := _denied(principal, "administer", tenant, namespace):
            return denied
        key = f"{key_prefix(tenant, namespace)}{key_id}"
        for _ in range(TRIES):
            record, entry = await self._find(key)
            if record.revoked_ns is not None:
                return record
            revoked = msgspec.structs.replace(record, revoked_ns=self._clock.now_ns())
            change = Put(key, write_record(revoked))
            if await self._store.commit([Expect(key, entry.modified)], [change]) is not None:
                return revoked
        raise KeyRequestError(f"{key}: changed by others {TRIES} times in a row; try again")

    async def _find(self, key: str) -> tuple[KeyRecord, Entry]:
        entry = await self._store.get(key)
        if entry is None:
            raise KeyRequestError(f"{key}: there is no such API key")
        record = read_record(key, entry.value)
        if record is None:
            msg = f"{key} is no record of an API key; it opens nothing"
            raise KeyRequestError(msg)
        return record, entry


def _denied(principal: Principal, action: Action, tenant: str, namespace: str) -> Denied | None:
    decision = authorize(principal, action, tenant, namespace, "apikey")
    return decision if isinstance(decision, Denied) else None
