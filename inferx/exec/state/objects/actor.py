"""On whose behalf an object is written. Who someone is, and may read, is decided before."""

from enum import StrEnum

import msgspec

__all__ = ["ADMIN", "SYSTEM", "Actor", "Role", "namespace_admin", "tenant_admin"]


class Role(StrEnum):
    """How far someone's rights go; from the closed set that the wire knows."""

    SYSTEM = "system"
    ADMIN = "admin"
    TENANT_ADMIN = "tenant_admin"
    NAMESPACE_ADMIN = "namespace_admin"


class Actor(msgspec.Struct, frozen=True):
    """Someone who writes objects: a service, an administrator, or one of a tenant's own."""

    role: Role
    tenant: str = ""
    namespace: str = ""

    @property
    def is_admin(self) -> bool:
        """Whether no tenant bounds them."""
        return self.role in {Role.SYSTEM, Role.ADMIN}

    def owns(self, tenant: str) -> bool:
        """Whether they administer this tenant, as a whole."""
        return self.is_admin or (self.role is Role.TENANT_ADMIN and self.tenant == tenant)

    def keeps(self, tenant: str, namespace: str) -> bool:
        """Whether they administer this namespace."""
        own = (self.tenant, self.namespace) == (tenant, namespace)
        return self.owns(tenant) or (self.role is Role.NAMESPACE_ADMIN and own)

    def __str__(self) -> str:
        scope = "/".join(part for part in (self.tenant, self.namespace) if part)
        return self.role.replace("_", " ") + (f" of {scope}" if scope else "")


SYSTEM = Actor(Role.SYSTEM)
"""The services themselves."""
ADMIN = Actor(Role.ADMIN)


def tenant_admin(tenant: str) -> Actor:
    """Return one who administers a tenant."""
    return Actor(Role.TENANT_ADMIN, tenant)


def namespace_admin(tenant: str, namespace: str) -> Actor:
    """Return one who administers a namespace."""
    return Actor(Role.NAMESPACE_ADMIN, tenant, namespace)
