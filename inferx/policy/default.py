"""Ours: every choice is the one with the least expected waiting.

- Place where the pod is ready soonest: the warmest tier, the GPU with the fewest starts before it,
  the least contended node, then best fit.
- Wait for room only where that pays: if a node that is full of idle pods holds the state much
  nearer than any free GPU does, evict there instead of starting cold elsewhere.
- Evict the pods whose loss is expected to cost the least: the probability that the function is
  asked for again soon, times how long its way back takes from where it will lie. One victim that
  suffices is preferred. Victims are swapped to host memory, not killed, while it has room.
- Requests come in spells. A pod that has just served stays for the pause that a visitor makes; one
  that is on its way to host memory is waited for, if that is sooner than a second pod from disk.
- Keep what is asked for: while GPUs are scarce a pod stays on its GPU only if its function is
  expected back soon, the sooner the scarcer they are; while they are not, as long as nobody needs
  the room. Suspended pods stay in host memory by the same rule.
- Host memory belongs to the functions asked for most: those that lie on disk are brought into it
  before they are asked for again, and those asked for least make room.

A pod that has been wanted for longer than `patience_s` gets room by draining the least busy pods.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from inferx.policy import (
    F64,
    FOREVER_NS,
    NS_PER_S,
    Bool,
    ClusterView,
    Defer,
    Demote,
    Evict,
    EvictionPolicy,
    Explanation,
    FunctionId,
    GpuId,
    NodeId,
    Place,
    PodId,
    PodState,
    PolicyBundle,
    Promote,
    Retain,
    Tier,
    Want,
)
from inferx.policy.basics import AdmitAll, LeastOutstanding, OnDemand
from inferx.policy.compose import BestFit, RankedEviction, Scored

__all__ = [
    "HoldWhileAsked",
    "LeastRegret",
    "PlaceOrEvict",
    "PopularFirst",
    "SoonestReady",
    "SwapOut",
    "bundle",
]

HORIZON_S = 300.0
"""How far ahead an eviction is regretted: about as long as an evicted pod would have stayed."""
RESERVE = 0.15
"""Share of host memory that suspended pods leave to live ones."""
WORTH = 3.0
"""Evicting for a nearer start must be expected to be this many times sooner."""
BESIDE = 0.1
"""Share of a start that each other one under way on its node adds to it."""
MOST_S = 366 * 86_400.0
"""The longest time that a setting may be."""
RETURN = 1.5
"""Resumes that a pod takes which must first arrive in host memory: half of that way is left."""


_STARTING = np.zeros(len(PodState), np.bool_)
_STARTING[[PodState.CREATING, PodState.RESTORING, PodState.RESUMING]] = True


def _busy_starts(view: ClusterView) -> np.ndarray:
    """Starts under way on each node, for they share its links. Shape (nodes,)."""
    pods = view.pods
    return np.bincount(pods.node[_STARTING[pods.state]], minlength=len(view.nodes.specs))


def _ready_s(function: FunctionId, view: ClusterView) -> F64:
    """Expected seconds to ready on each GPU. Shape (gpus,).

    Starts on one GPU go one after another; those on other GPUs of its node share its links.
    """
    pods, node = view.pods, view.gpus.node
    alone = view.node_restore_ns(function) / NS_PER_S
    starting = np.flatnonzero(_STARTING[pods.state])
    if not len(starting):
        return alone[node]
    ready: F64 = (alone * (1.0 + BESIDE * _busy_starts(view)))[node]
    # Few GPUs have a start under way: the queues are added there alone.
    gpu = pods.gpu[starting].ravel()
    gpu = gpu[gpu >= 0]
    np.add.at(ready, gpu, alone[node[gpu]])
    return ready


def _ready_on_s(gpu: GpuId, alone: F64, view: ClusterView) -> float:
    """Expected seconds to ready on one GPU, as `_ready_s` has them."""
    pods, node = view.pods, int(view.gpus.node[gpu])
    starting = _STARTING[pods.state]
    beside = int((pods.node[starting] == node).sum())
    queue = int((pods.gpu[starting] == gpu).sum())
    return float(alone[node]) * (1.0 + BESIDE * beside) + queue * float(alone[node])


def _returns(want: Want, view: ClusterView) -> bool:
    """Tell whether a pod of the function on its way to host memory is back before a new one is."""
    if not view.functions.standby[want.function]:
        return False  # That counts those on their way there.
    pods = view.pods
    leaving = pods.node[(pods.function == want.function) & (pods.state == PodState.SUSPENDING)]
    if not len(leaving):
        return False
    back = min(view.start_ns(want.function, Tier.DRAM, NodeId(n)) for n in leaving.tolist())
    elsewhere = view.restore_ns(want.function)[view.eligible(want)]
    return not len(elsewhere) or RETURN * back <= float(elsewhere.min())


_RETURNING = Defer("a pod returns sooner")


@dataclass(frozen=True, slots=True)
class SoonestReady:
    """Prefers the GPU on which the pod is ready soonest."""

    def score(self, want: Want, view: ClusterView) -> F64:
        """Return the least time to ready over the GPU's. Shape (gpus,), in [0, 1] where it fits.

        A ratio, for what counts is how many times later: on a scale of seconds all GPUs would look
        alike to a start that takes a minute, and it would queue behind others on the fullest.
        """
        ready = np.maximum(_ready_s(want.function, view), 1e-9)
        best = float(ready.min(where=view.fits(want), initial=np.inf))
        if best == np.inf:
            return np.zeros(len(ready))
        score: F64 = np.minimum(1.0, best / ready)
        return score


@dataclass(frozen=True, slots=True)
class LeastRegret:
    """Expected seconds of waiting that evicting a pod costs."""

    def cost(self, view: ClusterView) -> F64:
        """Return P(asked for within the horizon) x seconds to come back. Shape (rows,)."""
        pods = view.pods
        asked = -np.expm1(-view.functions.arrivals_per_s * HORIZON_S)
        function = np.maximum(pods.function, 0)
        # What comes back from host memory moves its GPU state once more: bytes stand for time.
        back = 1.0 + pods.hbm_bytes / (8 << 30)
        cost: F64 = asked[function] * back
        # Of equal pods, the one idle longest goes.
        cost -= 1e-9 * (view.now_ns - pods.idle_since_ns) / NS_PER_S
        return cost


@dataclass(frozen=True, slots=True)
class SwapOut:
    """Sends victims to host memory where it has room, else to disk."""

    ranked: RankedEviction

    def evict(self, want: Want, view: ClusterView, rng: Generator) -> Evict | Defer:
        """Return the ranked plan with a tier for each victim that has room for it."""
        if _returns(want, view):
            return _RETURNING
        plan = self.ranked.evict(want, view, rng)
        if isinstance(plan, Defer):
            return plan
        room = view.nodes.host_bytes_free.astype(np.int64).copy()
        total = view.nodes.host_bytes_total
        pods = view.pods
        rows = {int(pod): row for row, pod in enumerate(pods.id.tolist()) if pod >= 0}
        victims: list[tuple[PodId, Tier]] = []
        for pod, _ in plan.victims:
            row = rows[pod]
            node = int(pods.node[row])
            size = view.spec(FunctionId(int(pods.function[row]))).device_bytes
            fits = room[node] - size >= RESERVE * total[node]
            room[node] -= size if fits else 0
            victims.append((pod, Tier.DRAM if fits else Tier.NVME))
        return Evict(plan.gpus, tuple(victims))


@dataclass(frozen=True, slots=True)
class PlaceOrEvict:
    """Places by score, unless evicting where the state lies is much sooner than any free GPU."""

    scored: Scored
    eviction: EvictionPolicy

    def place(self, want: Want, view: ClusterView, rng: Generator) -> Place | Defer:
        """Return the soonest free GPUs, or defer to what beats them: an eviction, or a return."""
        if _returns(want, view):
            return _RETURNING
        free = self.scored.place(want, view, rng)
        if isinstance(free, Defer) or want.node >= 0:
            return free
        alone = view.node_restore_ns(want.function) / NS_PER_S
        here = _ready_on_s(free.gpus[0], alone, view)
        if here <= WORTH * (1.0 + float(alone.min())):
            return free  # Nobody can be ready much sooner, whoever leaves.
        ready = _ready_s(want.function, view)
        if here <= WORTH * (1.0 + float(ready[view.eligible(want)].min())):
            return free
        plan = self.eviction.evict(want, view, rng)
        gpus = plan.gpus if isinstance(plan, Evict) else ()
        if gpus and here > WORTH * (1.0 + float(ready[gpus[0]])):
            return Defer("sooner behind a victim")
        return free

    def explain(self, want: Want, view: ClusterView) -> Explanation:
        """Say how free GPUs scored."""
        return self.scored.explain(want, view)


@dataclass(frozen=True, slots=True)
class HoldWhileAsked:
    """Holds a pod for a few of its function's gaps; for longer while nobody needs the room."""

    gaps: float
    pause_s: float
    least_s: float
    most_s: float
    headroom: float

    def retain(self, function: FunctionId, at: Tier, view: ClusterView) -> Retain:
        """Return the hold, and host memory or disk as what comes after it."""
        rate = view.arrivals_per_s(function)
        worth_s = self.gaps / rate if rate > 0 else self.most_s
        if at is Tier.HBM:
            # The fewer GPUs are free, the sooner a function must be expected back to be held: a
            # start then finds room at once instead of waiting for a victim to leave.
            plenty = max(0.0, view.gpu_free_share - self.headroom) / self.headroom
            room_s = self.most_s * plenty**2
            if plenty >= 1.0 or worth_s <= room_s:
                hold_s = room_s
            else:
                hold_s = worth_s if worth_s <= self.least_s else 0.0
            hold_s = max(hold_s, self.pause_s)
            below = Tier.DRAM if view.host_free_share > RESERVE else Tier.NVME
            return Retain(int(hold_s * NS_PER_S), below)
        if view.host_free_share > 2 * RESERVE:
            # While host memory is plentiful a suspended pod costs nothing that anybody wants.
            return Retain(FOREVER_NS, Tier.NVME)
        hold_s = min(10.0 * max(worth_s, self.most_s), 86_400.0)
        return Retain(int(hold_s * NS_PER_S), Tier.NVME)


@dataclass(frozen=True, slots=True)
class PopularFirst:
    """Keeps the functions that are asked for most in host memory.

    What a suspended pod saves, the way from disk instead of from memory, grows with its bytes as
    does the room that it takes: the value of a byte is the rate of arrivals, and that ranks.
    """

    moves: int

    def promote(self, view: ClusterView, rng: Generator) -> Sequence[Promote | Demote]:
        """Return demotions where memory runs short, and the few most valuable promotions."""
        functions, nodes, pods = view.functions, view.nodes, view.pods
        rate = functions.arrivals_per_s
        need = functions.host_bytes + functions.device_bytes
        reserve = RESERVE * nodes.host_bytes_total
        spare = nodes.host_bytes_free - reserve
        rows = np.flatnonzero(pods.standby)
        rows = rows[np.argsort(rate[pods.function[rows]], kind="stable")]
        moves: list[Promote | Demote] = []
        for row in rows.tolist():
            node = int(pods.node[row])
            if spare[node] < 0:
                moves.append(Demote(FunctionId(int(pods.function[row])), NodeId(node), Tier.DRAM))
                spare[node] += int(pods.host_bytes[row])
        away = np.flatnonzero(functions.ready + functions.starting + functions.standby == 0)
        away = away[rate[away] > 0]
        order = away[np.argsort(-rate[away], kind="stable")][: 4 * self.moves]
        quiet = (_busy_starts(view) == 0) & nodes.schedulable
        left = self.moves
        for f in order.tolist():
            if not left or not quiet.any():
                break
            function = FunctionId(f)
            tiers = view.node_tier(function)
            ok = quiet & (tiers >= int(Tier.REMOTE)) & (spare >= need[f] + reserve)
            if not ok.any():
                moves += self._displace(f, view, rate, rows, quiet & (tiers >= int(Tier.NVME)))
                left -= 1
                continue
            node = int(np.lexsort((-spare, -tiers, ~ok))[0])
            spare[node] -= need[f]
            quiet[node] = False
            left -= 1
            moves.append(Promote(function, NodeId(node), Tier.DRAM))
        return moves

    def _displace(
        self, function: int, view: ClusterView, rate: F64, rows: np.ndarray, where: Bool
    ) -> list[Demote]:
        """Make room for a function that is asked for much more than one that is there."""
        pods = view.pods
        for row in rows.tolist():
            there, node = int(pods.function[row]), int(pods.node[row])
            if rate[function] < 2.0 * rate[there]:
                return []
            if where[node]:
                return [Demote(FunctionId(there), NodeId(node), Tier.DRAM)]
        return []


def bundle(
    gaps: float = 2.0,
    pause_s: float = 10.0,
    least_s: float = 60.0,
    most_s: float = 300.0,
    headroom: float = 0.15,
    patience_s: float = 60.0,
    moves: int = 4,
) -> PolicyBundle:
    """Return the bundle.

    Args:
        gaps: How many mean gaps of its function an idle pod is worth holding for.
        pause_s: Every idle pod is held that long: a spell's next request mostly comes sooner.
        least_s: A hold that short is granted however scarce GPUs are.
        most_s: The longest hold while twice the headroom is free.
        headroom: Share of the GPUs below which only `least_s` is granted.
        patience_s: How long a pod may be wanted before busy ones are drained for it.
        moves: Promotions a control period.
    """
    if not gaps > 0:
        raise ValueError(f"gaps is {gaps:g}; expected above 0")
    if not 0 <= pause_s <= MOST_S:
        raise ValueError(f"pause_s is {pause_s:g}; expected seconds, 0 to a year")
    if not 0 <= least_s <= most_s <= MOST_S:
        told = f"least_s is {least_s:g}, most_s {most_s:g}"
        raise ValueError(f"{told}; expected 0 <= least_s <= most_s, at most a year")
    if not 0 < headroom < 1:
        raise ValueError(f"headroom is {headroom:g}; expected above 0, below 1")
    if not 0 <= patience_s <= 1e9:
        raise ValueError(f"patience_s is {patience_s:g}; expected seconds, 0 to 1e9")
    if not 0 <= moves <= 1_000:
        raise ValueError(f"moves is {moves}; expected 0 to 1000")
    eviction = SwapOut(RankedEviction(LeastRegret(), Tier.DRAM))
    scored = Scored((("soonest ready", 1.0, SoonestReady()), ("best fit", 0.05, BestFit())))
    return PolicyBundle(
        name="default",
        admission=AdmitAll(),
        routing=LeastOutstanding(),
        placement=PlaceOrEvict(scored, eviction),
        eviction=eviction,
        keep_alive=HoldWhileAsked(gaps, pause_s, least_s, most_s, headroom),
        prewarm=PopularFirst(moves),
        scaling=OnDemand(),
        snapshots=True,
        mechanism="snapshot",
        whole_gpus=False,
        control_period_ns=20 * NS_PER_S,
        settle_ns=40 * NS_PER_S,
        patience_ns=int(patience_s * NS_PER_S),
    )
