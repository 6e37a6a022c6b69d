"""Copies in host memory, bought and sold at what they save and cost in waiting. Ours."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

from inferx.policy import (
    F64,
    I64,
    NS_PER_S,
    Bool,
    ClusterView,
    Demote,
    FunctionId,
    NodeId,
    PodState,
    Promote,
    Tier,
)
from inferx.policy.parts.waiting import (
    RARELY_PER_S,
    copying,
    far_s,
    saved_s,
    starts_s,
)

__all__ = ["RESERVE", "HostMemoryMarket"]

COPY_AGAIN = 0.3
"""What one more copy in host memory is worth, of the one before: the chance that it is needed."""
MOVES = 24
"""Copies looked at a period: what keeps the decision under a millisecond on a large cluster."""
LOOK_AGAIN_NS = 60 * NS_PER_S
"""Rates change slowly: where nothing else changed, the market is looked at again so often."""
RESERVE = 0.05
"""Share of host memory that copies leave to live pods."""
MOST_FAILURES = 16
"""Copies that failed in a row after which the wait no longer grows: 18 hours."""
SWAP = 2.0
"""A copy displaces another only if it is worth this many times more: moves cost, too."""


@dataclass(slots=True)
class HostMemoryMarket:
    """Fills host memory with the copies that are worth their bytes; the least worth make room.

    Attributes:
        lanes: Copies under way on a node at once, at most.
        outlook_s: How long a copy is expected to stay.
        waits: Chance that somebody waits for the link that a copy comes over.
    """

    lanes: int
    outlook_s: float
    waits: float
    _settled: tuple[int, bytes, bytes] | None = None
    """When nothing was worth moving, and what memory and copies were then."""
    _asked: list[int] = field(default_factory=list[int])
    """Functions that copies were asked for last time."""
    _failed: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    """How often in a row each function's copy did not come: some mechanisms cannot make any."""
    _not_before_ns: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    """When each function's copy is asked for again."""

    def promote(self, view: ClusterView, rng: Generator) -> Sequence[Promote | Demote]:
        """Return demotions where memory runs short, and the promotions worth their bytes."""
        now = view.now_ns // LOOK_AGAIN_NS
        held = view.nodes.host_bytes_free.tobytes(), view.functions.standby.tobytes()
        if self._settled == (now, *held):
            return ()
        moves = self._trade(view)
        self._settled = None if moves else (now, *held)
        return moves

    def _trade(self, view: ClusterView) -> list[Promote | Demote]:
        functions, nodes, pods = view.functions, view.nodes, view.pods
        rate = np.maximum(functions.arrivals_per_s, RARELY_PER_S)
        near, far = starts_s(view, Tier.DRAM), far_s(view)
        saved = saved_s(rate, near, far)
        need = functions.host_bytes + functions.device_bytes
        density = saved / np.maximum(need, 1)
        copies = view.functions.copies.astype(np.int64)
        # A pod on a GPU is its function's copy, too: it can be suspended.
        held = copies + (functions.ready + functions.starting > 0)
        # Of several copies of a function, the last one is what a byte is sold for.
        density *= COPY_AGAIN ** np.maximum(held - 1.0, 0.0)
        spare = nodes.host_bytes_free - RESERVE * nodes.host_bytes_total
        moves: list[Promote | Demote] = []
        short = spare < 0
        if short.any():
            rows = np.flatnonzero(pods.standby)
            for gone, node, held_bytes in _cheapest(rows[short[pods.node[rows]]], view, density):
                if spare[node] < 0:
                    moves.append(Demote(FunctionId(gone), NodeId(node), Tier.DRAM))
                    spare[node] += held_bytes
        coming = copying(view)
        lanes = self.lanes - np.bincount(pods.node[coming], minlength=len(spare))
        lanes[~nodes.schedulable] = 0
        benefit = saved * self.outlook_s * COPY_AGAIN ** held.astype(np.float64)
        # Seconds that others wait for the bytes on the link: about as long as reading them takes.
        worth_it = (benefit > self.waits * far) & (copies < len(spare))
        self._learn_failures(copies, view.now_ns)
        worth_it &= view.now_ns >= self._not_before_ns
        largest = spare.max(where=lanes > 0, initial=0)
        # Most passes find memory full: then only those without any copy are looked at.
        some = np.flatnonzero(worth_it & ((need <= largest) | (copies == 0)))
        order = some[np.argsort(-(benefit / np.maximum(need, 1))[some], kind="stable")]
        displaced = False
        there = np.flatnonzero(pods.standby | coming)
        whose, where = pods.function[there], pods.node[there]
        free, somewhere = lanes > 0, int(Tier.REMOTE)
        for f in order[:MOVES].tolist():
            function = FunctionId(f)
            tiers = view.node_tier(function)
            ok = free & (tiers >= somewhere)
            if copies[f]:
                ok[where[whose == f]] = False
            fits = ok & (spare >= need[f])
            nearest = tiers.max(where=fits, initial=0)
            if nearest >= somewhere:
                node = int(np.where(fits & (tiers == nearest), spare, -np.inf).argmax())
                spare[node] -= need[f]
                lanes[node] -= 1
                free[node] = lanes[node] > 0
                moves.append(Promote(function, NodeId(node), Tier.DRAM))
                self._asked.append(f)
            elif not held[f] and not displaced:
                displaced = True
                moves += self._displaced(f, view, density, ok, need[f] - spare)
        return moves

    def _learn_failures(self, copies: I64, now_ns: int) -> None:
        """Wait twice as long each time that a copy which was asked for is not there."""
        more = len(copies) - len(self._failed)
        if more > 0:
            self._failed = np.append(self._failed, np.zeros(more, np.int64))
            self._not_before_ns = np.append(self._not_before_ns, np.zeros(more, np.int64))
        asked = np.array(self._asked, np.int64)
        came = copies[asked] > 0
        failed = np.minimum(self._failed[asked] + 1, MOST_FAILURES)
        self._failed[asked] = np.where(came, 0, failed)
        self._not_before_ns[asked] = np.where(came, 0, now_ns + NS_PER_S * 2**failed)
        self._asked.clear()

    def _displaced(
        self, function: int, view: ClusterView, density: F64, where: Bool, lack: F64
    ) -> list[Demote]:
        """Make room for a function that has no copy and is worth much more than those that have.

        On the first node where enough leave; none where some already do, for it may be for this.
        """
        pods = view.pods
        where = where.copy()
        where[pods.node[pods.state == PodState.TERMINATING]] = False
        rows = np.flatnonzero(pods.standby)
        less = SWAP * density[pods.function[rows]] <= density[function]
        rows = rows[less & where[pods.node[rows]]]
        lack = lack.copy()
        leaving: dict[int, list[Demote]] = {}
        for gone, node, held_bytes in _cheapest(rows, view, density):
            move = Demote(FunctionId(gone), NodeId(node), Tier.DRAM)
            leaving.setdefault(node, []).append(move)
            lack[node] -= held_bytes
            if lack[node] <= 0:
                return leaving[node]
        return []


def _cheapest(rows: I64, view: ClusterView, density: F64) -> Iterable[tuple[int, int, int]]:
    """Return suspended pods' function, node and host memory, the least worth of a byte first."""
    pods = view.pods
    rows = rows[np.argsort(density[pods.function[rows]], kind="stable")]
    columns = (pods.function[rows], pods.node[rows], pods.host_bytes[rows])
    return zip(*(column.tolist() for column in columns), strict=True)
