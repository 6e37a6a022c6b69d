"""Who asks the API, what they may read and write, and the record of what they did.

Laws:
1. Rights are asked before anything is looked up: who may not read a thing does not learn of it.
2. A list holds what its caller may read, and no more; who could read nothing of it is refused.
3. An act that changes something is on record before it is done, where there is a record.
"""

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TypeVar

from aiohttp import web

from inferx.exec.gateway.refusals import Refused
from inferx.exec.identity.acting import actor_for
from inferx.exec.identity.audit import Audit, Target
from inferx.exec.identity.authenticator import Authenticator
from inferx.exec.identity.principal import ANONYMOUS, EVERY, Denied, Principal
from inferx.exec.identity.rights import ALLOWED, RIGHTS, Action, authorize
from inferx.exec.state.objects.actor import Actor
from inferx.exec.state.objects.envelope import Key
from inferx.exec.state.objects.kinds import KINDS, Place

__all__ = ["Access", "granted", "place_of"]

T = TypeVar("T")


class Access:
    """Asked by every route.

    Args:
        authenticator: Knows who asks.
        audit: Told of acts and of refusals; None keeps no record.
    """

    def __init__(self, authenticator: Authenticator, audit: Audit | None) -> None:
        self._authenticator = authenticator
        self._audit = audit

    async def who(self, request: web.Request) -> Principal:
        """Return who sent a request.

        Raises:
            Refused: Nobody knows.
        """
        found = await self._authenticator.authenticate(request.headers)
        if isinstance(found, Denied):
            raise _refused(found)
        return found

    def may(self, who: Principal, action: Action, tenant: str, namespace: str, kind: str) -> bool:
        """Say whether somebody may; of many, where each is its own question."""
        return authorize(who, action, tenant, namespace, kind) is ALLOWED

    def check(self, who: Principal, action: Action, tenant: str, namespace: str, kind: str) -> None:
        """Refuse who may not.

        Raises:
            Refused: They may not.
        """
        verdict = authorize(who, action, tenant, namespace, kind)
        if isinstance(verdict, Denied):
            if self._audit is not None:
                target = Target(type=kind, tenant=tenant, namespace=namespace)
                self._audit.decision(who.name, action, target, verdict)
            raise _no_right(who, f"{action} of {kind}: no right")

    def check_list(self, who: Principal, kind: str, tenant: str) -> None:
        """Refuse who could read nothing of a type in a tenant, or anywhere if that is empty.

        Raises:
            Refused: They could not.
        """
        right = RIGHTS[kind]["read"]
        if right.reach == "cluster":
            self.check(who, "read", EVERY, EVERY, kind)
            return
        for grant in who.grants:
            if grant.level >= right.level and (not tenant or grant.tenant in {EVERY, tenant}):
                return
        raise _no_right(who, f"read of {kind}: no right")

    def actor(self, who: Principal, key: Key) -> Actor:
        """Return on whose behalf an object is written, once that is allowed.

        Raises:
            Refused: It is not.
        """
        tenant, namespace = place_of(key)
        self.check(who, "write", tenant, namespace, key.type)
        actor = actor_for(who, tenant, namespace)
        if actor is None:
            raise _no_right(who, f"write of {key.type}: no right")
        return actor

    def act(self, who: Principal, action: str, target: Target) -> AbstractAsyncContextManager[None]:
        """Put an act on record around its doing."""
        return nullcontext() if self._audit is None else self._audit.act(who.name, action, target)


def granted(found: T | Denied) -> T:
    """Return what somebody was given.

    Raises:
        Refused: They were not.
    """
    if isinstance(found, Denied):
        raise Refused("forbidden", found.reason)
    return found


def place_of(key: Key) -> tuple[str, str]:
    """Return tenant and namespace that a right to an object is asked for."""
    if key.type == "tenant":
        return key.name, EVERY
    if key.type == "namespace":
        return key.tenant, key.name
    if KINDS[key.type].place is Place.CLUSTER:
        return EVERY, EVERY
    return key.tenant, key.namespace


def _refused(denied: Denied) -> Refused:
    reason = {"unavailable": "store unavailable"}.get(denied.kind, denied.kind)
    return Refused(reason, denied.reason)


def _no_right(who: Principal, text: str) -> Refused:
    # Who showed no key may have one; whose token has no roles is known all the same.
    return Refused("unauthenticated" if who.name == ANONYMOUS.name else "forbidden", text)
