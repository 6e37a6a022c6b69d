"""Who may call what, and how much of it: asked once a request, before it waits for anything.

Laws:
1. Who may call nothing is refused by the head alone: of their bodies nothing is read.
2. Each decision goes to the audit log, as it was taken.
3. What was charged is settled once, with what was used, however the call ended.
"""

from collections.abc import Callable
from typing import Final

from inferx.core.units import NS_PER_S
from inferx.exec.clock import Clock
from inferx.exec.gateway.dispatch import FunctionName
from inferx.exec.gateway.heads import RequestHead
from inferx.exec.gateway.proxy import Pass
from inferx.exec.gateway.refusals import Refused
from inferx.exec.gateway.tenants import Terms
from inferx.exec.gateway.usage import Usage
from inferx.exec.identity.audit import Audit, Target
from inferx.exec.identity.authenticator import Authenticator
from inferx.exec.identity.limiter import Limited, Limiter, Ticket
from inferx.exec.identity.limits import Limits
from inferx.exec.identity.principal import ANONYMOUS, EVERY, Denied, Principal
from inferx.exec.identity.rights import Allowed, authorize

__all__ = ["Door"]

BYTES_PER_TOKEN: Final = 4
"""Of a body, for the estimate that a request is let in by; tokens of English text have as many."""
QUOTA_RETRY_S: Final = 60.0
"""A quota that is used up is looked at again about once a minute."""

Parties = tuple[tuple[str, Limits], ...]

_SHOW_A_KEY: Final = "expected an API key or a bearer token"
_NO_RIGHT: Final = Denied("no right")
_EVERYTHING: Final = Target(type="function", tenant=EVERY, namespace=EVERY)


class Door:
    """Lets requests in.

    Args:
        authenticator: Knows who asks.
        limiter: Holds them to their limits.
        terms: Gives what a tenant may use.
        clock: The time.
        audit: Is told of every decision; None tells nobody.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        limiter: Limiter,
        terms: Callable[[str], Terms],
        clock: Clock,
        audit: Audit | None = None,
    ) -> None:
        self._authenticator = authenticator
        self._limiter = limiter
        self._terms = terms
        self._clock = clock
        self._audit = audit

    async def who(self, head: RequestHead) -> Principal | Refused:
        """Return who sent a request; refused is who is not known, or may call nothing."""
        found = await self._authenticator.authenticate(head.by_name)
        if isinstance(found, Principal) and found.grants:
            return found
        known = found if isinstance(found, Principal) else ANONYMOUS
        denied = found if isinstance(found, Denied) else _NO_RIGHT
        self._tell(known, _EVERYTHING, denied)
        if found is not denied and known.name == ANONYMOUS.name:
            return Refused("unauthenticated", _SHOW_A_KEY)
        return _refused(denied)

    def enter(self, who: Principal, head: RequestHead, function: FunctionName) -> Pass | Refused:
        """Return leave to call a function, or why not."""
        verdict = authorize(who, "invoke", function.tenant, function.namespace, "function")
        if isinstance(verdict, Denied):
            self._tell(who, _target(function), verdict)
            if who.name == ANONYMOUS.name:
                return Refused("unauthenticated", _SHOW_A_KEY)
            return _refused(verdict)
        terms = self._terms(function.tenant)
        if terms.quota_exceeded:
            self._tell(who, _target(function), Limited("quota", f"tenant:{function.tenant}", None))
            text = f"the quota of tenant {function.tenant} is used up"
            return Refused("quota exceeded", text, QUOTA_RETRY_S)
        parties = ((f"tenant:{function.tenant}", terms.limits), (who.name, who.limits))
        estimate = (head.length or 0) // BYTES_PER_TOKEN
        # One that is more than a burst by itself waits for a whole one, and owes the rest.
        charged = min((estimate, *(limits.tokens.burst for _, limits in parties if limits.tokens)))
        ticket = self._limiter.admit(self._clock.now_ns(), parties, tokens=charged)
        self._tell(who, _target(function), ticket if isinstance(ticket, Limited) else verdict)
        if isinstance(ticket, Limited):
            after_ns = ticket.retry_after_ns
            text = f"too many {ticket.what} of {ticket.whose}"
            return Refused("rate limited", text, None if after_ns is None else after_ns / NS_PER_S)
        return _Leave(self._limiter, self._clock, ticket, estimate)

    def _tell(self, who: Principal, target: Target, decision: Allowed | Denied | Limited) -> None:
        if self._audit is not None:
            self._audit.decision(who.name, "invoke", target, decision)


class _Leave:
    """One request's."""

    __slots__ = ("_clock", "_estimate", "_limiter", "_ticket")

    def __init__(self, limiter: Limiter, clock: Clock, ticket: Ticket, estimate: int) -> None:
        self._limiter = limiter
        self._clock = clock
        self._ticket = ticket
        self._estimate = estimate

    def ended(self, usage: Usage) -> None:
        """Settle what the request used."""
        used = usage.input_tokens + usage.output_tokens
        if usage.untold_events:
            used = self._estimate + usage.untold_events
        self._limiter.settle(self._clock.now_ns(), self._ticket, tokens=used)


def _target(function: FunctionName) -> Target:
    return Target(
        type="function",
        tenant=function.tenant,
        namespace=function.namespace,
        name=function.name,
    )


def _refused(denied: Denied) -> Refused:
    """Return how a denial is told: without what was shown."""
    reason = {"unavailable": "draining"}.get(denied.kind, denied.kind)
    return Refused(reason, denied.reason)
