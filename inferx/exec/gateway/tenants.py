"""What tenants may use, as their objects say it now."""

from typing import Final, NamedTuple

import msgspec

from inferx.core.units import NS_PER_S
from inferx.exec.identity.limits import LARGEST, UNLIMITED, Limits, Rate
from inferx.exec.state.objects.bodies import Tenant, TenantSpec
from inferx.exec.state.objects.envelope import DataObject

__all__ = ["NO_TERMS", "Tenants", "Terms", "limits_of"]


class Terms(NamedTuple):
    """One tenant's.

    Attributes:
        limits: That requests to its functions are held to.
        quota_exceeded: Whether it has used up what it was granted.
    """

    limits: Limits
    quota_exceeded: bool


NO_TERMS: Final = Terms(UNLIMITED, quota_exceeded=False)


class Tenants:
    """Keeps the terms of each tenant that has any."""

    __slots__ = ("_terms",)

    def __init__(self) -> None:
        self._terms: dict[str, Terms] = {}

    def take(self, name: str, tenant: DataObject | None) -> None:
        """Take note of a tenant's object; None is gone."""
        terms = NO_TERMS
        if tenant is not None:
            body = msgspec.convert(tenant.object, Tenant)
            exceeded = body.status.quota_exceeded and not body.spec.quota_exempt
            terms = Terms(limits_of(body.spec), exceeded)
        if terms == NO_TERMS:
            self._terms.pop(name, None)
        else:
            self._terms[name] = terms

    def terms(self, tenant: str) -> Terms:
        """Return what a tenant may use."""
        return self._terms.get(tenant, NO_TERMS)


def limits_of(spec: TenantSpec) -> Limits:
    """Return what a tenant's specification holds its requests to."""
    limit = spec.limit
    return Limits(
        requests=_rate(limit.max_requests_per_s, limit.burst_s),
        tokens=_rate(limit.max_tokens_per_s, limit.burst_s),
        concurrent=limit.max_concurrency or None,
    )


def _rate(per_s: int, burst_s: int) -> Rate | None:
    return Rate(per_s, NS_PER_S, min(per_s * burst_s, LARGEST)) if per_s else None
