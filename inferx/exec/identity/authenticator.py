"""From a request's headers to who asks: API keys and bearer tokens, behind one call.

Laws:
1. Credentials that are no good are refused; they never fall back to being anonymous.
2. Without credentials one is anonymous, and may do what everybody may.
3. What somebody was granted by name is asked with each request, not remembered with their token.
4. What is told of a refusal is its reason; what was shown reaches neither log nor error.
"""

from collections.abc import Mapping
from typing import Final, Protocol

import msgspec

from inferx.exec.identity.key_cache import KeyCache
from inferx.exec.identity.principal import (
    ANONYMOUS,
    EVERY,
    Denied,
    Grant,
    Level,
    Principal,
)
from inferx.exec.identity.role_copy import RoleCopy
from inferx.spec.reference import is_name

__all__ = ["CREDENTIALS_LIMIT", "Authenticator", "TokenVerifier"]

CREDENTIALS_LIMIT: Final = 16 * 1024
"""Length of a header that is looked at. Tokens with many roles have some kilobytes."""

WIDENED_LIMIT: Final = 4_096
"""Callers that are remembered with what everybody may do."""

_MALFORMED: Final = Denied("malformed credentials")


class TokenVerifier(Protocol):
    """What knows bearer tokens; see `oidc.Issuers`."""

    async def verify(self, token: str) -> Principal | Denied:
        """Return whose token it is, or why it is no good."""
        ...


class Authenticator:
    """Says who asks.

    Args:
        keys: The API keys; its `run` must be running.
        tokens: Verifies bearer tokens that are no API keys; None takes none.
        roles: What users of tokens were granted by name; its `run` must be running. None: nothing.
        public: Tenants whose functions everybody may call. None, unless an operator says so.
    """

    __slots__ = ("_anonymous", "_keys", "_public", "_roles", "_tokens", "_widened")

    def __init__(
        self,
        keys: KeyCache,
        tokens: TokenVerifier | None = None,
        roles: RoleCopy | None = None,
        *,
        public: tuple[str, ...] = (),
    ) -> None:
        assert all(map(is_name, public)), "a public tenant is called by its name"
        self._keys = keys
        self._tokens = tokens
        self._roles = roles
        self._public = tuple(Grant(Level.INFERENCE, tenant, EVERY) for tenant in public)
        self._widened: dict[str, tuple[Principal, Principal]] = {}
        self._anonymous = self._with_public(ANONYMOUS)

    def recognized(self, header: str | None) -> Principal | Denied | None:
        """Return who shows an API key as nearly all do, or nothing; None of any other header.

        Without a turn of its own, which it is asked for with every request.
        """
        if header is None:
            return self._anonymous
        if header[:10] != "Bearer ix_" or len(header) > CREDENTIALS_LIMIT:
            return None
        who = self._keys.look_up(header[7:].rstrip())
        return self._with_public(who) if self._public and isinstance(who, Principal) else who

    async def authenticate(self, headers: Mapping[str, str]) -> Principal | Denied:
        """Return who sent a request; `headers` finds names in any case, as HTTP's do."""
        header = headers.get("Authorization")
        known = self.recognized(header)
        if known is not None:
            return known
        assert header is not None, "who shows nothing is recognized"
        if len(header) > CREDENTIALS_LIMIT or header[:7].lower() != "bearer ":
            return _MALFORMED
        token = header[7:].strip()
        if token.startswith("ix_"):
            who = self._keys.look_up(token)
        elif self._tokens is not None:
            who = await self._tokens.verify(token)
            if self._roles is not None and isinstance(who, Principal):
                who = self._roles.widen(who)
        else:
            return _MALFORMED
        return self._with_public(who) if isinstance(who, Principal) else who

    def _with_public(self, who: Principal) -> Principal:
        if not self._public:
            return who
        before = self._widened.get(who.name)
        if before is not None and before[0] is who:
            return before[1]
        if len(self._widened) >= WIDENED_LIMIT:
            self._widened.clear()
        widened = msgspec.structs.replace(who, grants=who.grants + self._public)
        self._widened[who.name] = who, widened
        return widened
