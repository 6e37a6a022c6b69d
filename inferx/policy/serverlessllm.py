"""Start-up-time-aware placement over checkpoint tiers.

Source: Fu et al., "ServerlessLLM: Low-Latency Serverless Inference for LLMs", OSDI'24, pp. 135-153,
section 6.1 (estimate of the loading time); constants of the repository ServerlessLLM/ServerlessLLM
at 9f50241: keep-alive 0 s, ties to the lowest node.

The loading time on a server is what its queue of loads still takes, plus the model's bytes over
the slowest link from the tier where its checkpoint lies; the server with the least wins. Pods are
loaded by a fast loader, not from snapshots: one that ends leaves its checkpoint in the host-memory
pool.

Differs: no live migration of running inference; a load that is queued counts as long as the one
that is asked about, so that n of them make 1 + n times its own, where the original sums the times
of the loads that wait; a full memory pool turns the newcomer away to disk where the original pushes
out the least recently used; as many pods as the requests need slots, where the repository scales by
two ongoing requests a pod.
"""

from dataclasses import dataclass

import numpy as np

from inferx.policy import (
    F64,
    FOREVER_NS,
    NS_PER_S,
    ClusterView,
    PodState,
    PolicyBundle,
    Tier,
    Want,
)
from inferx.policy.basics import (
    AdmitAll,
    FixedHold,
    LeastOutstanding,
    NeverEvict,
    NoPrewarm,
    OnDemand,
)
from inferx.policy.compose import Scored

__all__ = ["LoadingTime", "bundle"]


@dataclass(frozen=True, slots=True)
class LoadingTime:
    """Prefers the server that has the model ready soonest."""

    def score(self, want: Want, view: ClusterView) -> F64:
        """Return 1 / (1 + seconds to ready). Shape (gpus,), in [0, 1]."""
        pods = view.pods
        loading = (pods.state == int(PodState.RESTORING)) | (pods.state == int(PodState.CREATING))
        # Loads on one server are serialised by its link: each adds about its own time.
        queue = np.bincount(pods.node[loading], minlength=len(view.nodes.specs))
        ready_s = view.node_restore_ns(want.function) * (1 + queue) / NS_PER_S
        score: F64 = (1.0 / (1.0 + ready_s))[view.gpus.node]
        return score


def bundle(keep_alive_s: float = 0.0) -> PolicyBundle:
    """Return the bundle; `keep_alive_s` is how long an idle pod keeps its GPU.

    Raises:
        ValueError: It is less than nothing, or longer than a year.
    """
    if not 0 <= keep_alive_s <= 366 * 86_400:
        raise ValueError(f"keep_alive_s is {keep_alive_s:g}; expected seconds, 0 to a year")
    return PolicyBundle(
        name="serverlessllm",
        admission=AdmitAll(),
        routing=LeastOutstanding(),
        placement=Scored((("loading time", 1.0, LoadingTime()),)),
        eviction=NeverEvict(),
        keep_alive=FixedHold(int(keep_alive_s * NS_PER_S), Tier.DRAM),
        prewarm=NoPrewarm(),
        scaling=OnDemand(),
        snapshots=True,
        mechanism="loader",
        whole_gpus=True,
        control_period_ns=10 * NS_PER_S,
        settle_ns=0,
        patience_ns=FOREVER_NS,
    )
