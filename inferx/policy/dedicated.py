"""A GPU for each function, for ever: what most fleets do, and what "10 to 20 % utilised" means.

One pod a function is started at once on GPUs of its own and is never released; a function that
finds no free GPU is not served. Ours, after common practice: a Kubernetes Deployment of one replica
with whole GPUs.
"""

from dataclasses import dataclass

import numpy as np

from inferx.policy import FOREVER_NS, I32, NS_PER_S, ClusterView, FunctionId, PolicyBundle, Tier
from inferx.policy.basics import AdmitAll, FixedHold, LeastOutstanding, NeverEvict, NoPrewarm
from inferx.policy.compose import BestFit, Scored

__all__ = ["OneEach", "bundle"]


@dataclass(frozen=True, slots=True)
class OneEach:
    """One pod of every function, always."""

    def target(self, function: FunctionId, view: ClusterView) -> int:
        """Return one."""
        return 1

    def targets(self, view: ClusterView) -> I32:
        """Return one for each function. Shape (functions,)."""
        return np.ones(len(view.functions.specs), np.int32)


def bundle() -> PolicyBundle:
    """Return the bundle; it has nothing to set."""
    return PolicyBundle(
        name="dedicated",
        admission=AdmitAll(),
        routing=LeastOutstanding(),
        placement=Scored((("best fit", 1.0, BestFit()),)),
        eviction=NeverEvict(),
        keep_alive=FixedHold(FOREVER_NS, Tier.ABSENT),
        prewarm=NoPrewarm(),
        scaling=OneEach(),
        snapshots=False,
        mechanism="none",
        whole_gpus=True,
        control_period_ns=10 * NS_PER_S,
        settle_ns=0,
        patience_ns=FOREVER_NS,
    )
