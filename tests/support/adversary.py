"""A policy that proposes anything: legal, foolish and impossible, from one seeded stream."""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from inferx.core.rng import stream
from inferx.policy import (
    FOREVER_NS,
    I32,
    NS_PER_S,
    Admit,
    ClusterView,
    Defer,
    Demote,
    Evict,
    FunctionId,
    GpuId,
    LeasedPod,
    NodeId,
    Place,
    PodId,
    PolicyBundle,
    Promote,
    Reject,
    RequestArrived,
    Retain,
    RouterView,
    Tier,
    Waiting,
    Want,
)


class Adversary:
    """Fills every slot. `legal` keeps it to what the kernel must take; `quiet` ends its whims."""

    def __init__(self, seed: int, *, legal: bool) -> None:
        self.rng = stream(seed, "adversary")
        self.legal = legal
        self.quiet = False

    def _wild(self, chance: float = 0.15) -> bool:
        return not self.legal and not self.quiet and self.rng.random() < chance

    def admit(self, request: RequestArrived, queued: int, view: RouterView) -> Admit | Reject:
        if self._wild(0.02):
            raise ValueError("admission")
        return Reject("whim") if self.rng.random() < 0.05 else Admit()

    def route(
        self,
        request: RequestArrived,
        candidates: Sequence[LeasedPod],
        view: RouterView,
        rng: Generator,
    ) -> int:
        return int(self.rng.integers(-1 if self._wild() else 0, len(candidates)))

    def place(self, want: Want, view: ClusterView, rng: Generator) -> Place | Defer:
        if self._wild(0.05):
            raise ValueError("placement")
        if self._wild():
            count = int(self.rng.integers(0, 4))
            top = len(view.gpus.node) + 1
            return Place(tuple(GpuId(int(g)) for g in self.rng.integers(-1, top, count)))
        fits = np.flatnonzero(view.fits(want))
        if not len(fits) or self.rng.random() < 0.3:
            return Defer("whim")
        node = view.gpus.node[self.rng.choice(fits)]
        on_it = [int(g) for g in fits if view.gpus.node[g] == node]
        picked = self.rng.permutation(on_it)[: want.gpus]
        return Place(tuple(GpuId(int(g)) for g in picked))

    def evict(self, want: Want, view: ClusterView, rng: Generator) -> Evict | Defer:
        pods = view.pods
        rows = np.flatnonzero((pods.ready | pods.standby) & (pods.id >= 0))
        if self._wild():
            rows = np.flatnonzero(pods.id >= 0)
        if not len(rows) or self.rng.random() < 0.2:
            return Defer("whim")
        tiers = (Tier.ABSENT, Tier.REMOTE, Tier.NVME, Tier.DRAM)
        count = int(self.rng.integers(1, min(4, len(rows)) + 1))
        victims = []
        for row in self.rng.permutation(rows)[:count]:
            to = tiers[int(self.rng.integers(len(tiers)))]
            if to is Tier.DRAM and bool(pods.standby[row]) and not self._wild():
                to = Tier.ABSENT
            victims.append((PodId(int(pods.id[row])), to))
        if self.rng.random() < 0.2:
            return Evict((), tuple(victims))
        node = int(pods.node[rows[0]]) if self.rng.random() < 0.9 else 0
        here = self.rng.permutation(np.flatnonzero(view.gpus.node == node))[: want.gpus]
        return Evict(tuple(GpuId(int(g)) for g in here), tuple(victims))

    def retain(self, function: FunctionId, at: Tier, view: ClusterView) -> Retain:
        if self._wild(0.05):
            raise ValueError("keep alive")
        if self._wild():
            return Retain(-1, Tier.HBM)
        hold = (0, NS_PER_S, 20 * NS_PER_S, FOREVER_NS)[int(self.rng.integers(4))]
        return Retain(FOREVER_NS if self.quiet else hold, Tier(int(self.rng.integers(int(at)))))

    def promote(self, view: ClusterView, rng: Generator) -> Sequence[Promote | Demote]:
        if self.quiet:
            return ()
        moves: list[Promote | Demote] = []
        for _ in range(int(self.rng.integers(0, 3))):
            wild = self._wild()
            f = FunctionId(int(self.rng.integers(len(view.functions.specs) + wild)))
            n = NodeId(int(self.rng.integers(-wild, len(view.nodes.specs))))
            if self.rng.random() < 0.3:
                moves.append(Demote(f, n, Tier(int(self.rng.integers(0 if wild else 2, 5)))))
            else:
                moves.append(Promote(f, n, Tier(int(self.rng.integers(0 if wild else 2, 5)))))
        return moves

    def target(self, function: FunctionId, view: ClusterView) -> int:
        return int(self.rng.integers(-1, 4)) if not self.quiet else 1

    def targets(self, view: ClusterView) -> I32 | None:
        if self.quiet or self.rng.random() < 0.5:
            return None
        count = len(view.functions.specs) + self._wild()
        return self.rng.integers(-1, 4, count).astype(np.int32)

    def next_request(self, waiting: Sequence[Waiting], view: RouterView) -> int:
        return int(self.rng.integers(-1 if self._wild() else 0, len(waiting)))

    def next_want(self, wants: Sequence[Want], view: ClusterView) -> int:
        return int(self.rng.integers(-1 if self._wild() else 0, len(wants)))

    def ended(self, request: RequestArrived, output_tokens: int, view: RouterView) -> None:
        if self._wild(0.02):
            raise ValueError("queueing")

    def observe(self, now_ns: int, event: object) -> None:
        if self._wild(0.02):
            raise ValueError("observer")


def adversarial(seed: int, *, legal: bool) -> PolicyBundle:
    """The bundle that one adversary fills."""
    one = Adversary(seed, legal=legal)
    return PolicyBundle(
        name="adversary",
        admission=one,
        routing=one,
        placement=one,
        eviction=one,
        keep_alive=one,
        prewarm=one,
        scaling=one,
        observers=(one,),
        queueing=one,
        snapshots=True,
        mechanism="snapshot",
        whole_gpus=False,
        control_period_ns=5 * NS_PER_S,
        settle_ns=20 * NS_PER_S,
        patience_ns=5 * NS_PER_S,
    )
