"""Virtual token counter (VTC): the tenant that was served the fewest tokens, weighted.

Source: Sheng et al., "Fairness in Serving Large Language Models", OSDI'24, pp. 965-988, section 4
(arXiv 2401.00588); repository Ying1123/VTC-artifact at 14c19b7,
`slora/server/router/vtc_req_queue.py` (`VTCReqQueue`): w_in = 1 an input token, w_out = 2 an output
token, each over the tenant's weight. The tenant with the least counter is served; input tokens are
charged when a request begins. A tenant that comes back is lifted: to the least counter of those who
wait or, where nobody does, to that of the tenant who was the last to leave the queue. While two
tenants have requests waiting, their service differs by at most 2 max(w_in L, w_out M), with inputs
of at most L tokens and M tokens in service.

Differs: output tokens are charged when the request ends, not as they are generated, and the bound
is on what has been charged; M is counted over all slots, inputs and outputs, for the memory of the
pods is not seen; ties go to the request that came first; each function is a queue of its own, and
pods are wanted in the order of age; several gateways that share one object keep one account, and
the bound is of one queue alone. Where nobody counts tokens, all counters are equal and the
order is that of age.
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

__all__ = ["VirtualTokenCounter", "bundle"]


@dataclass(slots=True)
class _Queue:
    """The counters of one function's tenants."""

    counters: dict[int, float] = field(default_factory=dict[int, float])
    last: int | None = None
    """The tenant whose request began last."""


@dataclass(slots=True)
class VirtualTokenCounter:
    """Serves the least counter; ties to the request that came first."""

    weights: Mapping[str, float]
    w_in: float = 1.0
    w_out: float = 2.0
    _queues: dict[int, _Queue] = field(default_factory=dict[int, _Queue])

    def counter(self, function: int, tenant: int) -> float:
        """Return the weighted tokens that a tenant of a function was charged, lifts included."""
        return self._queues[function].counters[tenant]

    def _charge(self, request: RequestArrived, tokens: float) -> None:
        weight = self.weights.get(str(request.tenant), 1.0)
        self._queues[request.function].counters[request.tenant] += tokens / weight

    def arrived(
        self, request: RequestArrived, waiting: Sequence[Waiting], view: RouterView
    ) -> None:
        """Lift the counter of a tenant of whom nobody waits."""
        queue = self._queues.setdefault(request.function, _Queue())
        counters, tenant = queue.counters, request.tenant
        there = {one.request.tenant: None for one in waiting}
        own = counters.setdefault(tenant, 0.0)
        if there and tenant not in there:
            counters[tenant] = max(own, min(counters[other] for other in there))
        elif not there and queue.last is not None:
            counters[tenant] = max(own, counters[queue.last])

    def started(self, request: RequestArrived, view: RouterView) -> None:
        """Charge the input."""
        self._queues[request.function].last = request.tenant
        self._charge(request, self.w_in * request.input_tokens)

    def ended(self, request: RequestArrived, output_tokens: int, view: RouterView) -> None:
        """Charge the output."""
        self._charge(request, self.w_out * output_tokens)

    def next_request(self, waiting: Sequence[Waiting], view: RouterView) -> int:
        """Return the index of the first request of the least counter. Cost: O(waiting)."""
        counters = self._queues[waiting[0].request.function].counters
        return min(range(len(waiting)), key=lambda at: counters[waiting[at].request.tenant])

    def next_want(self, wants: Sequence[Want], view: ClusterView) -> int:
        """Return 0: the longest wait."""
        return 0


def bundle(w_in: float = 1.0, w_out: float = 2.0, weights: str = "") -> PolicyBundle:
    """Return the bundle with the paper's prices.

    Args:
        w_in: Price of an input token, at least 0.
        w_out: Price of an output token, at least 0.
        weights: `tenant:weight,...` by a tenant's number, each 1 by default.

    Raises:
        ValueError: A price is below 0 or not finite, or `weights` cannot be read.
    """
    for name, price in (("w_in", w_in), ("w_out", w_out)):
        if not 0 <= price <= 1e9:
            raise ValueError(f"{name} is {price:g}; expected 0 to 1e9")
    queueing = VirtualTokenCounter(parse_weights(weights), w_in, w_out)
    return replace(plain.bundle(), name="virtual-token-counter", queueing=queueing)
