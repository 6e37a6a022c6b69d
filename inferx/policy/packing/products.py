"""Rules by the dot product of what is asked and what is left."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import numpy as np
from numpy.random import Generator

from inferx.policy import F64, ClusterView, Defer, Place, Want
from inferx.policy.packing.case import Case, PackingRule, tightest
from inferx.policy.packing.slot import place_by

__all__ = ["DotProduct", "Tetris"]


@dataclass(frozen=True, slots=True)
class DotProduct:
    """The node whose dot product of asked and left is smallest, or largest.

    Both vectors are shares of the largest node. `min` keeps what is left in other proportions for
    others and fills full nodes first, as the authors of the fragmentation gradient run it; `max`
    aligns, and goes to empty nodes first.

    Source: Weng et al., USENIX ATC 2023, p. 1003, section 6.1 (`min`); Panigrahy et al.,
    "Heuristics for vector bin packing", Microsoft Research 2011 (`max`). Host memory counts as
    well.
    """

    sign: Literal["min", "max"]

    @property
    def local(self) -> bool:
        """A row's score depends on that row alone."""
        return True

    def score(self, case: Case, rng: Generator) -> F64:
        """Return the signed product. Shape (rows,), in [-1, 1]."""
        left, asked, most = case.dimensions()
        product = np.zeros(len(case.room))
        for have, take, largest in zip(left, asked, most, strict=True):
            product += (have / largest) * (take / largest)
        product /= len(most)
        return product if self.sign == "max" else -product

    def prefer(self, case: Case, row: int) -> F64:
        """Return the tightest GPU first. Shape (width,)."""
        return tightest(case, row)

    def place(self, want: Want, view: ClusterView, rng: Generator) -> Place | Defer:
        """Return the GPUs of the node with the best product."""
        return place_by(self, want, view, rng)


@dataclass(frozen=True, slots=True)
class Tetris:
    """The node with the best alignment: the largest product, both as shares of the node itself.

    Source: Grandl et al., "Multi-resource packing for cluster schedulers", SIGCOMM 2014,
    pp. 455-466, section 3.2.
    Differs: no preference for short jobs, for nobody knows how long a pod will stay; no penalty for
    remote input. The paper packs tasks onto a free machine, here a machine is sought for a pod.
    """

    local = True

    def score(self, case: Case, rng: Generator) -> F64:
        """Return the alignment. Shape (rows,), in [0, 1]."""
        left, asked, _ = case.dimensions()
        totals = [case.count * 1000, *case.host_total.T]
        product = np.zeros(len(case.room))
        for have, take, total in zip(left, asked, totals, strict=True):
            whole = np.maximum(1, total)
            product += (have / whole) * (take / whole)
        return product / len(totals)

    def prefer(self, case: Case, row: int) -> F64:
        """Return the tightest GPU first. Shape (width,)."""
        return tightest(case, row)

    def place(self, want: Want, view: ClusterView, rng: Generator) -> Place | Defer:
        """Return the GPUs of the node that is aligned best."""
        return place_by(self, want, view, rng)


RULES: Final[dict[str, Callable[[], PackingRule]]] = {
    "dot-product-min": partial(DotProduct, "min"),
    "dot-product-max": partial(DotProduct, "max"),
    "tetris": Tetris,
}
