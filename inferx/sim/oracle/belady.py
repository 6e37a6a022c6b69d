"""The least misses of a cache of equal slots: throw out what is wanted again last.

Exact where every function takes the same room and every start costs the same; the sized and priced
problem is bounded by `sized_cache`, and by `keep_alive` for pods that serve over time.

Source: Belady, A study of replacement algorithms for a virtual-storage computer, IBM Systems
Journal 5(2), 1966, pp. 78-101 (MIN).
"""

from heapq import heappop, heappush

import numpy as np

from inferx.core.types import I64

__all__ = ["least_misses", "next_use"]


def least_misses(keys: I64, slots: int) -> int:
    """Return how many of the uses in `keys`, in order, must miss in a cache of `slots` entries.

    Every use enters the cache. Cost: O(uses log slots).
    """
    assert slots > 0, "a use needs a slot"
    following = next_use(keys)
    inside: dict[int, int] = {}
    """Key -> its next use."""
    farthest: list[tuple[int, int]] = []
    """(-next use, key), entries that were used since among them."""
    misses = 0
    for key, again in zip(keys.tolist(), following.tolist(), strict=True):
        if key not in inside:
            misses += 1
            if len(inside) == slots:
                while True:
                    at, victim = heappop(farthest)
                    if inside.get(victim) == -at:
                        del inside[victim]
                        break
        inside[key] = again
        heappush(farthest, (-again, key))
    return misses


def next_use(keys: I64) -> I64:
    """Return each use's next of the same key; of the last, a number beyond all, of its own."""
    uses = len(keys)
    following = uses + np.arange(uses, dtype=np.int64)
    order = np.argsort(keys, kind="stable")
    again = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    following[order[again]] = order[again + 1]
    return following
