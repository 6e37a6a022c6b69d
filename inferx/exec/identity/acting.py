"""On whose behalf the state service writes an object, for somebody who was authenticated."""

from inferx.exec.identity.principal import EVERY, Level, Principal
from inferx.exec.state.objects.actor import (
    ADMIN,
    SYSTEM,
    Actor,
    namespace_admin,
    tenant_admin,
)

__all__ = ["actor_for"]


def actor_for(principal: Principal, tenant: str, namespace: str) -> Actor | None:
    """Return the actor with the most that somebody's grants give them over a namespace.

    None: they administer nothing there, and write nothing. `authorize` comes first all the same: an
    actor says how far rights go, the table says what each action takes.
    """
    if _covered(principal, Level.SERVICE, EVERY, EVERY):
        return SYSTEM
    if _covered(principal, Level.FULL, EVERY, EVERY):
        return ADMIN
    if _covered(principal, Level.FULL, tenant, EVERY):
        return tenant_admin(tenant)
    if _covered(principal, Level.FULL, tenant, namespace):
        return namespace_admin(tenant, namespace)
    return None


def _covered(principal: Principal, level: Level, tenant: str, namespace: str) -> bool:
    return any(
        grant.level >= level and grant.covers(tenant, namespace) for grant in principal.grants
    )
