"""How the InferX reference keeps its accounts of GPUs: slots of memory, contexts, tokens.

Source: repository inferx-net/inferx at 875cb0f, `ixshare/src/scheduler/scheduler_handler.rs`.
Memory is counted in slots of 256 MB, rounded up for each pod; a GPU holds so many resumed contexts,
and at most one pod of several GPUs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inferx.policy import I64, MIB, Bool, ClusterView, GpuId, PodState, Want

__all__ = ["Free", "SlotBooks", "slices_of", "slots_of"]

SLOT_BYTES = 256 * MIB


_HOLDS = np.ones(len(PodState), np.bool_)
_HOLDS[[PodState.STANDBY, PodState.GONE]] = False


def slots_of(size_bytes: I64) -> I64:
    """Return how many slots hold sizes."""
    slots: I64 = -(-size_bytes // SLOT_BYTES)
    return slots


def _sum_on(gpus: I64, slots: I64, count: int) -> I64:
    # Sums of whole numbers far below 2**53 are exact in float64.
    return np.bincount(gpus, slots, count).astype(np.int64)


@dataclass(slots=True)
class Free:
    """Free slots, contexts and multi-GPU tokens. All arrays have shape (gpus,)."""

    slots: I64
    contexts: I64
    tokens: I64

    def add(self, gpus: I64, slots: I64, *, multi: Bool) -> None:
        """Give back slices: their GPUs, their slots, and which are of pods of several GPUs."""
        self.slots += _sum_on(gpus, slots, len(self.slots))
        self.contexts += np.bincount(gpus, minlength=len(self.slots))
        self.tokens += np.bincount(gpus[multi], minlength=len(self.slots))

    def take(self, gpus: I64, slots: I64, *, multi: Bool) -> None:
        """Take slices: the opposite of `add`."""
        self.slots -= _sum_on(gpus, slots, len(self.slots))
        self.contexts -= np.bincount(gpus, minlength=len(self.slots))
        self.tokens -= np.bincount(gpus[multi], minlength=len(self.slots))

    def lacks(self, want: Want) -> tuple[I64, I64, I64]:
        """Return the slots, contexts and tokens that each GPU lacks for a slice of `want`."""
        need = int(slots_of(np.array(want.hbm_bytes, np.int64)))
        return need - self.slots, 1 - self.contexts, int(want.gpus > 1) - self.tokens

    def first_fit(self, want: Want, gpus: Sequence[int]) -> tuple[GpuId, ...] | None:
        """Return the first of `gpus` that take the wanted slices."""
        lacks = self.lacks(want)
        found = [GpuId(gpu) for gpu in gpus if all(short[gpu] <= 0 for short in lacks)]
        return tuple(found[: want.gpus]) if len(found) >= want.gpus else None


@dataclass(frozen=True, slots=True)
class SlotBooks:
    """The accounts, shared by placement and eviction.

    Attributes:
        contexts_per_gpu: How many resumed pods share a GPU.
        anywhere: Whether nodes without a suspended pod of the function are candidates too.
    """

    contexts_per_gpu: int
    anywhere: bool = False

    def free(self, view: ClusterView) -> Free:
        """Return what each GPU has left."""
        pods, gpus = view.pods, view.gpus
        slots: I64 = gpus.hbm_bytes_total // SLOT_BYTES
        contexts = np.full(len(slots), self.contexts_per_gpu, np.int64)
        free = Free(slots, contexts, np.ones(len(slots), np.int64))
        row, gpu, multi = slices_of(view, np.flatnonzero(_HOLDS[pods.state]))
        free.take(gpu, slots_of(pods.hbm_bytes[row]), multi=multi)
        return free

    def nodes(self, want: Want, view: ClusterView) -> list[int]:
        """Return candidate nodes by name: those that hold a suspended pod, or the one wanted."""
        pods = view.pods
        if want.node >= 0:
            there = [int(want.node)]
        elif self.anywhere:
            there = list(range(len(view.nodes.specs)))
        else:
            mine = pods.standby & (pods.function == want.function)
            there = sorted({int(node) for node in pods.node[mine]})
        open_now = view.nodes.schedulable
        specs = view.nodes.specs
        return sorted((n for n in there if open_now[n]), key=lambda n: specs[n].name)


def slices_of(view: ClusterView, rows: I64) -> tuple[I64, I64, Bool]:
    """Return the slices that pods hold: row, GPU, and whether the pod holds several."""
    pods = view.pods
    multi = pods.gpu[rows, 1] >= 0
    if not multi.any():
        rows = rows[pods.gpu[rows, 0] >= 0]
        return rows, pods.gpu[rows, 0].astype(np.int64), np.zeros(len(rows), np.bool_)
    at, place = np.nonzero(pods.gpu[rows] >= 0)
    return rows[at], pods.gpu[rows[at], place].astype(np.int64), multi[at]
