"""A trace as the bounds see it: who asks when, for how long, and how fast a pod could be there."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from inferx.core.types import F64, I32, I64, Bool
from inferx.core.units import NS_PER_S
from inferx.sim.oracle.least import least_service_s, least_starts
from inferx.sim.oracle.room import Room, room_of
from inferx.sim.oracle.tiers import Tiers, tiers_of
from inferx.sim.workload.trace import Trace
from inferx.sim.world import World

__all__ = ["Cluster", "Work", "clusters", "work_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What must be done, in seconds; arrays over requests, then over functions.

    A request costs its wait, or its function's timeout if it is never served: whatever happens to
    it, at least what the bounds say.
    """

    function: I32
    arrival_s: F64
    service_s: F64
    counts: Bool
    """Whether the request's wait is part of what is bounded; the others only take room."""
    start_s: F64
    """Least start-up time of a function, from the warmest tier; at most its timeout."""
    below_s: F64
    """The same of what is not in host memory."""
    first_s: F64
    """The same of a run's first start, from the beginning of the trace."""
    prepared: bool
    """Whether snapshots are there then: they may be copied nearer before anybody asks."""
    timeout_s: F64
    never: Bool
    """Whether no node could ever hold the function: its requests time out."""
    room: Room
    tiers: Tiers

    @property
    def counted_from_s(self) -> float:
        """When the first request that counts arrives; infinite where none does."""
        return float(self.arrival_s[self.counts].min(initial=math.inf))

    def first_starts_s(self) -> F64:
        """Return what each request costs at least, since nothing was started before the trace.

        Shape (requests,).
        """
        least = np.clip(self.first_s[self.function] - self.arrival_s, 0.0, None)
        costs: F64 = np.where(self.never[self.function], self.timeout_s[self.function], least)
        return costs


@dataclass(frozen=True, slots=True)
class Cluster:
    """Requests of one function, each within a start-up time of the first: one cold start's.

    If the first finds no pod that is ready or on its way, all of them wait for the same start, so
    what counts is that one decision.
    """

    function: int
    requests: I64
    """Rows, in order of arrival; the first is the leader."""
    last_before: int
    """The function's request before the leader; -1 for none."""
    covered_s: float
    """Until when earlier requests, served on arrival, keep a pod busy; 0 where none came."""


def work_of(trace: Trace, world: World, *, warmup_ns: int = 0) -> Work:
    """Return a trace's work in a world. Cost: O(requests + functions * kinds of nodes)."""
    starts = least_starts(world)
    room = room_of(world.functions, world.nodes)
    timeout_s = np.array([f.queue_timeout_ns for f in world.functions], np.float64) / NS_PER_S
    return Work(
        function=np.asarray(trace.function),
        arrival_s=trace.arrival_ns.astype(np.float64) / NS_PER_S,
        service_s=least_service_s(trace, world.functions, world.nodes, world.profile),
        counts=np.asarray(trace.arrival_ns >= warmup_ns),
        start_s=np.minimum(starts.any_s, timeout_s),
        below_s=np.minimum(starts.below_s, timeout_s),
        first_s=np.minimum(starts.first_s, timeout_s),
        prepared=world.prepared != "none",
        timeout_s=timeout_s,
        never=np.isinf(starts.any_s),
        room=room,
        tiers=tiers_of(world.functions, world.nodes, room),
    )


def clusters(work: Work) -> Iterator[Cluster]:
    """Yield the clusters, function by function. Cost: O(requests log requests)."""
    order = np.argsort(work.function, kind="stable")
    bounds = np.searchsorted(work.function[order], np.arange(len(work.start_s) + 1))
    for function, (low, high) in enumerate(pairwise(bounds.tolist())):
        rows = order[low:high]
        at = work.arrival_s[rows]
        # Until when those up to each request keep a pod busy.
        busy = np.maximum.accumulate(at + work.service_s[rows])
        begin, start_s = 0, float(work.start_s[function])
        while begin < len(rows):
            end = max(begin + 1, int(np.searchsorted(at, at[begin] + start_s)))
            last = int(rows[begin - 1]) if begin else -1
            yield Cluster(function, rows[begin:end], last, float(busy[begin - 1]) if begin else 0.0)
            begin = end
