"""Who asks, and what was granted to them.

Laws:
1. A grant is positive and explicit. There is no grant by default, and an empty name grants nothing.
2. `EVERY` is the only wildcard, and no name: names are letters, digits, `-`, `_` and `.`.
3. Levels are ordered, and each holds those below it; nothing lies between them.
"""

from enum import IntEnum
from typing import Final, Literal, NamedTuple

import msgspec

from inferx.exec.identity.limits import UNLIMITED, Limits

__all__ = [
    "ANONYMOUS",
    "EVERY",
    "SERVICE",
    "SYSTEM_TENANT",
    "Denied",
    "Grant",
    "Kind",
    "Level",
    "Principal",
    "Reason",
    "User",
]

EVERY: Final = "*"
"""In a grant: all of them. As a target: the whole, which only a grant of the whole covers."""
SYSTEM_TENANT: Final = "system"
"""Where services keep their own objects; nobody is granted it by name."""


class Level(IntEnum):
    """How much a grant allows in its scope; the reference's levels, and services above them."""

    INFERENCE = 1
    READ = 2
    FULL = 3
    SERVICE = 4
    """A service of this cluster, known by its certificate; no key and no token has it."""


class Grant(msgspec.Struct, frozen=True):
    """A level over a namespace, over a whole tenant, or over the cluster."""

    level: Level
    tenant: str
    namespace: str

    def covers(self, tenant: str, namespace: str) -> bool:
        """Return whether a target lies in this grant's scope."""
        return self.tenant in {EVERY, tenant} and self.namespace in {EVERY, namespace}


class User(NamedTuple):
    """Somebody as people mean them: by a name, which is unique at one issuer of tokens alone."""

    issuer: str
    name: str


class Principal(msgspec.Struct, frozen=True):
    """Somebody who was authenticated, or nobody in particular.

    Attributes:
        name: `key:<id>`, `oidc:<issuer>#<subject>`, `service` or `anonymous`; fit for a log.
        grants: What they may do.
        limits: Their own, beside those of the tenants they call.
        user: To whom roles can be granted by name; None is nobody that a name could mean.
    """

    name: str
    grants: tuple[Grant, ...] = ()
    limits: Limits = UNLIMITED
    user: User | None = None


ANONYMOUS: Final = Principal("anonymous")
SERVICE: Final = Principal("service", (Grant(Level.SERVICE, EVERY, EVERY),))
"""A peer whose certificate the cluster's own authority signed."""

Kind = Literal["unauthenticated", "forbidden", "unavailable"]
"""What the caller can do about it: show other credentials, nothing, or try again later."""

Reason = Literal[
    "bad name",
    "bad token",
    "expired",
    "issuer unavailable",
    "keys unavailable",
    "malformed credentials",
    "malformed record",
    "no right",
    "revoked",
    "unknown issuer",
    "unknown key",
]
"""Why somebody was refused: a small closed set, for metrics and the audit log."""

_FORBIDDEN: Final[frozenset[Reason]] = frozenset({"bad name", "no right"})
_UNAVAILABLE: Final[frozenset[Reason]] = frozenset({"issuer unavailable", "keys unavailable"})


class Denied(msgspec.Struct, frozen=True):
    """A refusal."""

    reason: Reason

    @property
    def kind(self) -> Kind:
        """Return what the caller can do about it."""
        if self.reason in _FORBIDDEN:
            return "forbidden"
        return "unavailable" if self.reason in _UNAVAILABLE else "unauthenticated"
