"""A buffer of free slots for the arrivals of one start-up time, sized as a newsvendor would.

Source: the critical fractile of Arrow, Harris and Marschak, "Optimal Inventory Policy",
Econometrica 19(3), 1951, pp. 250-272, with the demand of a lead time, as in base-stock control. The
lead time is a start-up, its demand N is Poisson, each free slot that nobody takes costs `idle`,
each request that finds none costs `miss`. Wanted is the least k with
    P(N(start-up) > k) <= idle / (idle + miss)
free slots, and as many pods as lack for them. The application is ours, and so are the two costs.

Differs: the rate is the kernel's estimate, whose reciprocal is an average gap; the start-up time is
that from the warmest state on any node; free slots of pods that still start count as free.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from inferx.policy import F64, I32, NS_PER_S, ClusterView, Demote, PolicyBundle, Promote, plain
from inferx.policy.parts.bringing import bring_up
from inferx.policy.parts.start_times import StartTimes

__all__ = ["NewsvendorBuffer", "bundle", "fractile"]

_LOOKS = 4
"""Functions whose fractile is looked up for each that may be brought up."""


def fractile(mean: float, tail: float) -> int:
    """Return the least k such that a Poisson count exceeds it with probability at most `tail`.

    Args:
        mean: At least 0.
        tail: Above 0, below 1.
    """
    if mean <= 0:
        return 0
    wide = 12.0 * math.sqrt(mean)
    # Below the first k lies less than any double can tell from nothing.
    low = max(0, int(mean - wide))
    k = np.arange(low + 1, int(mean + wide) + 40)
    first = low * math.log(mean) - mean - math.lgamma(low + 1)
    logs = np.concatenate(((first,), first + np.cumsum(math.log(mean) - np.log(k))))
    # From above, for the tail to keep its digits.
    above = np.cumsum(np.exp(logs)[::-1])[::-1] - np.exp(logs)
    return low + int(np.argmax(above <= tail))


@dataclass(slots=True)
class NewsvendorBuffer:
    """Keeps so many slots free that few arrivals of one start-up time find none."""

    tail: float
    moves: int
    start: StartTimes

    def demand(self, view: ClusterView) -> F64:
        """Return the requests expected during a start-up. Shape (functions,)."""
        demand: F64 = view.functions.arrivals_per_s * self.start.look(view)
        return demand

    def short(self, view: ClusterView) -> list[int]:
        """Return a function for each pod that lacks, the one with the most demand first."""
        table = view.functions
        demand = self.demand(view)
        live: I32 = table.ready + table.starting
        free = live * table.slots - table.inflight - table.queued
        # No fractile is larger than this; and it is zero where even one arrival is unlikely.
        bound = demand + 12.0 * np.sqrt(demand) + 40.0
        rows = np.flatnonzero((-np.expm1(-demand) > self.tail) & (free < bound))
        order: list[int] = rows[np.argsort(-demand[rows], kind="stable")].tolist()
        short: list[int] = []
        looks = 0
        for f in order:
            room = table.specs[f].max_replica - int(live[f])
            if room <= 0:
                continue
            lacks = fractile(float(demand[f]), self.tail) - int(free[f])
            short += [f] * max(0, min(-(-lacks // int(table.slots[f])), room))
            looks += 1
            if looks == _LOOKS * self.moves or len(short) >= _LOOKS * self.moves:
                break
        return short

    def promote(self, view: ClusterView, rng: Generator) -> Sequence[Promote | Demote]:
        """Return a promotion to HBM for the pods that lack."""
        return bring_up(self.short(view), view, moves=self.moves)


def bundle(
    idle: float = 1.0, miss: float = 19.0, moves: int = 4, settle_s: float = 600.0
) -> PolicyBundle:
    """Return the bundle; the costs matter by their ratio alone, and 1 to 19 is a 5 % tail.

    Args:
        idle: Cost of a free slot during a start-up, above 0.
        miss: Cost of a request that finds none, above 0.
        moves: Promotions a period, 1 to 1,000.
        settle_s: How long after the last event the buffer is still kept, 0 to a day.

    Raises:
        ValueError: A setting is out of its range.
    """
    for name, cost in (("idle", idle), ("miss", miss)):
        if not 0 < cost <= 1e9:
            raise ValueError(f"{name} is {cost:g}; expected above 0, at most 1e9")
    if not 1 <= moves <= 1_000:
        raise ValueError(f"moves is {moves}; expected 1 to 1000")
    if not 0 <= settle_s <= 86_400:
        raise ValueError(f"settle_s is {settle_s:g}; expected 0 to 86400")
    return replace(
        plain.bundle(),
        name="newsvendor",
        prewarm=NewsvendorBuffer(idle / (idle + miss), moves, StartTimes()),
        settle_ns=int(settle_s * NS_PER_S),
    )
