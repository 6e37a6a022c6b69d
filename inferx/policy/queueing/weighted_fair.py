"""Weighted fair queueing between tenants: by virtual finish times, self-clocked.

Source: Demers, Keshav, Shenker, "Analysis and Simulation of a Fair Queueing Algorithm", SIGCOMM'89,
pp. 1-12; with weights, Parekh, Gallager, IEEE/ACM Transactions on Networking 1(3), 1993,
pp. 344-357; the virtual time is Golestani's, "A Self-Clocked Fair Queueing Scheme for Broadband
Applications", INFOCOM'94, pp. 636-646. A request of tenant t has the virtual start max(V, finish of
t's request before it) and the virtual finish start + 1 / weight; the least virtual finish is served
first; V is the virtual finish of the request that began last. While two tenants have requests
waiting, the requests that began, each over its tenant's weight, differ by no more than one request
of each: 1 / weight + 1 / weight.

Differs: every request costs 1, for its length is not known when it comes; several are in service
at once, and one begins when a slot falls free; V does not follow an ideal server in real time,
hence the bound of 1994, not that of 1993; a request that is refused or cancelled while it waits
gives its place to its tenant's next one; each function is a queue of its own, and pods are wanted
in the order of age; several gateways that share one object keep one clock, and the bound is of one
queue alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from inferx.policy import (
    ClusterView,
    PolicyBundle,
    RequestArrived,
    RouterView,
    Waiting,
    Want,
    plain,
)
from inferx.policy.parts.weights import parse_weights

__all__ = ["WeightedFair", "bundle"]


@dataclass(slots=True)
class _Queue:
    """The virtual times of one function."""

    now: float = 0.0
    """Virtual finish of the request that began last."""
    start: dict[int, float] = field(default_factory=dict[int, float])
    """Virtual start of each tenant's next request."""


@dataclass(slots=True)
class WeightedFair:
    """Serves the least virtual finish; ties to the request that came first."""

    weights: Mapping[str, float]
    _queues: dict[int, _Queue] = field(default_factory=dict[int, _Queue])

    def _cost(self, tenant: int) -> float:
        return 1.0 / self.weights.get(str(tenant), 1.0)

    def arrived(
        self, request: RequestArrived, waiting: Sequence[Waiting], view: RouterView
    ) -> None:
        """Start a tenant of whom nobody waits at the present virtual time."""
        queue = self._queues.setdefault(request.function, _Queue())
        if all(one.request.tenant != request.tenant for one in waiting):
            queue.start[request.tenant] = queue.now

    def started(self, request: RequestArrived, view: RouterView) -> None:
        """Advance virtual time to the finish of a request that begins."""
        queue = self._queues[request.function]
        queue.now = queue.start[request.tenant] + self._cost(request.tenant)
        queue.start[request.tenant] = queue.now

    def next_request(self, waiting: Sequence[Waiting], view: RouterView) -> int:
        """Return the index of the least virtual finish. Cost: O(waiting)."""
        start = self._queues[waiting[0].request.function].start
        finish: dict[int, float] = {}
        first: dict[int, int] = {}
        for at, one in enumerate(waiting):
            tenant = one.request.tenant
            if tenant not in first:
                first[tenant] = at
                finish[tenant] = start[tenant] + self._cost(tenant)
        # The dictionaries are in the order of arrival, and so ties are.
        return first[min(finish, key=finish.__getitem__)]

    def next_want(self, wants: Sequence[Want], view: ClusterView) -> int:
        """Return 0: the longest wait."""
        return 0


def bundle(weights: str = "") -> PolicyBundle:
    """Return the bundle; `weights` is `tenant:weight,...` by a tenant's number, each 1 by default.

    Raises:
        ValueError: `weights` cannot be read.
    """
    queueing = WeightedFair(parse_weights(weights))
    return replace(plain.bundle(), name="weighted-fair", queueing=queueing)
