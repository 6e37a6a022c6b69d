"""The plain bundle: what a policy of one slot is compared in, all else being equal. Ours.

Starts where the state lies nearest and the GPU is fullest, evicts whoever was used least recently,
holds an idle pod for a minute and sinks it to host memory, moves nothing without a request. The
policies of the museum that fill one slot are this bundle with that slot replaced.
"""

from dataclasses import dataclass

from inferx.policy import F64, NS_PER_S, ClusterView, PolicyBundle, Tier, Want
from inferx.policy.basics import AdmitAll, FixedHold, LeastOutstanding, NoPrewarm, OnDemand
from inferx.policy.compose import BestFit, LeastRecentlyUsed, RankedEviction, Scored

__all__ = ["NearestState", "bundle"]


@dataclass(frozen=True, slots=True)
class NearestState:
    """Prefers the node from whose warmest tier the function starts soonest."""

    def score(self, want: Want, view: ClusterView) -> F64:
        """Return the least start-up time of any node over the GPU's. Shape (gpus,), in (0, 1]."""
        start_ns = view.node_restore_ns(want.function) + 1
        score: F64 = (start_ns.min() / start_ns)[view.gpus.node]
        return score


def bundle() -> PolicyBundle:
    """Return the bundle."""
    return PolicyBundle(
        name="plain",
        admission=AdmitAll(),
        routing=LeastOutstanding(),
        placement=Scored((("nearest state", 1.0, NearestState()), ("best fit", 0.05, BestFit()))),
        eviction=RankedEviction(LeastRecentlyUsed(), Tier.DRAM),
        keep_alive=FixedHold(60 * NS_PER_S, Tier.DRAM),
        prewarm=NoPrewarm(),
        scaling=OnDemand(),
        snapshots=True,
        mechanism="snapshot",
        whole_gpus=False,
        control_period_ns=10 * NS_PER_S,
        settle_ns=0,
        patience_ns=60 * NS_PER_S,
    )
