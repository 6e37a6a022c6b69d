"""Pods and leases as the scheduler knows them: one by one, and as columns for scans."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferx.core.lifecycle import PodState
from inferx.core.types import (
    I32,
    I64,
    NO_POD,
    Bool,
    FunctionId,
    GpuId,
    LeaseId,
    NodeId,
    PodId,
    RouterId,
    Tier,
)

__all__ = ["Lease", "Pod", "PodColumns"]

MAX_GPUS_PER_POD = 8


@dataclass(slots=True)
class Lease:
    """A router's right to `slots` slots of a pod."""

    id: LeaseId
    router: RouterId
    pod: PodId
    slots: int


@dataclass(slots=True)
class Pod:
    """One pod. `row` is its row in the columns; it moves when they are compacted."""

    id: PodId
    function: FunctionId
    node: NodeId
    gpus: tuple[GpuId, ...]
    state: PodState
    row: int
    host_charged: int = 0
    holds_gpu: bool = False
    claims: bool = False
    start: Tier = Tier.ABSENT
    """Where the state of its last start came from; ABSENT is a cold start."""
    started_ns: int = 0
    ready_ns: int = 0
    idle_since_ns: int = 0
    hold: int = 0
    """Token of the hold in force: an older timer finds another number and does nothing."""
    waits_for: dict[PodId, None] = field(default_factory=dict[PodId, None])
    blocks: PodId = NO_POD
    """The pod that waits for this one to leave."""
    leases: dict[LeaseId, Lease] = field(default_factory=dict[LeaseId, Lease])
    leased_slots: int = 0
    sink_to: Tier = Tier.HBM
    """Where it goes when drained; HBM while it is not leaving."""
    prewarmed: bool = False
    bakes: bool = False
    """It was started only to be snapshotted."""
    found: bool = False
    """An older leader began something with it that its node has not told the end of."""
    ends: bool = False
    """It is to end as soon as nothing is being done to it."""
    copied: bool = False
    """It is counted as a copy of its function in host memory."""
    keeps_local: bool = False
    """Its restore from the shared store leaves a copy on the node's disk, charged already."""


class PodColumns:
    """The pods as columns, in pod order. Rows of pods that are gone stay, unset, until compaction.

    Columns grow by doubling; a row is written when its pod changes state, never per request.

    Attributes:
        seen: The same columns by name, not to be written to.
    """

    __slots__ = (
        "count",
        "dead",
        "function",
        "gpu",
        "hbm_bytes",
        "host_bytes",
        "id",
        "idle",
        "idle_since_ns",
        "leased_slots",
        "milli_gpu",
        "node",
        "ready_ns",
        "seen",
        "state",
    )

    def __init__(self, capacity: int = 64) -> None:
        self.count = 0
        self.dead = 0
        self.id: I64 = np.full(capacity, -1, np.int64)
        self.function: I32 = np.full(capacity, -1, np.int32)
        self.node: I32 = np.full(capacity, -1, np.int32)
        self.gpu: I32 = np.full((capacity, MAX_GPUS_PER_POD), -1, np.int32)
        self.milli_gpu: I32 = np.zeros(capacity, np.int32)
        self.hbm_bytes: I64 = np.zeros(capacity, np.int64)
        self.host_bytes: I64 = np.zeros(capacity, np.int64)
        self.state: I32 = np.full(capacity, int(PodState.GONE), np.int32)
        self.idle: Bool = np.zeros(capacity, np.bool_)
        self.idle_since_ns: I64 = np.zeros(capacity, np.int64)
        self.ready_ns: I64 = np.zeros(capacity, np.int64)
        self.leased_slots: I32 = np.zeros(capacity, np.int32)
        self.seen: dict[str, NDArray[Any]] = {}
        self._show()

    def _columns(self) -> tuple[str, ...]:
        return tuple(name for name in self.__slots__ if name not in {"count", "dead", "seen"})

    def _show(self) -> None:
        for name in self._columns():
            self.seen[name] = column = getattr(self, name).view()
            column.flags.writeable = False

    def add(self) -> int:
        """Return the number of a new row."""
        row = self.count
        if row == len(self.id):
            for name in self._columns():
                old = getattr(self, name)
                grown = np.zeros((2 * len(old), *old.shape[1:]), old.dtype)
                grown[: len(old)] = old
                setattr(self, name, grown)
            self._show()
        self.count += 1
        return row

    def drop(self, row: int) -> None:
        """Unset a row."""
        self.id[row] = -1
        self.state[row] = int(PodState.GONE)
        self.idle[row] = False
        self.hbm_bytes[row] = 0
        self.host_bytes[row] = 0
        self.milli_gpu[row] = 0
        self.dead += 1

    def wants_compaction(self) -> bool:
        """Tell whether dead rows outnumber live ones."""
        return self.dead > 32 and 2 * self.dead > self.count

    def compact(self) -> I64:
        """Drop dead rows, keep the order; return the old row of each new one."""
        live = np.flatnonzero(self.id[: self.count] >= 0)
        n = len(live)
        for name in self._columns():
            column = getattr(self, name)
            column[:n] = column[live]
        self.count = n
        self.dead = 0
        return live
