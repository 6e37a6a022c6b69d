"""How long a function had been silent when it was asked for: what a cold start weighs.

Most requests of a busy function are warm whatever the policy does, and drown those that a policy
decides about. Weighed by the silence before it, each stretch of time counts once a function,
however many requests are in it. The weights are of the trace, so all policies have the same.
"""

from typing import Final

import numpy as np

from inferx.core.types import I32, I64
from inferx.core.units import NS_PER_S

__all__ = ["SILENCE_CAP_NS", "silence_us", "weighted_quantile_ns"]

SILENCE_CAP_NS: Final = 600 * NS_PER_S
"""A longer silence weighs no more: one function asked for once a week is not the whole answer."""
_NS_PER_US: Final = 1_000


def silence_us(function: I32, arrived_ns: I64) -> I64:
    """Return for how long each request's function had been silent before it: a weight.

    Shape (requests,), whole microseconds, at most `SILENCE_CAP_NS`; the first request of a function
    weighs the cap, one that arrives with another of its function nothing. Of the trace alone: all
    policies have the same weights. Microseconds, so that their sum fits.
    """
    order = np.argsort(function, kind="stable")
    gap_ns = np.full(len(function), SILENCE_CAP_NS, np.int64)
    again = np.flatnonzero(function[order][1:] == function[order][:-1]) + 1
    gap_ns[order[again]] = arrived_ns[order[again]] - arrived_ns[order[again - 1]]
    return np.minimum(gap_ns, SILENCE_CAP_NS) // _NS_PER_US


def weighted_quantile_ns(values_ns: I64, weights: I64, per_mille: int) -> float | None:
    """Return the smallest value such that those up to it have `per_mille` / 1,000 of all weight.

    Whole weights; with equal ones this is `quantile_ns`. None where they sum to nothing.
    """
    order = np.argsort(values_ns, kind="stable")
    up_to = np.cumsum(weights[order])
    total = int(up_to[-1]) if len(up_to) else 0
    if not total:
        return None
    enough = max(-(-total * per_mille // 1_000), 1)
    return float(values_ns[order[np.searchsorted(up_to, enough)]])
