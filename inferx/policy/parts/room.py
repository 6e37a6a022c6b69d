"""Room for autoscalers: others leave for requests, not for what a target alone wants. Ours."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from inferx.policy import (
    FOREVER_NS,
    I32,
    ClusterView,
    Defer,
    Evict,
    EvictionPolicy,
    PolicyBundle,
    Tier,
    Want,
)
from inferx.policy.basics import FixedHold

__all__ = ["ForRequests", "autoscaled", "within_room"]

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


def within_room(targets: I32, view: ClusterView) -> I32:
    """Return the targets, or the pods that are there where no GPU is free enough for one more.

    On a full cluster every decision would otherwise ask in vain for each pod that lacks. It asks
    about compute and memory of single GPUs alone: what passes may still find no room.
    """
    functions, gpus = view.functions, view.gpus
    live: I32 = functions.ready + functions.starting
    result = targets.copy()
    most: dict[int, int] = {}
    for f in np.flatnonzero(targets > live).tolist():
        spec = functions.specs[f]
        if spec.milli_gpu not in most:
            open_to = gpus.schedulable & (gpus.milli_free >= spec.milli_gpu)
            most[spec.milli_gpu] = int(gpus.hbm_bytes_free.max(where=open_to, initial=-1))
        if most[spec.milli_gpu] < spec.hbm_bytes:
            result[f] = live[f]
    return result


def autoscaled(
    kept: PolicyBundle, name: str, *, control_period_ns: int, settle_ns: int
) -> PolicyBundle:
    """Return a bundle in which pods stay until scaling takes them, or a request needs the room."""
    return replace(
        kept,
        name=name,
        eviction=ForRequests(kept.eviction),
        keep_alive=FixedHold(FOREVER_NS, Tier.DRAM),
        control_period_ns=control_period_ns,
        settle_ns=settle_ns,
    )
