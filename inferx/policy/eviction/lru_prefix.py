"""The reference's eviction alone: a prefix of the global list of idle pods, oldest first.

Source: repository inferx-net/inferx at 875cb0f, `ixshare/src/scheduler/scheduler_handler.rs`
(FindNode4Pod, line 3444), as `inferx-reference` has it: idle pods are walked from the least
recently used, each is added to the victims of its node, and the first node with room wins. All
victims gathered there are killed, those on other GPUs too; `trim` spares them. Pods of the function
itself, and the last `min_replica` of any other, are passed over; memory is counted in slots of
256 MB.

Differs: every node is a candidate, where the reference's starts are resumes and need a suspended
pod there; GPUs take as many pods as fit, where the reference's take one unless it is set otherwise
(`contexts_per_gpu`); everything but eviction is the plain bundle's.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from inferx.policy import (
    I64,
    Bool,
    ClusterView,
    Defer,
    Evict,
    GpuId,
    PodId,
    PolicyBundle,
    Tier,
    Want,
    plain,
)
from inferx.policy.parts.prefixes import NEVER, first_room, kth_room
from inferx.policy.parts.slot_books import Free, SlotBooks, slices_of, slots_of

__all__ = ["LruPrefix", "bundle"]

_NO_STANDBY = Defer("no standby")
_NO_VICTIMS = Defer("no victims suffice")


@dataclass(frozen=True, slots=True)
class LruPrefix:
    """Kills a prefix of the global list of idle pods, least recently used first."""

    books: SlotBooks
    trim: bool

    def evict(self, want: Want, view: ClusterView, rng: Generator) -> Evict | Defer:
        """Return the first node on which the walk makes room, with all victims found there."""
        if want.node >= 0:
            return _NO_VICTIMS
        nodes = self.books.nodes(want, view)
        if not nodes:
            return _NO_STANDBY
        walk = _walk(want, view, nodes)
        free, usable = self.books.free(view), view.eligible(want)
        on = view.pods.node[walk]
        first = _first_fits(want, view, walk, free)
        # When each node has room by these accounts, and is asked because a pod of it was met.
        turns = np.full(len(view.nodes.specs), NEVER, np.int64)
        np.minimum.at(turns, on, np.arange(len(on)))
        kth = kth_room(first[usable], view.gpus.node[usable], want.gpus, len(turns))
        turns = np.maximum(turns, kth)
        while (turn := int(turns.min())) < NEVER:
            node = int(turns.argmin())
            plan = self._at(want, view, walk[: turn + 1][on[: turn + 1] == node], free, usable)
            if plan is not None:
                return plan
            later = np.flatnonzero(on[turn + 1 :] == node)
            turns[node] = turn + 1 + later[0] if len(later) else NEVER
        return _NO_VICTIMS

    def _at(
        self, want: Want, view: ClusterView, rows: I64, before: Free, usable: Bool
    ) -> Evict | None:
        """Return the plan with these victims of one node, if it is one by the kernel's accounts.

        Those know claims and compute, the reference's do not.
        """
        pods = view.pods
        free = Free(before.slots.copy(), before.contexts.copy(), before.tokens.copy())
        row, gpu, multi = slices_of(view, rows)
        free.add(gpu, slots_of(pods.hbm_bytes[row]), multi=multi)
        node = int(pods.node[rows[0]])
        here = np.flatnonzero((view.gpus.node == node) & usable).tolist()
        found = free.first_fit(want, here)
        if found is None:
            return None
        with view.trial() as trial:
            for victim in rows.tolist():
                trial.release(PodId(int(pods.id[victim])))
            if not trial.fits(want)[list(found)].all():
                return None
        kept = [r for r in rows.tolist() if not self.trim or _helps(view, r, found)]
        return Evict(found, tuple((PodId(int(pods.id[r])), Tier.ABSENT) for r in kept))


def _walk(want: Want, view: ClusterView, nodes: list[int]) -> I64:
    """Return the idle pods that may leave candidate nodes, the least recently used first.

    Of each function, `min_replica` ready pods stay.
    """
    pods, functions = view.pods, view.functions
    candidate = np.zeros(len(view.nodes.specs), np.bool_)
    candidate[nodes] = True
    rows = np.flatnonzero(pods.idle & (pods.function != want.function) & candidate[pods.node])
    rows = rows[np.lexsort((pods.id[rows], pods.idle_since_ns[rows]))]
    function = pods.function[rows]
    floor = np.array([spec.min_replica for spec in functions.specs], np.int64)
    if not floor[function].any():
        return rows
    # Which of its function's pods each is, counted along the walk.
    order = np.argsort(function, kind="stable")
    start = np.flatnonzero(np.diff(function[order], prepend=-1))
    count = np.empty(len(rows), np.int64)
    count[order] = np.arange(len(rows)) - np.repeat(start, np.diff(start, append=len(rows)))
    return rows[count < (functions.ready - floor)[function]]


def _first_fits(want: Want, view: ClusterView, walk: I64, free: Free) -> I64:
    """Return at which pod of the walk each GPU has room for a slice. Shape (gpus,)."""
    row, gpu, multi = slices_of(view, walk)
    turn = np.arange(len(walk))
    if len(row) > len(walk):
        turn = np.repeat(turn, (view.pods.gpu[walk] >= 0).sum(axis=1))
    gives = (
        slots_of(view.pods.hbm_bytes[row]),
        np.ones(len(row), np.int64),
        multi.astype(np.int64),
    )
    return first_room(gpu, turn, gives, free.lacks(want))


def _helps(view: ClusterView, row: int, gpus: tuple[GpuId, ...]) -> bool:
    return bool(np.isin(view.pods.gpu[row], gpus).any())


def bundle(contexts_per_gpu: int = 1_000, *, trim: bool = False) -> PolicyBundle:
    """Return the plain bundle with the reference's eviction.

    Args:
        contexts_per_gpu: How many pods share a GPU (`MaxContextPerGPU`).
        trim: Whether victims that do not help are spared; the original kills them.

    Raises:
        ValueError: No pod would ever share a GPU, or more than any GPU holds.
    """
    if not 1 <= contexts_per_gpu <= 1_000:
        raise ValueError(f"contexts_per_gpu is {contexts_per_gpu}; expected 1 to 1000")
    eviction = LruPrefix(SlotBooks(contexts_per_gpu, anywhere=True), trim=trim)
    return dataclasses.replace(plain.bundle(), name="lru-prefix", eviction=eviction)
