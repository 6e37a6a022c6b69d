"""Room for autoscalers: others leave for requests, not for what a target alone wants. Ours."""

from dataclasses import dataclass

from numpy.random import Generator

from inferx.policy import FOREVER_NS, ClusterView, Defer, Evict, EvictionPolicy, Want

__all__ = ["ForRequests"]

_NOBODY_WAITS = Defer("no request waits")


@dataclass(frozen=True, slots=True)
class ForRequests:
    """Evicts as another policy does where a request waits; otherwise the target waits for room.

    Autoscalers presume a cluster that grows. On one that does not, functions whose targets are not
    met would evict each other's idle pods at every decision, for ever.
    """

    policy: EvictionPolicy

    def evict(self, want: Want, view: ClusterView, rng: Generator) -> Evict | Defer:
        """Return the policy's plan if a request waits for the pod."""
        if want.since_ns == FOREVER_NS:
            return _NOBODY_WAITS
        return self.policy.evict(want, view, rng)
