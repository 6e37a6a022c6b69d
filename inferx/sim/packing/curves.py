"""Allocation and fragmentation against the load that has arrived, in percent of all GPUs.

After every arrival, placed or not, two ratios are noted at the load so far, rounded to a whole
percent: GPUs allocated of all, and fragments of what is idle. A curve is the mean of each percent.
Ratios are rounded to two decimals before the mean, as the published ones were.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from inferx.core.types import F64

__all__ = ["LOADS", "METRICS", "Curves", "bin_curves"]

LOADS: Final = 131
"""Points of a curve: 0 to 130 percent."""
METRICS: Final = ("alloc", "frag_ratio")


@dataclass(frozen=True, slots=True)
class Curves:
    """One run. Shape (131,) each; NaN at loads at which nothing arrived."""

    alloc: F64
    frag_ratio: F64

    def of(self, metric: str) -> F64:
        """Return a curve by the name of its metric."""
        return self.alloc if metric == "alloc" else self.frag_ratio


def bin_curves(
    arrived: NDArray[np.int64], used: NDArray[np.int64], fragment: F64, gpus: int
) -> Curves:
    """Return the curves of a run.

    Args:
        arrived: Thousandths of GPUs asked for so far, after each arrival. Shape (arrivals,).
        used: Thousandths allocated. Shape (arrivals,).
        fragment: Thousandths that are fragments. Shape (arrivals,).
        gpus: GPUs of the cluster.
    """
    at = np.round(arrived / gpus / 10).astype(np.int64)
    idle = gpus * 1000 - used
    ratio = np.divide(100.0 * fragment, idle, out=np.zeros(len(used)), where=idle > 0)
    kept = at < LOADS
    return Curves(
        alloc=_means(at[kept], _hundredths(used / gpus / 10)[kept]),
        frag_ratio=_means(at[kept], _hundredths(ratio)[kept]),
    )


def _hundredths(percent: F64) -> F64:
    rounded: F64 = np.round(percent, 2)
    return rounded


def _means(at: NDArray[np.int64], value: F64) -> F64:
    """Return the mean of each load, to two decimals.

    Sums are numpy's, pairwise, as in the published curves: some means lie on the edge between two
    hundredths, and the last bit says to which side they go.
    """
    means: F64 = np.full(LOADS, np.nan)
    edges: list[int] = np.flatnonzero(np.diff(at, prepend=-1)).tolist()
    for first, last in pairwise([*edges, len(at)]):
        means[at[first]] = np.round(value[first:last].mean(), 2)
    return means
