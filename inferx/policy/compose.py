"""Standard parts that compose: filter, score, pick; rank victims; fall back.

No inheritance: a part is a frozen dataclass that holds other parts.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from inferx.core.whynot import filter_counts
from inferx.policy import (
    F64,
    I64,
    Bool,
    Candidate,
    ClusterView,
    Defer,
    Evict,
    EvictionPolicy,
    Explanation,
    Filter,
    GpuId,
    Place,
    PlacementPolicy,
    PodCost,
    PodId,
    Scorer,
    Tier,
    Want,
)
from inferx.policy.parts.host_memory import tiers_of
from inferx.policy.parts.walks import walks

__all__ = [
    "BestFit",
    "FirstOf",
    "Guarded",
    "LeastRecentlyUsed",
    "RankedEviction",
    "Scored",
    "best_gpus",
]

_NO_FIT = Defer("no GPU fits")
_NO_VICTIM = Defer("no victims suffice")
_TOP = 3


def best_gpus(want: Want, ok: Bool, score: F64, view: ClusterView) -> tuple[GpuId, ...]:
    """Return the wanted number of GPUs of one node with the highest total score.

    Args:
        want: How many slices, on one node.
        ok: Feasible GPUs; every node with any has enough. Shape (gpus,).
        score: Higher is better; ties go to the lowest GPU. Shape (gpus,).
        view: The cluster.
    """
    masked = np.where(ok, score, -np.inf)
    if want.gpus == 1:
        return (GpuId(int(masked.argmax())),)
    node = view.gpus.node
    # Best first within each node; the first `gpus` of each node are its candidates.
    order = np.lexsort((-masked, node))
    starts = np.flatnonzero(np.diff(node[order], prepend=-1))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    chosen = order[rank < want.gpus]
    totals = np.full(int(node.max()) + 1, 0.0)
    np.add.at(totals, node[chosen], masked[chosen])
    counts = np.bincount(node[chosen], minlength=len(totals))
    totals[counts < want.gpus] = -np.inf
    winner = int(totals.argmax())
    return tuple(GpuId(int(gpu)) for gpu in sorted(chosen[node[chosen] == winner]))


@dataclass(frozen=True, slots=True)
class BestFit:
    """Prefers the GPU with the least memory left, so that large holes stay."""

    def score(self, want: Want, view: ClusterView) -> F64:
        """Less memory left is better. Shape (gpus,), in [0, 1] where `want` fits."""
        gpus = view.gpus
        left: F64 = 1.0 - (gpus.hbm_bytes_free - want.hbm_bytes) / gpus.hbm_bytes_total
        return left


@dataclass(frozen=True, slots=True)
class Scored:
    """Filters, sums weighted scores, takes the best; ties go to the lowest GPU.

    `terms` are `(name, weight, scorer)`; the names appear in explanations.
    """

    terms: tuple[tuple[str, float, Scorer], ...]
    filters: tuple[tuple[str, Filter], ...] = ()

    def _feasible(self, want: Want, view: ClusterView) -> Bool:
        ok = view.fits(want)
        for _, part in self.filters:
            ok = ok & part.mask(want, view)
        if self.filters and want.gpus > 1:
            counts = np.bincount(view.gpus.node[ok], minlength=len(view.nodes.specs))
            ok = ok & (counts >= want.gpus)[view.gpus.node]
        return ok

    def place(self, want: Want, view: ClusterView, rng: Generator) -> Place | Defer:
        """Return the feasible GPUs with the highest score."""
        ok = self._feasible(want, view)
        if not ok.any():
            return _NO_FIT
        total = np.zeros(len(ok))
        for _, weight, scorer in self.terms:
            total += weight * scorer.score(want, view)
        return Place(best_gpus(want, ok, total, view))

    def explain(self, want: Want, view: ClusterView) -> Explanation:
        """Say which GPUs were feasible and how the best of them scored."""
        feasible, filtered = filter_counts(want, view)
        ok = view.fits(want)
        for name, part in self.filters:
            passed = ok & part.mask(want, view)
            turned = int(ok.sum() - passed.sum())
            if turned:
                filtered[name] = turned
                feasible -= turned
            ok = passed
        parts = [(name, weight * s.score(want, view)) for name, weight, s in self.terms]
        total = np.sum([part for _, part in parts], axis=0) if parts else np.zeros(len(ok))
        masked = np.where(ok, total, -np.inf)
        best = np.argsort(-masked, kind="stable")[: min(_TOP, int(ok.sum()))]
        top = tuple(
            Candidate(
                int(gpu),
                round(float(total[gpu]), 6),
                {name: round(float(part[gpu]), 6) for name, part in parts},
            )
            for gpu in best
        )
        margin = round(top[0].score - top[1].score, 6) if len(top) > 1 else 0.0
        return Explanation(len(ok), feasible, filtered, top, margin)


@dataclass(frozen=True, slots=True)
class LeastRecentlyUsed:
    """Whoever has been idle longest costs least."""

    def cost(self, view: ClusterView) -> F64:
        """Return minus the idle time in ns. Shape (rows of view.pods,)."""
        idle: F64 = (view.pods.idle_since_ns - view.now_ns).astype(np.float64)
        return idle


@dataclass(frozen=True, slots=True)
class RankedEviction:
    """Takes the cheapest idle pods that make room on one GPU, or on one node for several.

    The last pods of a function that its `min_replica` promises stay. One victim that suffices is
    preferred; several are taken in the order of their cost, and those that turn out not to be
    needed are left alone. O(pods log pods).
    """

    costs: PodCost
    to: Tier

    def evict(self, want: Want, view: ClusterView, rng: Generator) -> Evict | Defer:
        """Return the cheapest plan, or defer if no idle pods suffice."""
        pods, gpus = view.pods, view.gpus
        cost = self.costs.cost(view)
        table = view.functions
        promised = (table.ready <= table.min_replica)[np.maximum(pods.function, 0)]
        rows = np.flatnonzero(np.isfinite(cost) & pods.idle & (pods.gpu[:, 0] >= 0) & ~promised)
        if not len(rows):
            return _NO_VICTIM
        eligible = view.eligible(want)
        if want.gpus == 1:
            at = pods.gpu[rows, 0]
            single = eligible[at] & (pods.gpu[rows, 1] < 0)
            single &= gpus.hbm_bytes_free[at] + pods.hbm_bytes[rows] >= want.hbm_bytes
            single &= gpus.milli_free[at] + pods.milli_gpu[rows] >= want.milli_gpu
            if single.any():
                fits = rows[single]
                row = int(fits[cost[fits].argmin()])
                victims = self._sent(want, view, [row])
                if victims is not None:
                    return Evict((GpuId(int(pods.gpu[row, 0])),), victims)
        return self._several(want, view, rows[np.argsort(cost[rows], kind="stable")], cost)

    def _sent(
        self, want: Want, view: ClusterView, rows: list[int]
    ) -> tuple[tuple[PodId, Tier], ...] | None:
        """Return where each victim goes: to the disk where the newcomer needs the host memory.

        `rows` are the victims', the cheapest first. None where it lacks host memory even so.
        """
        if not rows:
            return ()
        sent = tiers_of(want, view, int(view.pods.node[rows[0]]), rows[::-1])
        if sent is None:
            return None
        tiers = dict(sent) if self.to is Tier.DRAM else dict.fromkeys(dict(sent), self.to)
        ids = [PodId(int(view.pods.id[row])) for row in rows]
        return tuple((pod, tiers[pod]) for pod in ids)

    def _several(self, want: Want, view: ClusterView, rows: I64, cost: F64) -> Evict | Defer:
        """Return the node whose cheapest victims, taken in turn, cost least; ties to the lowest."""
        best: tuple[float, list[int], list[int]] | None = None
        for targets, kept in walks(want, view, rows):
            price = float(sum(cost[row] for row in kept))
            if best is None or price < best[0]:
                best = (price, targets, kept)
        if best is None:
            return _NO_VICTIM
        victims = self._sent(want, view, best[2])
        assert victims is not None, "the walk made room for the want"
        return Evict(tuple(GpuId(gpu) for gpu in best[1]), victims)


@dataclass(frozen=True, slots=True)
class FirstOf:
    """Asks placements in turn and takes the first that places."""

    choices: tuple[PlacementPolicy, ...]

    def place(self, want: Want, view: ClusterView, rng: Generator) -> Place | Defer:
        """Return the first proposal that is no deferral."""
        answer: Place | Defer = _NO_FIT
        for choice in self.choices:
            answer = choice.place(want, view, rng)
            if isinstance(answer, Place):
                break
        return answer


@dataclass(frozen=True, slots=True)
class Guarded:
    """Asks one eviction policy, and another where the first defers."""

    policy: EvictionPolicy
    fallback: EvictionPolicy

    def evict(self, want: Want, view: ClusterView, rng: Generator) -> Evict | Defer:
        """Return the policy's plan, or the fallback's."""
        answer = self.policy.evict(want, view, rng)
        return self.fallback.evict(want, view, rng) if isinstance(answer, Defer) else answer
