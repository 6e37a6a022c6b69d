"""The cheapest pods whose leaving makes room: a covering knapsack, solved exactly. Ours.

A GPU lacks memory and compute for a want; each candidate pod frees some of both at a cost. The
dynamic program goes through the pods of one GPU and keeps, for each amount that is still lacking,
the least that has been spent. Memory is counted in units, what is lacking rounded up and what a
pod frees rounded down: a plan surely suffices, and is the cheapest to the unit.

Laws:
1. Plans are ordered by cost, then by the number of victims, then by the GPU (for several slices,
   the node) with the lowest number; on one GPU or node, of equal plans, the one that spares the
   pods that came last. No two plans are equal, so the result does not depend on any order of work.
2. No function is left with fewer ready pods than its `min_replica`.
3. GPUs and nodes that cannot beat the best plan so far are not looked at: a plan costs no less than
   its cheapest pod, and no less than what is lacking at the best price of a unit.

A want of several slices may meet pods that hold slices of several GPUs. All sets of those are
tried, up to `SPANNING` of them on a node: of more, the cheapest alone may leave. Of a function that
can spare fewer pods than it has there, the cheapest alone are candidates on such a node.
"""

from dataclasses import dataclass

import numpy as np

from inferx.policy import F64, I64, Bool, ClusterView, GpuId, Want
from inferx.policy.parts.covering import Item, above, cover, items_of, rows_of

__all__ = ["Plan", "cheapest_plan"]

SPANNING = 6


@dataclass(frozen=True, slots=True)
class Plan:
    """Pods, as rows of `view.pods`, after whose leaving the want fits on `gpus`."""

    gpus: tuple[GpuId, ...]
    rows: tuple[int, ...]
    cost: int


@dataclass(frozen=True, slots=True)
class _Slices:
    """Which candidate holds a slice of which usable GPU. All arrays have shape (slices,)."""

    row: I64
    gpu: I64
    cost: I64
    units: I64
    milli: I64


@dataclass(frozen=True, slots=True)
class _Case:
    """One want's question.

    `cost` has shape (rows of view.pods,), `lacks_units`, `lacks_milli`, `least` and `usable` have
    shape (gpus,): what each GPU lacks, and a bound of what a plan there costs.
    """

    want: Want
    view: ClusterView
    cost: I64
    slices: _Slices
    usable: Bool
    lacks_units: I64
    lacks_milli: I64
    least: F64
    spare: I64


def cheapest_plan(
    want: Want, view: ClusterView, candidates: I64, cost: I64, unit_bytes: int, nodes: Bool
) -> Plan | None:
    """Return the cheapest plan, or None where all candidates together make no room.

    Args:
        want: The pod that needs room on its GPUs; host memory is the caller's affair.
        view: The cluster.
        candidates: Rows of pods that may leave, ascending. Shape (candidates,).
        cost: What losing each pod costs, above 0. Shape (rows of view.pods,).
        unit_bytes: The granularity of memory.
        nodes: Nodes that may be chosen. Shape (nodes,).

    Cost: a few passes over the candidates, and O(pods x units) on each GPU that may be best: one or
    a few for one slice; for several, in a crowded cluster, it can be all, and tens of ms.
    """
    case = _case(want, view, candidates, cost, unit_bytes, nodes)
    return _one_gpu(case) if want.gpus == 1 else _one_node(case)


def _case(
    want: Want, view: ClusterView, candidates: I64, cost: I64, unit_bytes: int, nodes: Bool
) -> _Case:
    pods, gpus, functions = view.pods, view.gpus, view.functions
    floor = np.array([spec.min_replica for spec in functions.specs], np.int64)
    spare = functions.ready - floor
    candidates = candidates[spare[pods.function[candidates]] > 0]
    usable = view.eligible(want) & nodes[gpus.node]
    row, gpu = candidates, pods.gpu[candidates, 0].astype(np.int64)
    if (pods.gpu[candidates, 1] >= 0).any():
        at, place = np.nonzero(pods.gpu[candidates] >= 0)
        row = candidates[at]
        gpu = pods.gpu[row, place].astype(np.int64)
    on_usable = usable[gpu]
    row, gpu = row[on_usable], gpu[on_usable]
    units, milli = pods.hbm_bytes[row] // unit_bytes, pods.milli_gpu[row].astype(np.int64)
    lacks_units = np.maximum(0, -((gpus.hbm_bytes_free - want.hbm_bytes) // unit_bytes))
    lacks_milli = np.maximum(0, want.milli_gpu - gpus.milli_free).astype(np.int64)
    slices = _Slices(row, gpu, cost[row], units, milli)
    count = len(gpus.node)
    usable &= np.bincount(gpu, units, count) >= lacks_units
    usable &= np.bincount(gpu, milli, count) >= lacks_milli
    least = _bound(slices, lacks_units, lacks_milli)
    return _Case(want, view, cost, slices, usable, lacks_units, lacks_milli, least, spare)


def _bound(slices: _Slices, lacks_units: I64, lacks_milli: I64) -> F64:
    """Return what any plan on each GPU costs at least. Shape (gpus,)."""
    least: F64 = np.zeros(len(lacks_units))
    lacking = (lacks_units > 0) | (lacks_milli > 0)
    for lacks, frees in ((1, 1), (lacks_units, slices.units), (lacks_milli, slices.milli)):
        price = np.full(len(least), np.inf)
        useful = np.asarray(frees) > 0
        with np.errstate(divide="ignore"):
            rate = slices.cost / frees
        np.minimum.at(price, slices.gpu, np.where(useful, rate, np.inf))
        # A little less than computed: rounding must not turn a bound into too much.
        bound = np.multiply(price, lacks, where=np.asarray(lacks) > 0, out=np.zeros(len(least)))
        least = np.maximum(least, bound * (1 - 1e-9))
    least[~lacking] = 0.0
    return least


# -- one slice: the GPU with the cheapest plan ---
def _one_gpu(case: _Case) -> Plan | None:
    best = _single(case)
    rank = (best.cost, len(best.rows), int(best.gpus[0])) if best else None
    here = np.flatnonzero(case.usable if rank is None else case.usable & (case.least <= rank[0]))
    for gpu in here[np.argsort(case.least[here], kind="stable")].tolist():
        least = case.least[gpu]
        if rank is not None and least > rank[0]:
            break
        if rank is not None and rank[1] <= 1 and least >= rank[0] - 0.5 and gpu > rank[2]:
            continue  # It can be as cheap at most, with as many victims, and comes later.
        items = _items(case, np.flatnonzero(case.slices.gpu == gpu))
        lacks = (int(case.lacks_units[gpu]), int(case.lacks_milli[gpu]))
        # What costs as much as the best may still need fewer victims.
        limit = None if rank is None else above(rank[0], items)
        value = cover(lacks, items, limit)
        if value is None:
            continue
        rows = rows_of(value, items)
        found = Plan((GpuId(gpu),), rows, int(case.cost[list(rows)].sum()))
        mine = (found.cost, len(rows), gpu)
        if rank is None or mine < rank:
            best, rank = found, mine
    return best


def _single(case: _Case) -> Plan | None:
    """Return the cheapest single victim that suffices: a first bound, and most often the plan."""
    s = case.slices
    enough = case.usable[s.gpu] & (s.units >= case.lacks_units[s.gpu])
    enough &= s.milli >= case.lacks_milli[s.gpu]
    if not enough.any():
        return None
    at = np.flatnonzero(enough)
    at = at[s.cost[at] == s.cost[at].min()]
    first = at[np.lexsort((s.row[at], s.gpu[at]))[0]]
    return Plan((GpuId(int(s.gpu[first])),), (int(s.row[first]),), int(s.cost[first]))


def _items(case: _Case, at: I64) -> list[Item]:
    """Return the candidates of some slices, in row order; of a function, no more than it spares.

    Those are its cheapest: on one GPU they free the same.
    """
    s = case.slices
    at = at[np.lexsort((s.row[at], s.cost[at]))]
    left: dict[int, int] = {}
    kept: list[int] = []
    for index in at.tolist():
        function = int(case.view.pods.function[s.row[index]])
        left[function] = left.get(function, int(case.spare[function])) - 1
        if left[function] >= 0:
            kept.append(index)
    kept.sort(key=lambda index: int(s.row[index]))
    return items_of(s.row[kept], s.units[kept], s.milli[kept], s.cost[kept])


# -- several slices: the node with the cheapest plan ---
def _one_node(case: _Case) -> Plan | None:
    best: Plan | None = None
    nodes, least = _node_bounds(case)
    node_of = case.view.gpus.node
    slice_node = node_of[case.slices.gpu]
    for node, bound in zip(nodes.tolist(), least.tolist(), strict=True):
        if best is not None and bound > best.cost:
            break
        found = _on_node(case, node, np.flatnonzero(slice_node == node))
        if found is None:
            continue
        rank = (found.cost, len(found.rows), node)
        if best is None or rank < (best.cost, len(best.rows), int(node_of[best.gpus[0]])):
            best = found
    return best


def _node_bounds(case: _Case) -> tuple[I64, F64]:
    """Return the nodes with GPUs enough, and what a plan costs there at least; cheapest first."""
    gpus = np.flatnonzero(case.usable)
    node, k = case.view.gpus.node[gpus], case.want.gpus
    order = np.lexsort((case.least[gpus], node))
    start = np.flatnonzero(np.diff(node[order], prepend=-1))
    start = start[np.diff(start, append=len(order)) >= k]
    least = case.least[gpus[order]]
    nodes = node[order[start]].astype(np.int64)
    together: F64 = sum((least[start + place] for place in range(k)), np.zeros(len(start)))
    # A pod on several GPUs would be counted once for each.
    s, pods = case.slices, case.view.pods
    wide = np.zeros(len(case.view.nodes.specs), np.bool_)
    wide[pods.node[s.row[pods.gpu[s.row, 1] >= 0]]] = True
    bound = np.where(wide[nodes], least[start + k - 1], together)
    cheapest = np.lexsort((nodes, bound))
    return nodes[cheapest], bound[cheapest]


def _on_node(case: _Case, node: int, slices: I64) -> Plan | None:
    """Return the cheapest plan on a node: for each set of spanning pods, the cheapest GPUs."""
    s = case.slices
    gpus = np.flatnonzero(case.usable & (case.view.gpus.node == node)).tolist()
    slices = slices[case.usable[s.gpu[slices]]]
    _, once = np.unique(s.row[slices], return_index=True)
    items = _items(case, slices[once])
    wide: dict[int, list[int]] = {item[0]: [] for item in items}
    for row, gpu in zip(s.row[slices].tolist(), s.gpu[slices].tolist(), strict=True):
        if row in wide:
            wide[row].append(gpu)
    alone: dict[int, list[Item]] = {gpu: [] for gpu in gpus}
    spanning: list[Item] = []
    for item in items:
        (alone[wide[item[0]][0]] if len(wide[item[0]]) == 1 else spanning).append(item)
    spanning = sorted(spanning, key=lambda item: item[3])[:SPANNING]
    best: int | None = None
    for subset in range(1 << len(spanning)):
        gone = [item for place, item in enumerate(spanning) if subset >> place & 1]
        values: list[int] = []
        for gpu in gpus:
            on = [item for item in gone if gpu in wide[item[0]]]
            lacks = (
                max(0, int(case.lacks_units[gpu]) - sum(item[1] for item in on)),
                max(0, int(case.lacks_milli[gpu]) - sum(item[2] for item in on)),
            )
            value = cover(lacks, alone[gpu], best)
            if value is not None:
                values.append(value)
        if len(values) >= case.want.gpus:
            total = sum(item[3] for item in gone) + sum(sorted(values)[: case.want.gpus])
            best = total if best is None or total < best else best
    if best is None:
        return None
    rows = rows_of(best, items)
    return Plan(_gpus_after(case, gpus, rows), rows, int(case.cost[list(rows)].sum()))


def _gpus_after(case: _Case, gpus: list[int], rows: tuple[int, ...]) -> tuple[GpuId, ...]:
    """Return the lowest GPUs with room when the victims are gone."""
    s = case.slices
    mine = np.isin(s.row, rows)
    count = len(case.lacks_units)
    units = np.bincount(s.gpu[mine], s.units[mine], count) >= case.lacks_units
    milli = np.bincount(s.gpu[mine], s.milli[mine], count) >= case.lacks_milli
    room = [GpuId(gpu) for gpu in gpus if units[gpu] and milli[gpu]]
    return tuple(room[: case.want.gpus])
