"""Least recently used: pods stay until room is needed, then the one idle longest leaves.

Source: Sleator and Tarjan, "Amortized Efficiency of List Update and Paging Rules", CACM 28(2),
1985, pp. 202-208, section 4, theorem 6; `LRU` of aFuerst/faascache-sim at e1f3b84,
`code/split/LambdaScheduler.py` (`calc_priority`). On any sequence its faults are at most
k / (k - h + 1) times those of the best cache of h <= k slots, plus h.

Differs: only idle pods may leave; a pod counts as used when its gateway gives it back, not when a
request arrives, so that requests which overlap are ordered by their ends; where GPUs hold several
pods, one that makes enough room alone is preferred to older ones that do not (`RankedEviction`);
what leaves is suspended to host memory unless `then` says otherwise (`absent` is a cache's).
"""

from dataclasses import replace

from inferx.policy import FOREVER_NS, PolicyBundle, Tier, plain
from inferx.policy.basics import FixedHold
from inferx.policy.compose import LeastRecentlyUsed, RankedEviction
from inferx.policy.parts.sinks import sink_tier

__all__ = ["bundle"]


def bundle(then: str = "dram") -> PolicyBundle:
    """Return the bundle; `then` is where a pod that leaves goes: `dram`, `nvme` or `absent`.

    Raises:
        ValueError: `then` is none of them.
    """
    tier = sink_tier(then)
    return replace(
        plain.bundle(),
        name="lru",
        keep_alive=FixedHold(FOREVER_NS, Tier.ABSENT),
        eviction=RankedEviction(LeastRecentlyUsed(), tier),
    )
