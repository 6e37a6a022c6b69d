"""Dominant resource fairness (DRF): room goes to the tenant that holds the least of what it needs.

Source: Ghodsi et al., "Dominant Resource Fairness: Fair Allocation of Multiple Resource Types",
NSDI'11, pp. 323-336, section 4, algorithm 1 (progressive filling), weighted. A tenant's dominant
share is the greatest of its shares of each resource, over its weight; the next pod is for a tenant
of the least. No constants.

The resources are GPU memory, GPU compute and host memory, over all pods that a tenant's functions
have, suspended ones too; a tenant is a function's, by description.

Differs: equal shares go to the longest wait, where the original draws; a pod that does not fit lets
others have their turn, where the original waits for it; pods leave by keep-alive and eviction, not
for fairness; requests of one function are served in the order of age.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from inferx.policy import (
    F64,
    I32,
    MILLI_PER_GPU,
    ClusterView,
    PolicyBundle,
    RouterView,
    Waiting,
    Want,
    plain,
)
from inferx.policy.parts.weights import parse_weights

__all__ = ["DominantResource", "bundle"]


@dataclass(slots=True)
class DominantResource:
    """Places the want of the tenant with the least dominant share."""

    weights: Mapping[str, float]
    _tenant: I32 = field(default_factory=lambda: np.zeros(0, np.int32))
    """Tenant of each function, a number in the order of first mention. Shape (functions,)."""
    _weight: F64 = field(default_factory=lambda: np.zeros(0))
    """Shape (tenants,)."""

    def _know(self, view: ClusterView) -> None:
        specs = view.functions.specs
        if len(self._tenant) != len(specs):
            rows: dict[str, int] = {}
            known = [rows.setdefault(spec.tenant, len(rows)) for spec in specs]
            self._tenant = np.array(known, np.int32)
            self._weight = np.array([self.weights.get(tenant, 1.0) for tenant in rows])

    def shares(self, view: ClusterView) -> F64:
        """Return each tenant's dominant share over its weight. Shape (tenants,)."""
        self._know(view)
        pods, gpus, nodes = view.pods, view.gpus, view.nodes
        there = np.flatnonzero(pods.id >= 0)
        tenant = self._tenant[pods.function[there]]
        slices = (pods.gpu[there] >= 0).sum(axis=1)
        held = (
            (pods.hbm_bytes[there] * slices, int(gpus.hbm_bytes_total.sum())),
            (pods.milli_gpu[there] * slices, MILLI_PER_GPU * len(gpus.node)),
            (pods.host_bytes[there], int(nodes.host_bytes_total.sum())),
        )
        count = len(self._weight)
        shares = [np.bincount(tenant, used, count) / max(1, total) for used, total in held]
        dominant: F64 = np.maximum.reduce(shares) / self._weight
        return dominant

    def next_want(self, wants: Sequence[Want], view: ClusterView) -> int:
        """Return the index of the want of the least share; of equals, the longest wait.

        Cost: O(pods + wants).
        """
        shares = self.shares(view)
        return int(shares[self._tenant[[want.function for want in wants]]].argmin())

    def next_request(self, waiting: Sequence[Waiting], view: RouterView) -> int:
        """Return 0: the oldest."""
        return 0


def bundle(weights: str = "") -> PolicyBundle:
    """Return the bundle; `weights` is `tenant:weight,...` by a tenant's name, each 1 by default.

    Raises:
        ValueError: `weights` cannot be read.
    """
    queueing = DominantResource(parse_weights(weights))
    return replace(plain.bundle(), name="dominant-resource", queueing=queueing)
