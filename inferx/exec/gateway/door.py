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
from inferx.exec.identity.audit import Audit, Equal, Target
from inferx.exec.identity.authenticator import Authenticator
from inferx.exec.identity.limiter import Limited, Limiter, Ticket
from inferx.exec.identity.limits import UNLIMITED, Limits
from inferx.exec.identity.principal import ANONYMOUS, EVERY, Denied, Principal
from inferx.exec.identity.rights import ALLOWED, Allowed, authorize

__all__ = ["Door"]

BYTES_PER_TOKEN: Final = 4
"""Of a body, for the estimate that a request is let in by; tokens of English text have as many."""
QUOTA_RETRY_S: Final = 60.0
"""A quota that is used up is looked at again about once a minute."""
WAYS: Final = 16_384
"""Callers' ways to functions that are remembered."""

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
        self._ways: dict[tuple[str, FunctionName], _Way] = {}

    async def who(self, head: RequestHead) -> Principal | Refused:
        """Return who sent a request; refused is who is not known, or may call nothing."""
        found = self._authenticator.recognized(head.told.authorization)
        if found is None:
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
        terms = self._terms(function.tenant)
        way = self._ways.get((who.name, function))
        if way is None or way.who is not who or way.terms is not terms:
            found = self._way(who, function, terms)
            if isinstance(found, Refused):
                return found
            way = found
        leave: Pass = _FREE
        if way.parties:
            estimate = (head.length or 0) // BYTES_PER_TOKEN
            # One that is more than a burst by itself waits for a whole one, and owes the rest.
            bursts = (limits.tokens.burst for _, limits in way.parties if limits.tokens)
            charged = min((estimate, *bursts))
            ticket = self._limiter.admit(self._clock.now_ns(), way.parties, tokens=charged)
            if isinstance(ticket, Limited):
                self._tell(who, way.target, ticket)
                after_ns = ticket.retry_after_ns
                text = f"too many {ticket.what} of {ticket.whose}"
                after_s = None if after_ns is None else after_ns / NS_PER_S
                return Refused("rate limited", text, after_s)
            leave = _Leave(self._limiter, self._clock, ticket, estimate)
        told = way.told
        if told is not None and told.waits:
            told.times += 1
        else:
            way.told = self._tell(who, way.target, ALLOWED)
        return leave

    def _way(self, who: Principal, function: FunctionName, terms: Terms) -> "_Way | Refused":
        """Return the way of a caller to a function, and remember it; or why there is none."""
        verdict = authorize(who, "invoke", function.tenant, function.namespace, "function")
        target = _target(function)
        if isinstance(verdict, Denied):
            self._tell(who, target, verdict)
            if who.name == ANONYMOUS.name:
                return Refused("unauthenticated", _SHOW_A_KEY)
            return _refused(verdict)
        if terms.quota_exceeded:
            self._tell(who, target, Limited("quota", f"tenant:{function.tenant}", None))
            text = f"the quota of tenant {function.tenant} is used up"
            return Refused("quota exceeded", text, QUOTA_RETRY_S)
        if len(self._ways) >= WAYS:
            self._ways.clear()
        parties = ((f"tenant:{function.tenant}", terms.limits), (who.name, who.limits))
        limited = tuple(party for party in parties if party[1] != UNLIMITED)
        way = self._ways[who.name, function] = _Way(who, terms, limited, target)
        return way

    def _tell(
        self, who: Principal, target: Target, decision: Allowed | Denied | Limited
    ) -> Equal | None:
        if self._audit is None:
            return None
        return self._audit.decision(who.name, "invoke", target, decision)


class _Way:
    """A caller's way to a function: open for as long as both are what they are.

    Attributes:
        parties: Whose limits there are, on the way.
        told: Where the audit log counts those who go it.
    """

    __slots__ = ("parties", "target", "terms", "told", "who")

    def __init__(self, who: Principal, terms: Terms, parties: Parties, target: Target) -> None:
        self.who = who
        self.terms = terms
        self.parties = parties
        self.target = target
        self.told: Equal | None = None


class _Free:
    """Of who is held to no limits: nothing is settled."""

    __slots__ = ()

    def ended(self, usage: Usage) -> None:
        """See `Pass`."""


_FREE: Final = _Free()


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
