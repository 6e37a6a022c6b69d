"""Victims taken one after another on each node until a want fits there, then the needless spared.

The greedy half of ranked eviction: fast, and not the cheapest set (`victims` has that). Ours.
"""

from collections.abc import Iterator

import numpy as np

from inferx.policy import I64, ClusterView, Want
from inferx.policy.parts.host_memory import suspended_on
from inferx.policy.parts.prefixes import NEVER, first_room, kth_room

__all__ = ["walks"]


def walks(want: Want, view: ClusterView, rows: I64) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the wanted GPUs and the victims, as rows, of each node where `rows` make room.

    On each node pods leave in the order of `rows` until GPUs enough and host memory have room. The
    wanted GPUs are the lowest of those. Then, the last first, each victim without which the want
    still fits there is left out.
    """
    pods, gpus = view.pods, view.gpus
    on = pods.node[rows]
    usable, brings = view.eligible(want), suspended_on(want, view)
    turns = _turns(want, view, rows)
    for node in np.flatnonzero(turns < NEVER).tolist():
        turn = int(turns[node])
        taken = rows[: turn + 1][on[: turn + 1] == node]
        here = np.flatnonzero(usable & (gpus.node == node)).tolist()
        spare = {
            gpu: [
                int(gpus.hbm_bytes_free[gpu]) - want.hbm_bytes,
                int(gpus.milli_free[gpu]) - want.milli_gpu,
            ]
            for gpu in here
        }
        host = int(view.nodes.host_bytes_free[node]) - want.host_bytes
        yield _trimmed(want, view, taken, spare, None if brings[node] else host)


def _turns(want: Want, view: ClusterView, rows: I64) -> I64:
    """Return with which of `rows` each node has room, or NEVER. Shape (nodes,)."""
    pods, gpus, nodes = view.pods, view.gpus, view.nodes
    on, count = pods.node[rows].astype(np.int64), len(nodes.specs)
    at, place = np.nonzero(pods.gpu[rows] >= 0)
    row = rows[at]
    first = first_room(
        pods.gpu[row, place].astype(np.int64),
        at,
        (pods.hbm_bytes[row], pods.milli_gpu[row].astype(np.int64)),
        (want.hbm_bytes - gpus.hbm_bytes_free, (want.milli_gpu - gpus.milli_free).astype(np.int64)),
    )
    usable = view.eligible(want)
    turns = kth_room(first[usable], gpus.node[usable], want.gpus, count)
    lacks = np.where(suspended_on(want, view), 0, want.host_bytes - nodes.host_bytes_free)
    order = np.arange(len(rows))
    turns = np.maximum(turns, first_room(on, order, (pods.host_bytes[rows],), (lacks,)))
    # A node is asked once one of its pods was met.
    met = np.full(count, NEVER, np.int64)
    np.minimum.at(met, on, order)
    return np.maximum(turns, met)


def _trimmed(
    want: Want, view: ClusterView, taken: I64, spare: dict[int, list[int]], host: int | None
) -> tuple[list[int], list[int]]:
    """Return the lowest GPUs with room after all of `taken`, and who of those must leave.

    `spare` is what each GPU of the node has beyond the want, memory and compute, and `host` the
    same of its host memory, or None where the want needs none; all are changed.
    """
    pods = view.pods
    rows = taken.tolist()
    size = list(zip(pods.hbm_bytes[taken].tolist(), pods.milli_gpu[taken].tolist(), strict=True))
    gives = pods.host_bytes[taken].tolist()
    holds = [[gpu for gpu in on if gpu in spare] for on in pods.gpu[taken].tolist()]
    for (hbm, milli), on in zip(size, holds, strict=True):
        for gpu in on:
            spare[gpu][0] += hbm
            spare[gpu][1] += milli
    host = None if host is None else host + sum(gives)
    targets = [gpu for gpu, (hbm, milli) in spare.items() if hbm >= 0 and milli >= 0][: want.gpus]
    kept: list[int] = []
    for place in reversed(range(len(rows))):
        hbm, milli = size[place]
        stays = [spare[gpu] for gpu in holds[place] if gpu in targets]
        needed = any(left[0] < hbm or left[1] < milli for left in stays)
        if needed or (host is not None and host < gives[place]):
            kept.append(rows[place])
            continue
        host = None if host is None else host - gives[place]
        for left in stays:
            left[0] -= hbm
            left[1] -= milli
    return targets, kept[::-1]
