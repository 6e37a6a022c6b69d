"""When a walk along a list of victims has made room: for all GPUs or nodes at once. Ours.

Pods are met one after another and give back what they hold where they hold it. What has been given
back only grows, so each place has room from some pod of the walk on.
"""

from collections.abc import Sequence

import numpy as np

from inferx.policy import I32, I64

__all__ = ["NEVER", "first_room", "kth_room"]

NEVER = int(np.iinfo(np.int64).max)


def first_room(where: I64, turn: I64, gives: Sequence[I64], lacks: Sequence[I64]) -> I64:
    """Return the turn from which each place lacks nothing; -1 from the start, or NEVER.

    Args:
        where: The place of each thing given back. Shape (things,).
        turn: When it is given, ascending. Shape (things,).
        gives: How much of each resource it is. Shape (things,) each.
        lacks: How much of each resource places lack, 0 or less where enough. Shape (places,) each.

    Returns:
        Shape (places,).
    """
    places = len(lacks[0])
    # In few bits the stable sort is by digits, in one pass.
    order = np.argsort(where.astype(np.uint16 if places < 1 << 16 else np.int64), kind="stable")
    where, turn = where[order], turn[order]
    start = np.flatnonzero(np.diff(where, prepend=-1))
    sizes = np.diff(start, append=len(where))
    room = np.ones(len(where), np.bool_)
    before = np.ones(places, np.bool_)
    for given, lack in zip(gives, lacks, strict=True):
        each: I64 = given[order]
        total: I64 = np.cumsum(each, dtype=np.int64)
        total -= np.repeat(total[start] - each[start], sizes)
        room &= total >= lack[where]
        before &= lack <= 0
    first = np.full(places, NEVER, np.int64)
    np.minimum.at(first, where[room], turn[room])
    first[before] = -1
    return first


def kth_room(first: I64, node: I32, k: int, nodes: int) -> I64:
    """Return from which turn `k` GPUs of each node have room; `first` is that of each GPU.

    Shape (nodes,).
    """
    order = np.lexsort((first, node))
    start = np.flatnonzero(np.diff(node[order], prepend=-1))
    start = start[np.diff(start, append=len(node)) >= k]
    kth = np.full(nodes, NEVER, np.int64)
    kth[node[order[start]]] = first[order[start + k - 1]]
    return kth
