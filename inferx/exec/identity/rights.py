"""Who may do what to which: one table, and one function that reads it.

Laws:
1. What is not in the table is refused, whoever asks.
2. A right needs one grant that is high enough and covers the target; grants do not add up.
3. A tenant's own object, with its limits, is written by the cluster's administrators alone.
4. What services tell of themselves is written by services alone.
"""

from typing import Final, Literal

import msgspec

from inferx.exec.identity.principal import EVERY, Denied, Level, Principal
from inferx.spec.reference import is_name

__all__ = ["ALLOWED", "RIGHTS", "Action", "Allowed", "Right", "authorize"]

Action = Literal["invoke", "read", "write", "administer"]
"""`invoke`: send requests to. `administer`: decide over what is no object, as issuing keys."""

Reach = Literal["open", "target", "tenant", "cluster"]
"""What a grant has to cover: nothing at all, the target itself, its whole tenant, all tenants."""


class Right(msgspec.Struct, frozen=True):
    """What one action on one type takes."""

    level: Level
    reach: Reach


class Allowed(msgspec.Struct, frozen=True):
    """Go on."""


ALLOWED: Final = Allowed()

_INVOKE: Final = Right(Level.INFERENCE, "target")
_READ: Final = Right(Level.READ, "target")
_FULL: Final = Right(Level.FULL, "target")
_TENANT_READ: Final = Right(Level.READ, "tenant")
_TENANT_FULL: Final = Right(Level.FULL, "tenant")
_CLUSTER_READ: Final = Right(Level.READ, "cluster")
_CLUSTER_FULL: Final = Right(Level.FULL, "cluster")
_SERVICE: Final = Right(Level.SERVICE, "cluster")

RIGHTS: Final[dict[str, dict[Action, Right]]] = {
    "health": {"read": Right(Level.INFERENCE, "open")},
    "function": {"invoke": _INVOKE, "read": _READ, "write": _FULL},
    "funcpolicy": {"read": _READ, "write": _FULL},
    "funcstatus": {"read": _READ, "write": _SERVICE},
    "pod": {"read": _READ, "write": _FULL},
    "snapshot": {"read": _READ, "write": _FULL},
    "log": {"read": _READ},
    # Its members read it; to make, change or remove one is its tenant's business.
    "namespace": {"read": _READ, "write": _TENANT_FULL},
    "tenant": {"read": _TENANT_READ, "write": _CLUSTER_FULL},
    # To see that a key exists, as to issue one, takes full access to all that it opens; so does a
    # role that is granted by name.
    "apikey": {"read": _FULL, "administer": _FULL},
    "role": {"read": _FULL, "administer": _FULL},
    "usage": {"read": _TENANT_READ},
    "audit": {"read": _TENANT_FULL},
    "node_info": {"read": _CLUSTER_READ, "write": _SERVICE},
    "scheduler": {"read": _CLUSTER_READ, "write": _SERVICE, "administer": _CLUSTER_FULL},
    "gateway": {"read": _CLUSTER_READ, "write": _SERVICE, "administer": _CLUSTER_FULL},
    "node": {"read": _CLUSTER_READ, "administer": _CLUSTER_FULL},
    "metrics": {"read": _CLUSTER_READ},
}
"""By type and action. A tenant or a namespace, as an object, is its own target."""

_NO_RIGHT: Final = Denied("no right")
_BAD_NAME: Final = Denied("bad name")


def authorize(
    principal: Principal, action: Action, tenant: str, namespace: str, kind: str
) -> Allowed | Denied:
    """Decide whether somebody may act on a type in a namespace.

    Args:
        principal: Who asks.
        action: What they want to do.
        tenant: Of the target; `EVERY` for what has none, or for that of all tenants at once.
        namespace: Of the target; `EVERY` for what has none, or for a whole tenant.
        kind: Type of the target, a key of `RIGHTS`.
    """
    right = RIGHTS.get(kind, {}).get(action)
    if right is None:
        return _NO_RIGHT
    if right.reach == "open":
        return ALLOWED
    if not ((tenant == EVERY or is_name(tenant)) and (namespace == EVERY or is_name(namespace))):
        return _BAD_NAME
    if right.reach != "target":
        namespace = EVERY
        if right.reach == "cluster":
            tenant = EVERY
    for grant in principal.grants:
        if grant.level >= right.level and grant.covers(tenant, namespace):
            return ALLOWED
    return _NO_RIGHT
