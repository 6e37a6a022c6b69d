"""Brings up pods that nobody has asked for yet: on free GPUs nearest to their state. Ours.

Nobody leaves for them, and what one call proposes fits together. Taking them down again is the
keep-alive's.
"""

from collections.abc import Iterable

import numpy as np

from inferx.policy import F64, I32, ClusterView, FunctionId, GpuId, NodeId, Promote, Tier, want_of

__all__ = ["bring_up", "pods_short"]

_LOOKS = 4
"""Functions looked at for each that may be brought up: on a full cluster most find no room."""


def bring_up(functions: Iterable[int], view: ClusterView, *, moves: int) -> list[Promote]:
    """Return promotions to HBM, one for each of `functions` that finds room, the first first.

    The node is the one from which the function starts soonest, of those with free GPUs enough; ties
    go to the lowest node.

    Args:
        functions: The function of each pod wanted, most urgent first; it may occur several times.
        view: The cluster.
        moves: At most so many.

    Cost: O(moves * gpus).
    """
    made: list[Promote] = []
    full: set[int] = set()
    with view.trial() as trial:
        for look, f in enumerate(functions):
            if len(made) == moves or look == _LOOKS * moves:
                break
            if f in full:
                continue
            function = FunctionId(f)
            spec = view.spec(function)
            want = want_of(function, spec)
            gpus = np.flatnonzero(trial.fits(want))
            if not len(gpus):
                full.add(f)
                continue
            at = view.gpus.node[gpus]
            node = int(at[view.node_restore_ns(function)[at].argmin()])
            there = np.flatnonzero(at == node)[: spec.gpus]
            trial.place(want, [GpuId(int(gpus[index])) for index in there])
            made.append(Promote(function, NodeId(node), Tier.HBM))
    return made


def pods_short(requests: F64, view: ClusterView, *, moves: int) -> list[int]:
    """Return a function for each pod that lacks to serve `requests` at once, the most asked first.

    Args:
        requests: Requests expected of each function; rounded, and below nothing is nothing. Shape
            (functions,).
        view: The cluster.
        moves: How many pods may be brought up; of so many functions as are looked at for them.
    """
    table = view.functions
    specs = table.specs
    whole: I32 = np.round(np.maximum(requests, 0.0)).astype(np.int32)
    wanted: I32 = -(-whole // table.slots)
    lacks: I32 = wanted - table.ready - table.starting
    rows = np.flatnonzero(lacks > 0)
    short: list[int] = []
    order: list[int] = rows[np.argsort(-requests[rows], kind="stable")].tolist()
    for f in order[: _LOOKS * moves]:
        live = int(table.ready[f] + table.starting[f])
        short += [f] * max(0, min(int(lacks[f]), specs[f].max_replica - live))
    return short
