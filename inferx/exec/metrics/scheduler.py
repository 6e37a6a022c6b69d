"""What a scheduler counts, over all its terms: decisions, how long they took, starts and leases."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from inferx.core.commands import Create, NodeCommand, Restore, Resume
from inferx.core.events import (
    LeaseAsked,
    NodeLost,
    PodFailed,
    PodReady,
    PodStuck,
    PodSuspended,
    SchedulerEvent,
)
from inferx.core.explain import Decision
from inferx.core.machine.fleet import START_NAME
from inferx.core.machine.step import Machine, Step
from inferx.core.types import NodeId, Tier
from inferx.core.units import NS_PER_S
from inferx.exec.metrics.families import Counts
from inferx.exec.metrics.histogram import LATENCY_S, LINEAR_S, QUICK_S, Histogram

__all__ = ["Called", "SchedulerCounts", "Timed", "called"]

COMMANDS_TIMED: Final = 10_000
"""Starts under way that are timed; of more, the oldest are not."""


class Called(NamedTuple):
    """A function's version, as metrics name it."""

    tenant: str
    namespace: str
    name: str
    version: str


@lru_cache(maxsize=1 << 14)
def called(identity: str) -> Called:
    """Return the parts of `tenant/namespace/name@version`."""
    name, _, version = identity.rpartition("@")
    tenant, namespace, function = name.split("/", 2)
    return Called(tenant, namespace, function, version)


class SchedulerCounts:
    """One scheduler's."""

    def __init__(self, policy: str) -> None:
        self.policy = policy
        self.terms = self.epoch = self.decided_count = 0
        self.decisions = Counts()
        self.deferrals = Counts()
        self.commands = Counts()
        self.kernel = Counts()
        """Of the terms that are over."""
        self.steps = {decided: Histogram(QUICK_S) for decided in ("no", "yes")}
        self.starts: dict[str, Histogram] = {
            START_NAME[tier]: Histogram(LATENCY_S) for tier in START_NAME
        }
        self.leases: dict[tuple[Called, str], int] = defaultdict(int)
        self.cold: dict[tuple[str, str, str], Histogram] = {}
        self._asked_ns: dict[int, int] = {}
        """Since when the oldest request of a function waits, by its number in this term."""
        self._under_way: dict[int, tuple[str, NodeId, int]] = {}
        """What is being started, by the command's number: from what, where, since when."""

    # -- terms ---
    def begin(self, epoch: int) -> None:
        """A term begins."""
        self.terms += 1
        self.epoch = epoch
        self._asked_ns.clear()
        self._under_way.clear()

    def end(self, kernel: Mapping[str, int]) -> None:
        """A term is over; the next one's kernel counts from zero."""
        for name, count in kernel.items():
            self.kernel.add(name, count)

    # -- what happens ---
    def decided(self, decision: Decision) -> None:
        """The machine decided something."""
        self.decided_count += 1
        self.decisions.add(decision.kind)
        if decision.kind == "defer":
            self.deferrals.add(decision.reason)

    def granted(self, function: int, identity: str, node: str, *, cold: bool, now_ns: int) -> None:
        """A gateway was leased a pod; `cold` if that was started for it."""
        one = called(identity)
        self.leases[one, node] += 1
        since_ns = self._asked_ns.get(function)
        if cold and since_ns is not None:
            histogram = self.cold.setdefault(one[:3], Histogram(LINEAR_S))
            # The gateway's clock may be another one.
            histogram.observe(max(0, now_ns - since_ns) / NS_PER_S)

    def ordered(self, command: NodeCommand, now_ns: int) -> None:
        """A node was sent a command."""
        self.commands.add(type(command).__name__.lower())
        match command:
            case Create():
                start = Tier.ABSENT
            case Restore():
                start = command.source
            case Resume():
                start = Tier.DRAM
            case _:
                return
        if len(self._under_way) >= COMMANDS_TIMED:
            del self._under_way[next(iter(self._under_way))]
        self._under_way.setdefault(command.sequence, (START_NAME[start], command.node, now_ns))

    def heard(self, event: SchedulerEvent, now_ns: int) -> None:
        """The machine is told something."""
        match event:
            case LeaseAsked():
                self._asked_ns[event.function] = event.oldest_ns
            case PodReady() | PodSuspended() | PodFailed() | PodStuck():
                timed = self._under_way.pop(event.sequence, None)
                if timed is not None and isinstance(event, PodReady | PodSuspended):
                    self.starts[timed[0]].observe((now_ns - timed[2]) / NS_PER_S)
            case NodeLost():
                # What was being started there is answered by nobody.
                for sequence, (_, where, _) in list(self._under_way.items()):
                    if where == event.node:
                        del self._under_way[sequence]
            case _:
                pass

    def forget_others(self, functions: set[Called]) -> None:
        """Drop the series of functions that are no more."""
        for key in [key for key in self.leases if key[0] not in functions]:
            del self.leases[key]
        names = {one[:3] for one in functions}
        for name in [name for name in self.cold if name not in names]:
            del self.cold[name]


class Timed:
    """A scheduler machine whose steps are timed."""

    def __init__(self, machine: Machine[Any, Any], counts: SchedulerCounts) -> None:
        self._machine = machine
        self._counts = counts

    def step(self, now_ns: int, events: Sequence[Any]) -> Step[Any]:
        """Let the machine step."""
        counts = self._counts
        before, began_ns = counts.decided_count, time.perf_counter_ns()
        step = self._machine.step(now_ns, events)
        took_s = (time.perf_counter_ns() - began_ns) / NS_PER_S
        counts.steps["yes" if counts.decided_count > before else "no"].observe(took_s)
        return step
