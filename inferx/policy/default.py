"""Ours: everything is bought and sold in one currency, the seconds that requests wait.

docs/default.md derives it. A function that is asked for `r` times a second and takes `t` seconds to
start makes those who come meanwhile wait `t + r t^2 / 2` in all. From that follow:

- *The worth of a state* is what it saves of it each second: in GPU memory against host memory, in
  host memory against the disk.
- *The price of a byte* is the worth of what must leave for it: nothing while there is room. So an
  idle pod stays until somebody else's need is worth more, and host memory is filled with whatever
  may be asked for.
- *Where a pod starts* is where waiting costs least, the start itself and the victims' absence
  together: the free GPU or the one behind a victim, whichever is cheaper.
- *How a victim leaves*: a pod is killed, not suspended, when its state lies ready in host memory or
  will be back from disk before it is likely to be asked for: nobody then waits for its bytes.
- *What moves without a request*: copies into host memory, as long as what one saves is worth the
  bytes on the links; and pods off their GPUs, as long as an empty place there saves more.

A pod that has been wanted for longer than `patience_s` gets room by draining the least busy pods.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from inferx.policy import (
    F64,
    FOREVER_NS,
    I64,
    NS_PER_S,
    ClusterView,
    Defer,
    Demote,
    Evict,
    Explanation,
    FunctionId,
    GpuId,
    Place,
    PodId,
    PolicyBundle,
    Promote,
    Retain,
    Tier,
    Want,
)
from inferx.policy.basics import AdmitAll, LeastOutstanding, OnDemand
from inferx.policy.compose import BestFit, RankedEviction, Scored
from inferx.policy.parts.host_market import HostMemoryMarket
from inferx.policy.parts.host_memory import host_spare
from inferx.policy.parts.room_ahead import RoomAhead
from inferx.policy.parts.waiting import (
    KILL_S,
    RARELY_PER_S,
    comes_back,
    far_s,
    ready_s,
    waiting_s,
)

__all__ = [
    "AheadOfRequests",
    "CheapestRoom",
    "PlaceOrEvict",
    "SoonestReady",
    "UntilWanted",
    "Worth",
    "bundle",
]

_YEAR_S = 366 * 86_400.0

_NO_HOST_MEMORY = Defer("no host memory")
_COMES_BACK = Defer("a pod comes back")


@dataclass(frozen=True, slots=True)
class SoonestReady:
    """Prefers the GPU on which the pod is ready soonest."""

    def score(self, want: Want, view: ClusterView) -> F64:
        """Return the least time to ready over the GPU's. Shape (gpus,), in [0, 1] where it fits.

        A ratio, for what counts is how many times later: on a scale of seconds all GPUs would look
        alike to a start that takes a minute, and it would queue behind others on the fullest.
        """
        ready = np.maximum(ready_s(want.function, view), 1e-9)
        best = float(ready.min(where=view.fits(want), initial=np.inf))
        if best == np.inf:
            return np.zeros(len(ready))
        score: F64 = np.minimum(1.0, best / ready)
        return score


@dataclass(frozen=True, slots=True)
class Worth:
    """What pods are worth where they are, in seconds of waiting.

    Attributes:
        outlook_s: How long the loser of a place would have kept it.
    """

    outlook_s: float

    def losses_s(self, view: ClusterView, rows: I64) -> tuple[F64, F64]:
        """Return what pods' leaving their GPUs costs if they are killed, and if suspended.

        A suspended one costs whoever waits for its room the way of its bytes as well; that way is
        as long as the way back. Shape of `rows`, which are rows of `view.pods`, each.
        """
        pods, functions = view.pods, view.functions
        function = pods.function.take(rows)
        rate = np.maximum(functions.arrivals_per_s.take(function), RARELY_PER_S)
        near = view.best_starts_ns(Tier.DRAM).take(function) / NS_PER_S
        far, nearby = far_s(view, function), waiting_s(rate, near)
        killed = self.outlook_s * (rate * nearby)
        suspended = killed + near
        # A killed pod without a copy comes from disk until one was made; that takes about twice
        # as long as it takes to read it.
        copied = functions.copies.take(function) > 0
        exposed_s = np.where(copied, 0.0, np.minimum(2.0 * far, self.outlook_s))
        killed += exposed_s * (rate * np.maximum(waiting_s(rate, far) - nearby, 0.0))
        # Without a snapshot on its node's disk one is taken first, and that takes longer still.
        killed += np.where(view.nodes.snapshots[pods.node.take(rows), function], 0.0, far)
        return killed, suspended

    def cost(self, view: ClusterView) -> F64:
        """Return what each pod's leaving costs, the cheaper way; above 0.

        Infinite for those that their function is promised. Shape (rows of view.pods,).
        """
        rows = np.arange(len(view.pods.id))
        return self.least_s(view, rows, *self.losses_s(view, rows))

    def least_s(self, view: ClusterView, rows: I64, killed: F64, suspended: F64) -> F64:
        """Return the same of some pods, whose losses are known. Shape of `rows`."""
        pods, functions = view.pods, view.functions
        # Of equal pods, the one idle longest goes.
        idle_s = np.maximum(view.now_ns - pods.idle_since_ns.take(rows), 0) / NS_PER_S
        cost: F64 = np.minimum(killed, suspended) * (1.0 - 1e-6 * idle_s / (1.0 + idle_s))
        promised = functions.ready <= functions.min_replica
        cost[promised.take(pods.function.take(rows))] = np.inf
        return cost


class Room(NamedTuple):
    """A GPU and who leaves it for a pod of one GPU.

    Attributes:
        cost_s: What that costs, the start included.
        gpu: The GPU.
        victims: Rows of `view.pods`.
        killed_s: What each victim costs if it is killed.
        suspended_s: And if it is suspended.
    """

    cost_s: float
    gpu: int
    victims: I64
    killed_s: F64
    suspended_s: F64


@dataclass(frozen=True, slots=True)
class CheapestRoom:
    """Takes the GPU where the start and the victims' absence together cost the least waiting."""

    worth: Worth

    def cheapest(self, want: Want, view: ClusterView) -> Room | None:
        """Return what costs least; None where no idle pods suffice.

        For a pod of one GPU. On each GPU victims go by their worth a share of the GPU, until there
        is room; or the one that suffices alone, if that is cheaper. One that takes several GPUs is
        a victim on each of them, at its whole worth.
        """
        pods, gpus = view.pods, view.gpus
        idle = pods.idle.nonzero()[0]
        held = pods.gpu.take(idle, axis=0)
        slices, column = (held >= 0).nonzero()
        rows, at = idle.take(slices), held[slices, column]
        ok = view.eligible(want).take(at)
        if np.count_nonzero(ok) < len(ok):
            rows, at = rows[ok], at[ok]
        killed, suspended = self.worth.losses_s(view, rows)
        cost = self.worth.least_s(view, rows, killed, suspended)
        free = np.isfinite(cost)
        if np.count_nonzero(free) < len(free):
            rows, at, cost = rows[free], at[free], cost[free]
            killed, suspended = killed[free], suspended[free]
        if not len(rows):
            return None
        # Those who are killed leave their host memory, too.
        frees = (pods.hbm_bytes.take(rows), pods.milli_gpu.take(rows), pods.host_bytes.take(rows))
        amounts = np.array((cost, *frees), np.float64)
        share = np.maximum(amounts[1] / gpus.hbm_bytes_total.take(at), amounts[2] / 1_000)
        order = np.lexsort((cost / np.maximum(share, 1e-3), at))
        at, amounts = at.take(order), amounts.take(order, axis=1)
        cost = amounts[0]
        hbm, milli = want.hbm_bytes - gpus.hbm_bytes_free, want.milli_gpu - gpus.milli_free
        host = -host_spare(want, view).take(gpus.node)
        lacks = np.array((hbm, milli, host), np.int64).take(at, axis=1)
        begin = np.arange(len(at))
        begin[1:][at[1:] == at[:-1]] = 0
        begin = np.maximum.accumulate(begin)
        total = amounts.cumsum(axis=1)
        since = total - (total - amounts).take(begin, axis=1)
        enough = np.logical_and.reduce(since[1:] >= lacks)
        alone = np.logical_and.reduce(amounts[1:] >= lacks)
        price = np.minimum(np.where(enough, since[0], np.inf), np.where(alone, cost, np.inf))
        waiting = max(1, int(view.functions.queued[want.function]))
        price += waiting * (ready_s(want.function, view).take(at) + KILL_S)
        best = int(price.argmin())
        if price[best] == np.inf:
            return None
        lone = bool(alone[best]) and cost[best] <= since[0, best]
        those = order[best if lone else begin[best] : best + 1]
        victims = (rows.take(those), killed.take(those), suspended.take(those))
        return Room(float(price[best]), int(at[best]), *victims)

    def evict(self, want: Want, view: ClusterView, rng: Generator) -> Evict | Defer:
        """Return the cheapest plan with how each victim leaves, or defer if none suffices."""
        if comes_back(want, view):
            return _COMES_BACK
        found = self.cheapest(want, view) if want.gpus == 1 else None
        if found is None:
            plan = RankedEviction(self.worth, Tier.DRAM).evict(want, view, rng)
            if isinstance(plan, Defer):
                return plan
            victims = np.flatnonzero(np.isin(view.pods.id, [pod for pod, _ in plan.victims]))
            gpus, losses = plan.gpus, self.worth.losses_s(view, victims)
        else:
            victims, losses = found.victims, (found.killed_s, found.suspended_s)
            gpus = (GpuId(found.gpu),)
        pods = view.pods
        spare = int(host_spare(want, view)[view.gpus.node[gpus[0]]])
        leave: list[tuple[PodId, Tier]] = []
        for row, killed, suspended in zip(victims.tolist(), *losses, strict=True):
            state = int(view.functions.device_bytes[pods.function[row]])
            kept = killed > suspended and spare >= state
            spare += -state if kept else int(pods.host_bytes[row])
            leave.append((PodId(int(pods.id[row])), Tier.DRAM if kept else Tier.NVME))
        return Evict(gpus, tuple(leave)) if spare >= 0 else _NO_HOST_MEMORY


@dataclass(frozen=True, slots=True)
class PlaceOrEvict:
    """Places by score, unless evicting where the state lies costs less than any free GPU."""

    scored: Scored
    room: CheapestRoom

    def place(self, want: Want, view: ClusterView, rng: Generator) -> Place | Defer:
        """Return the soonest free GPUs, or defer to what beats them: an eviction, or a return."""
        if want.node < 0 and comes_back(want, view):
            return _COMES_BACK
        free = self.scored.place(want, view, rng)
        if isinstance(free, Defer) or want.node >= 0 or want.gpus > 1:
            return free
        waiting = max(1, int(view.functions.queued[want.function]))
        here = waiting * float(ready_s(want.function, view)[free.gpus[0]])
        # No room behind a victim is ready sooner than the nearest node alone, once that has left.
        soonest_s = float(view.node_restore_ns(want.function).min()) / NS_PER_S
        if here <= waiting * (soonest_s + KILL_S):
            return free
        found = self.room.cheapest(want, view)
        if found is not None and found.cost_s < here:
            return Defer("cheaper behind a victim")
        return free

    def explain(self, want: Want, view: ClusterView) -> Explanation:
        """Say how free GPUs scored."""
        return self.scored.explain(want, view)


@dataclass(frozen=True, slots=True)
class UntilWanted:
    """Holds pods for ever: who needs their room pays for it. One that must go keeps its state near.

    It is suspended, unless a copy is in host memory already.
    """

    def retain(self, function: FunctionId, at: Tier, view: ClusterView) -> Retain:
        """Return an endless hold, and where the pod goes if its room is taken all the same."""
        if at is not Tier.HBM:
            return Retain(FOREVER_NS, Tier.ABSENT)
        copied = view.functions.standby[function] > 0
        return Retain(FOREVER_NS, Tier.NVME if copied else Tier.DRAM)


@dataclass(frozen=True, slots=True)
class AheadOfRequests:
    """What moves without a request: pods that are worth less than their place, then copies."""

    room: RoomAhead
    copies: HostMemoryMarket

    def promote(self, view: ClusterView, rng: Generator) -> Sequence[Promote | Demote]:
        """Return what to let go, and what to copy into host memory."""
        return (*self.room.moves(view), *self.copies.promote(view, rng))


def bundle(
    outlook_s: float = 60.0,
    host_outlook_s: float = 86_400.0,
    lanes: int = 8,
    waits: float = 0.05,
    patience_s: float = 60.0,
    period_s: float = 1.0,
) -> PolicyBundle:
    """Return the bundle.

    Args:
        outlook_s: How long a pod that is evicted would have stayed.
        host_outlook_s: How long a copy in host memory is expected to stay.
        lanes: Copies into the host memory of a node at once.
        waits: Chance that somebody waits for the link that a copy comes over.
        patience_s: How long a pod may be wanted before busy ones are drained for it.
        period_s: How often room is made ahead, and copies are bought and sold.

    Raises:
        ValueError: A setting is out of its range.
    """
    for name, value, least, most in (
        ("outlook_s", outlook_s, 0.0, _YEAR_S),
        ("host_outlook_s", host_outlook_s, 0.0, _YEAR_S),
        ("waits", waits, 0.0, 1.0),
        ("patience_s", patience_s, 0.0, 1e9),
        ("period_s", period_s, 0.1, 3_600.0),
    ):
        if not least <= value <= most:
            raise ValueError(f"{name} is {value:g}; expected {least:g} to {most:g}")
    if not 0 <= lanes <= 1_000:
        raise ValueError(f"lanes is {lanes}; expected 0 to 1000")
    worth = Worth(outlook_s)
    room = CheapestRoom(worth)
    scored = Scored((("soonest ready", 1.0, SoonestReady()), ("best fit", 0.05, BestFit())))
    return PolicyBundle(
        name="default",
        admission=AdmitAll(),
        routing=LeastOutstanding(),
        placement=PlaceOrEvict(scored, room),
        eviction=room,
        keep_alive=UntilWanted(),
        prewarm=AheadOfRequests(
            RoomAhead(period_s), HostMemoryMarket(lanes, host_outlook_s, waits)
        ),
        scaling=OnDemand(),
        snapshots=True,
        mechanism="snapshot",
        whole_gpus=False,
        control_period_ns=int(period_s * NS_PER_S),
        settle_ns=int(3 * period_s * NS_PER_S),
        patience_ns=int(patience_s * NS_PER_S),
    )
