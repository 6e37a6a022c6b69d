"""Rules by who is on a node already: clustering, and packing of shared GPUs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.random import Generator

from inferx.policy import F64, I64, MILLI_PER_GPU, ClusterView, Defer, Place, Want
from inferx.policy.packing.case import Case, PackingRule, tightest
from inferx.policy.packing.slot import place_by

__all__ = ["GpuClustering", "GpuPacking"]


@dataclass(frozen=True, slots=True)
class GpuClustering:
    """Like goes to like: pods that share a GPU, pods of one GPU, of two, and so on.

    Bands: nodes with this kind alone, with this and others, empty ones, ones with other kinds; the
    fuller within a band first.

    Source: Xiao et al., "Gandiva", OSDI 2018, pp. 595-610, as Weng et al., USENIX ATC 2023,
    p. 1003, section 6.1, adapt it. Fullness is that of the node itself.
    """

    local = True

    def score(self, case: Case, rng: Generator) -> F64:
        """Return band plus fullness. Shape (rows,), in [0, 4]; 0 without GPUs."""
        if case.gpus == 0:
            return np.zeros(len(case.room))
        same = (case.kinds & case.kind) > 0
        bands = np.where(
            same, np.where(case.kinds == case.kind, 3, 2), np.where(case.kinds == 0, 1, 0)
        )
        score: F64 = bands + _fullness(case)
        return score

    def prefer(self, case: Case, row: int) -> F64:
        """Return the tightest GPU first. Shape (width,)."""
        return tightest(case, row)

    def place(self, want: Want, view: ClusterView, rng: Generator) -> Place | Defer:
        """Return GPUs among pods of the same kind."""
        return place_by(self, want, view, rng)


@dataclass(frozen=True, slots=True)
class GpuPacking:
    """Opens as little as possible: GPUs in use, then free GPUs of a node in use, then a free node.

    Within the first band the GPUs with the least left first, then the fewest opened, then the
    smallest node.

    Source: Weng et al., "MLaaS in the Wild", NSDI 2022, pp. 945-960, as the same, USENIX ATC 2023,
    p. 1003, section 6.1, adapt it. Real-valued where theirs is truncated.
    """

    local = True

    def score(self, case: Case, rng: Generator) -> F64:
        """Return band minus cost within it. Shape (rows,), in [0, 3]; 0 without GPUs."""
        if case.gpus == 0:
            return np.zeros(len(case.room))
        free = case.free.sum(axis=1)
        # The slices go to the open GPUs with the least left; absent ones come last.
        beyond = MILLI_PER_GPU + 1
        taken: I64 = np.sort(np.where(case.open, case.left, beyond), axis=1)[:, : case.gpus]
        opened: I64 = (taken == MILLI_PER_GPU).sum(axis=1)
        loose: F64 = taken.sum(axis=1) / (beyond * case.gpus)
        score: F64 = np.where(
            free == case.count,
            1.0 - free / (case.width + 1),
            np.where(opened > 0, 2.0 - opened / (case.width + 1), 3.0 - loose),
        )
        return score

    def prefer(self, case: Case, row: int) -> F64:
        """Return the tightest GPU first. Shape (width,)."""
        return tightest(case, row)

    def place(self, want: Want, view: ClusterView, rng: Generator) -> Place | Defer:
        """Return GPUs that open as little as possible."""
        return place_by(self, want, view, rng)


def _fullness(case: Case) -> F64:
    total = np.maximum(1, case.count * MILLI_PER_GPU)
    fullness: F64 = 1.0 - case.idle / total
    return fullness


RULES: Final[dict[str, Callable[[], PackingRule]]] = {
    "clean-gpu-clustering": GpuClustering,
    "clean-gpu-packing": GpuPacking,
}
