"""Who may call what, and how much of it: asked once a request, before it waits for anything."""

from inferx.core.units import NS_PER_S
from inferx.exec.clock import Clock
from inferx.exec.gateway.dispatch import FunctionName
from inferx.exec.gateway.heads import RequestHead
from inferx.exec.gateway.proxy import Pass
from inferx.exec.gateway.refusals import Refused
from inferx.exec.identity.audit import Audit, Target
from inferx.exec.identity.authenticator import Authenticator
from inferx.exec.identity.limiter import Limited, Limiter, Ticket
from inferx.exec.identity.principal import ANONYMOUS, Denied, Principal
from inferx.exec.identity.rights import authorize

__all__ = ["Door"]


class Door:
    """Lets requests in.

    Args:
        authenticator: Knows who asks.
        limiter: Holds them to their limits.
        clock: The time.
        audit: Is told of every decision; None tells nobody.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        limiter: Limiter,
        clock: Clock,
        audit: Audit | None = None,
    ) -> None:
        self._authenticator = authenticator
        self._limiter = limiter
        self._clock = clock
        self._audit = audit

    async def who(self, head: RequestHead) -> Principal | Refused:
        """Return who sent a request, or why that is not known."""
        found = await self._authenticator.authenticate(head.by_name)
        return _refused(found) if isinstance(found, Denied) else found

    async def __call__(self, head: RequestHead, function: FunctionName) -> Pass | Refused:
        """Return leave to call a function, or why not."""
        who = await self.who(head)
        if isinstance(who, Refused):
            return who
        verdict = authorize(who, "invoke", function.tenant, function.namespace, "function")
        if self._audit is not None:
            target = Target(
                type="function",
                tenant=function.tenant,
                namespace=function.namespace,
                name=function.name,
            )
            self._audit.decision(who.name, "invoke", target, verdict)
        if isinstance(verdict, Denied):
            if who.name == ANONYMOUS.name:
                return Refused("unauthenticated", "expected an API key or a bearer token")
            return _refused(verdict)
        ticket = self._limiter.admit(self._clock.now_ns(), ((who.name, who.limits),), tokens=0)
        if isinstance(ticket, Limited):
            after_ns = ticket.retry_after_ns
            text = f"too many {ticket.what} of {ticket.whose}"
            return Refused("rate limited", text, None if after_ns is None else after_ns / NS_PER_S)
        return _Leave(self._limiter, self._clock, ticket)


class _Leave:
    """One request's."""

    __slots__ = ("_clock", "_limiter", "_ticket")

    def __init__(self, limiter: Limiter, clock: Clock, ticket: Ticket) -> None:
        self._limiter = limiter
        self._clock = clock
        self._ticket = ticket

    def ended(self, output_tokens: int) -> None:
        """Settle what the request used."""
        self._limiter.settle(self._clock.now_ns(), self._ticket, tokens=output_tokens)


def _refused(denied: Denied) -> Refused:
    """Return how a denial is told: without what was shown."""
    reason = {"unavailable": "draining"}.get(denied.kind, denied.kind)
    return Refused(reason, denied.reason)
