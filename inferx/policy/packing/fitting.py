"""Random, first fit, best fit, worst fit: the textbook rules."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.random import Generator

from inferx.policy import F64, ClusterView, Defer, Place, Want
from inferx.policy.packing.case import Case, PackingRule, tightest
from inferx.policy.packing.slot import place_by

__all__ = ["BestFit", "FirstFit", "Random", "WorstFit"]


@dataclass(frozen=True, slots=True)
class Random:
    """Any node that has room, each as likely as the others; its GPUs take turns.

    Source: the baseline of Weng et al., USENIX ATC 2023, p. 1003, section 6.1.
    Differs: of the node's GPUs none is drawn; they take turns by what the node has left.
    """

    local = False

    def score(self, case: Case, rng: Generator) -> F64:
        """Return a draw for each node. Shape (rows,)."""
        return rng.random(len(case.room))

    def prefer(self, case: Case, row: int) -> F64:
        """Return an order that the loads of the GPUs do not tell. Shape (width,)."""
        turned: F64 = ((np.arange(case.width) + int(case.idle[row])) % case.width).astype(float)
        return turned

    def place(self, want: Want, view: ClusterView, rng: Generator) -> Place | Defer:
        """Return any GPUs that fit."""
        return place_by(self, want, view, rng)


@dataclass(frozen=True, slots=True)
class FirstFit:
    """The first node that has room; of its GPUs the first.

    Source: Johnson et al., "Worst-Case Performance Bounds for Simple One-Dimensional Packing
    Algorithms", SIAM Journal on Computing 3(4), 1974, pp. 299-325; p. 307, theorem 2.3.
    """

    local = True

    def score(self, case: Case, rng: Generator) -> F64:
        """Return the same for all. Shape (rows,)."""
        return np.zeros(len(case.room))

    def prefer(self, case: Case, row: int) -> F64:
        """Return the same for all. Shape (width,)."""
        return np.zeros(case.width)

    def place(self, want: Want, view: ClusterView, rng: Generator) -> Place | Defer:
        """Return the first GPUs that fit."""
        return place_by(self, want, view, rng)


def _left_after(case: Case) -> F64:
    """Return the mean share of the largest node that would be left. Shape (rows,)."""
    left, asked, most = case.dimensions()
    total = np.zeros(len(case.room))
    for have, take, largest in zip(left, asked, most, strict=True):
        total += (have - take) / largest
    return total / len(most)


@dataclass(frozen=True, slots=True)
class BestFit:
    """The node with the least left afterwards; of its GPUs the tightest.

    Source: Johnson et al. as for `FirstFit`, p. 307, theorem 2.3; over several dimensions as the
    sum of what is left of each as a share of the largest node, as in Weng et al., USENIX ATC 2023,
    p. 1003, section 6.1. Host memory counts as well.
    """

    local = True

    def score(self, case: Case, rng: Generator) -> F64:
        """Return one minus the share left. Shape (rows,), in [0, 1]."""
        return 1.0 - _left_after(case)

    def prefer(self, case: Case, row: int) -> F64:
        """Return the tightest GPU first. Shape (width,)."""
        return tightest(case, row)

    def place(self, want: Want, view: ClusterView, rng: Generator) -> Place | Defer:
        """Return the GPUs of the node with the least left."""
        return place_by(self, want, view, rng)


@dataclass(frozen=True, slots=True)
class WorstFit:
    """The node with the most left afterwards; of its GPUs the emptiest.

    Source: Johnson, "Fast Algorithms for Bin Packing", Journal of Computer and System Sciences
    8(3), 1974, pp. 272-314; dimensions as in `BestFit`.
    """

    local = True

    def score(self, case: Case, rng: Generator) -> F64:
        """Return the share left. Shape (rows,), in [0, 1]."""
        return _left_after(case)

    def prefer(self, case: Case, row: int) -> F64:
        """Return the emptiest GPU first. Shape (width,)."""
        return -tightest(case, row)

    def place(self, want: Want, view: ClusterView, rng: Generator) -> Place | Defer:
        """Return the GPUs of the node with the most left."""
        return place_by(self, want, view, rng)


RULES: Final[dict[str, Callable[[], PackingRule]]] = {
    "clean-random": Random,
    "first-fit": FirstFit,
    "clean-best-fit": BestFit,
    "worst-fit": WorstFit,
}
