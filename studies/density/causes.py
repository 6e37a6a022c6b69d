"""What a cold request waited for: its time to the first token, part by part."""

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from inferx.core.types import Tier
from inferx.core.units import NS_PER_S
from inferx.sim.record import Cause, DecisionRow, RunRecord, SpanRow
from studies.density.floors import lone_start_s
from studies.density.points import TARGET_S, Point

PARTS = ("start", "tier", "links", "room", "turn", "prefill")
"""In the order of `PART_MEANS`."""
PART_MEANS = {
    "start": "the start itself: from host memory, on idle links",
    "tier": "more because the state lay on disk, or nowhere",
    "links": "more because other copies shared the links",
    "room": "waiting for room on a GPU: for somebody to be idle, and for victims to leave",
    "turn": "waiting for another start on the same GPU to end",
    "prefill": "prefill, beside neighbours and behind earlier requests",
}
_STARTS = ("resuming", "restoring", "creating")
_LEAVES = ("suspending", "snapshotting", "terminating")
_TIER = {
    Cause.RESUME: Tier.DRAM,
    Cause.RESTORE_NVME: Tier.NVME,
    Cause.RESTORE_REMOTE: Tier.NVME,
    Cause.COLD: Tier.ABSENT,
}


@dataclass
class Attribution:
    """Seconds of each cold request's TTFT by part. Shape (cold requests, parts)."""

    seconds: np.ndarray

    @property
    def mean_s(self) -> dict[str, float]:
        """Mean seconds by part; nothing where no request was cold."""
        if not len(self.seconds):
            return {}
        return dict(zip(PARTS, self.seconds.mean(axis=0).round(4).tolist(), strict=True))

    def slow(self, bound_s: float = TARGET_S) -> dict[str, int]:
        """Count requests over the bound by main cause: the part that is largest but the start's.

        Where the start and the mean prefill alone pass the bound, the start is the cause.
        """
        over = self.seconds[self.seconds.sum(axis=1) > bound_s]
        if not len(over):
            return {}
        extra = over.copy()
        extra[:, 0] = np.where(over[:, 0] + over[:, -1] > bound_s, np.inf, -1.0)
        names = [PARTS[index] for index in extra.argmax(axis=1).tolist()]
        return {part: names.count(part) for part in PARTS if part in names}


class _Lookup:
    """Spans or decisions of a pod, by time."""

    def __init__(self) -> None:
        self.at: dict[int, list[int]] = defaultdict(list)
        self.row: dict[int, list] = defaultdict(list)

    def add(self, key: int, at_ns: int, row: object) -> None:
        """Rows of a key come in the order of time."""
        self.at[key].append(at_ns)
        self.row[key].append(row)

    def last(self, key: int, at_ns: int) -> object | None:
        """Return the key's latest row not after an instant."""
        index = bisect_right(self.at[key], at_ns) - 1
        return self.row[key][index] if index >= 0 else None


def attribute(record: RunRecord, point: Point, from_ns: int, to_ns: int) -> Attribution:
    """Take apart the TTFT of the cold requests that arrived in a window and finished."""
    q = record.requests
    lone = {t: int(s * NS_PER_S) for t, s in _lone(point).items()}
    starts, leaves, decided = _Lookup(), _Lookup(), _Lookup()
    for span in sorted(record.spans, key=lambda span: span.to_ns):
        if span.state in _STARTS:
            starts.add(span.pod, span.to_ns, span)
        elif span.state in _LEAVES:
            leaves.add(span.pod, span.to_ns, span)
    for row in record.decisions:
        if row.kind in ("place", "evict", "promote") and row.pod >= 0:
            decided.add(row.pod, row.at_ns, row)
    cold = (q.cause != Cause.WARM) & (q.finished_ns >= 0)
    cold &= (q.arrived_ns >= from_ns) & (q.arrived_ns < to_ns)
    found = np.zeros((int(cold.sum()), len(PARTS)))
    for index, i in enumerate(np.flatnonzero(cold).tolist()):
        arrived, started, first = int(q.arrived_ns[i]), int(q.started_ns[i]), int(q.first_ns[i])
        span = starts.last(int(q.pod[i]), started)
        assert isinstance(span, SpanRow)
        choice = decided.last(span.pod, span.from_ns)
        assert isinstance(choice, DecisionRow)
        gone = choice.at_ns
        for victim in choice.victims:
            left = leaves.last(victim, span.from_ns)
            gone = max(gone, left.to_ns) if isinstance(left, SpanRow) else gone
        tier = _TIER[Cause(int(q.cause[i]))]
        moving = _after(arrived, span.from_ns, span.to_ns)
        own = min(moving, lone[tier])
        found[index] = [
            min(own, lone[Tier.DRAM]),
            max(0, own - lone[Tier.DRAM]),
            moving - own,
            _after(arrived, arrived, gone),
            _after(arrived, gone, span.from_ns),
            first - max(arrived, min(span.to_ns, first)),
        ]
    return Attribution(found / NS_PER_S)


def _lone(point: Point) -> dict[Tier, float]:
    return lone_start_s(point.node, point.model, point.profile)


def _after(arrived_ns: int, from_ns: int, to_ns: int) -> int:
    """Return how much of a stretch of time a request that arrived then waited through."""
    return max(0, to_ns - max(from_ns, arrived_ns))
