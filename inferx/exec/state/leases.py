"""The leases of a store that lives in this process, and when each runs out. No IO, no clock."""

from collections.abc import Mapping

import msgspec

from inferx.exec.state.store import StoreLeaseId

__all__ = ["Leases"]


class Lease(msgspec.Struct):
    """How long a lease lasts after it was kept alive, and until when it does now."""

    ttl_ns: int
    ends_ns: int


class Leases:
    """Leases by id."""

    __slots__ = ("_latest", "_leases")

    def __init__(self, now_ns: int, ttls_ns: Mapping[StoreLeaseId, int]) -> None:
        """Begin with leases of a former life, each with its full time before it."""
        self._leases = {lease: Lease(ttl_ns, now_ns + ttl_ns) for lease, ttl_ns in ttls_ns.items()}
        # Ids begin at the microsecond: who still holds one of a former life, whose lease is gone,
        # must not find it to be somebody else's.
        self._latest = max([now_ns // 1000, *ttls_ns])

    def ids(self) -> list[StoreLeaseId]:
        """Return all leases."""
        return list(self._leases)

    def grant(self, now_ns: int, ttl_ns: int) -> StoreLeaseId:
        """Make a new lease."""
        self._latest += 1
        lease = StoreLeaseId(self._latest)
        self._leases[lease] = Lease(ttl_ns, now_ns + ttl_ns)
        return lease

    def keep_alive(self, now_ns: int, lease: StoreLeaseId) -> None:
        """Begin the time of a lease that is there anew."""
        held = self._leases[lease]
        held.ends_ns = now_ns + held.ttl_ns

    def end(self, lease: StoreLeaseId) -> None:
        """Forget a lease."""
        del self._leases[lease]

    def ends_ns(self, lease: StoreLeaseId) -> int | None:
        """Return when a lease runs out; None if it is no more."""
        held = self._leases.get(lease)
        return None if held is None else held.ends_ns
