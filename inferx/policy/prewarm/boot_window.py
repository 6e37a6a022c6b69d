"""Prewarms a function if its next request is likely enough to come while it would start. Ours.

Of a function that is not up, with silence s since its last request, start-up time t and hold h of
keep-alive, from the gaps G between its requests that were seen:
    saved:  P(G <= s + t | G > s) * t * cold      somebody would have waited for the start
    spent:  E[min(G - s, h) | G > s] * hold       the pod stands idle until it is used or let go
It is brought up where more is saved than spent, the most first. `cold` is the price of a second of
waiting, `hold` of a second of a pod. Fixed pauses, histograms' percentiles and rate thresholds are
special cases: they differ in what they take the law of the gaps to be.

Gaps are counted in bins that grow by a third, and are taken to lie evenly in each. Fewer than
`least` of them tell nothing, and neither does a silence longer than all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator

from inferx.core.events import LoadReported
from inferx.policy import F64, I64, NS_PER_S, ClusterView, Demote, PolicyBundle, Promote, plain
from inferx.policy.parts.bringing import bring_up
from inferx.policy.parts.start_times import StartTimes

__all__ = ["EDGES", "BootWindow", "bundle", "law", "odds"]

EDGES: F64 = np.concatenate(((0.0,), 10.0 ** (np.arange(41) / 8.0)))
"""Bounds of the bins in seconds: under one, then eight a decade up to 28 hours."""


def law(counts: F64) -> tuple[F64, F64]:
    """Return how many gaps exceed each of `EDGES`, and the integral of that up to each.

    Args:
        counts: Gaps seen in each bin. Shape (functions, bins).

    Returns:
        Two arrays of shape (functions, bins + 1).
    """
    rows, bins = counts.shape
    tail = np.zeros((rows, bins + 1))
    tail[:, :-1] = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
    area = np.zeros((rows, bins + 1))
    np.cumsum((tail[:, 1:] + tail[:, :-1]) / 2 * np.diff(EDGES), axis=1, out=area[:, 1:])
    return tail, area


def odds(
    tail: F64, area: F64, rows: I64, silence_s: F64, start_s: F64, hold_s: float
) -> tuple[F64, F64]:
    """Return the chance of a request during a start, and how long a pod would be held.

    Args:
        tail: As `law` returns it.
        area: As `law` returns it.
        rows: The functions asked about.
        silence_s: Time since the last request, at least 0. Shape (rows,).
        start_s: Start-up time, at least 0. Shape (rows,).
        hold_s: When an idle pod is let go.

    Returns:
        P(G <= s + t | G > s) and E[min(G - s, h) | G > s], shapes (rows,); both 0 where no gap seen
        is longer than the silence.
    """

    def at(x: F64) -> tuple[F64, F64]:
        """Return how many gaps exceed x, and the integral of that from nought to x."""
        x = np.minimum(x, EDGES[-1])
        left = _bin(x)
        into = x - EDGES[left]
        here, there = tail[rows, left], tail[rows, left + 1]
        longer = here + (there - here) * into / (EDGES[left + 1] - EDGES[left])
        return longer, area[rows, left] + into * (here + longer) / 2

    longer, so_far = at(silence_s)
    after, _ = at(silence_s + start_s)
    _, held = at(silence_s + hold_s)
    some = longer > 0
    given = np.where(some, longer, 1.0)
    return np.where(some, (longer - after) / given, 0.0), np.where(some, (held - so_far) / given, 0)


@dataclass(slots=True)
class BootWindow:
    """Brings a function up when a request is likely to come within its start-up time."""

    cold: float
    hold: float
    hold_s: float
    least: int
    moves: int
    start: StartTimes
    _gaps: F64 = field(default_factory=lambda: np.zeros((0, len(EDGES) - 1)))
    """Gaps seen of each length. Shape (functions, bins)."""
    _tail: F64 = field(default_factory=lambda: np.zeros((0, len(EDGES))))
    _area: F64 = field(default_factory=lambda: np.zeros((0, len(EDGES))))
    """Their `law`, kept up as they come."""
    _last_ns: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    """When each function was last asked for; -1 if never."""

    def _grow(self, functions: int) -> None:
        more = functions - len(self._last_ns)
        if more > 0:
            self._gaps = np.vstack((self._gaps, np.zeros((more, len(EDGES) - 1))))
            self._tail = np.vstack((self._tail, np.zeros((more, len(EDGES)))))
            self._area = np.vstack((self._area, np.zeros((more, len(EDGES)))))
            self._last_ns = np.append(self._last_ns, np.full(more, -1))

    def observe(self, now_ns: int, event: object) -> None:
        """Learn the gaps from load reports: within one, arrivals are taken to come evenly."""
        if not isinstance(event, LoadReported) or not event.functions:
            return
        self._grow(max(event.functions) + 1)
        came = np.array(event.arrivals)
        asked = came > 0
        f, came = np.array(event.functions)[asked], came[asked]
        known = self._last_ns[f] >= 0
        gap_s = (now_ns - self._last_ns[f[known]]) / NS_PER_S
        self._gaps[f[known], _bin(gap_s)] += 1
        within_s = event.window_ns / NS_PER_S / np.maximum(came, 1)
        self._gaps[f, _bin(within_s)] += came - 1
        self._last_ns[f] = now_ns
        self._tail[f], self._area[f] = law(self._gaps[f])

    def worth(self, view: ClusterView) -> F64:
        """Return what a pod would save less what it would cost; -inf where it is not asked.

        Shape (functions,).
        """
        functions = len(view.functions.specs)
        self._grow(functions)
        table = view.functions
        start_s = self.start.look(view)
        told = self._tail[:, 0] >= self.least
        rows = np.flatnonzero(told & (table.ready + table.starting == 0))
        worth = np.full(functions, -np.inf)
        if len(rows):
            silence_s = (view.now_ns - self._last_ns[rows]) / NS_PER_S
            chance, held_s = odds(
                self._tail, self._area, rows, silence_s, start_s[rows], self.hold_s
            )
            worth[rows] = chance * start_s[rows] * self.cold - held_s * self.hold
        return worth

    def promote(self, view: ClusterView, rng: Generator) -> Sequence[Promote | Demote]:
        """Return a promotion to HBM for each function that is worth it, the most first."""
        worth = self.worth(view)
        rows = np.flatnonzero(worth > 0)
        order = rows[np.argsort(-worth[rows], kind="stable")]
        return bring_up(order.tolist(), view, moves=self.moves)


def _bin(gap_s: F64) -> I64:
    at: I64 = np.minimum(np.searchsorted(EDGES, gap_s, side="right") - 1, len(EDGES) - 2)
    return at


def bundle(
    cold: float = 1.0,
    hold: float = 0.1,
    hold_s: float = 60.0,
    least: int = 3,
    moves: int = 4,
    period_s: float = 2.0,
    settle_s: float = 3_600.0,
) -> PolicyBundle:
    """Return the bundle.

    Args:
        cold: Price of a second that a request waits for a start, above 0.
        hold: Price of a second that a pod stands idle, above 0.
        hold_s: When keep-alive lets an idle pod go, above 0, at most a day.
        least: Gaps that must have been seen, 1 to 1,000,000.
        moves: Promotions a period, 0 to 1,000.
        period_s: Time between decisions, 0.1 to 3,600.
        settle_s: How long after the last event it still decides, 0 to 1,000,000.

    Raises:
        ValueError: A setting is out of its range.
    """
    for name, price in (("cold", cold), ("hold", hold)):
        if not 0 < price <= 1e9:
            raise ValueError(f"{name} is {price:g}; expected above 0, at most 1e9")
    if not 0 < hold_s <= 86_400:
        raise ValueError(f"hold_s is {hold_s:g}; expected above 0, at most 86400")
    if not 1 <= least <= 1_000_000:
        raise ValueError(f"least is {least}; expected 1 to 1000000")
    if not 0 <= moves <= 1_000:
        raise ValueError(f"moves is {moves}; expected 0 to 1000")
    if not 0.1 <= period_s <= 3_600:
        raise ValueError(f"period_s is {period_s:g}; expected 0.1 to 3600")
    if not 0 <= settle_s <= 1e6:
        raise ValueError(f"settle_s is {settle_s:g}; expected 0 to 1000000")
    prewarm = BootWindow(cold, hold, hold_s, least, moves, StartTimes())
    return replace(
        plain.bundle(),
        name="boot-window",
        prewarm=prewarm,
        observers=(prewarm,),
        control_period_ns=int(period_s * NS_PER_S),
        settle_ns=int(settle_s * NS_PER_S),
    )
