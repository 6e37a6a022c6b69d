"""KAI scheduler's node and GPU scores, binpack and spread."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import numpy as np
from numpy.random import Generator

from inferx.policy import F64, MILLI_PER_GPU, ClusterView, Defer, Place, Want
from inferx.policy.packing.case import Case, PackingRule
from inferx.policy.packing.slot import place_by

__all__ = ["Kai"]

_DENSITY: Final = 9.0
_RESOURCE_TYPE: Final = 10.0
_GPU_SHARING: Final = 1_000.0


@dataclass(frozen=True, slots=True)
class Kai:
    """Bands by magnitude: a node with a shared GPU that fits, the right kind of node, density.

    Binpack's density is 9 on the node with the least unallocated and 0 on that with the most, among
    nodes with room; spread's is the unallocated share of the node. GPUs with the most used come
    first, or those with the least.

    Source: repository NVIDIA/KAI-Scheduler at 72de64f, below `pkg/scheduler/plugins`:
    `nodeplacement/pack.go` and `spread.go`, `resourcetype/resourcetype.go`,
    `gpusharingorder/gpusharingorder.go`, `gpupack/gpupack.go`, `gpuspread/gpuspread.go`; the bands
    are those of `scores/scores.go`.
    Differs: bands for topology, NUMA, nominated nodes and what other tasks free are left out.
    """

    mode: Literal["binpack", "spread"]

    @property
    def local(self) -> bool:
        """Binpack's density looks at all nodes."""
        return self.mode == "spread"

    def score(self, case: Case, rng: Generator) -> F64:
        """Return the sum of the bands. Shape (rows,)."""
        score = self._density(case)
        if case.gpus == 0:
            score += np.where(case.count == 0, _RESOURCE_TYPE, 0.0)
        elif case.gpus == 1:
            shares = case.milli < MILLI_PER_GPU
            shared = (case.open & ~case.free).any(axis=1)
            score += np.where(shares & shared, _GPU_SHARING, 0.0)
        return score

    def _density(self, case: Case) -> F64:
        idle: F64 = case.idle / MILLI_PER_GPU
        if self.mode == "spread":
            return idle / np.maximum(1, case.count)
        among = idle[case.room]
        if not len(among):
            return np.zeros(len(idle))
        least, most = float(among.min()), float(among.max())
        if most == least:
            return np.full(len(idle), _DENSITY)
        density: F64 = _DENSITY * (1.0 - (idle - least) / (most - least))
        return density

    def prefer(self, case: Case, row: int) -> F64:
        """Return the used share, or the unused one. Shape (width,)."""
        unused: F64 = case.left[row] / MILLI_PER_GPU
        return 1.0 - unused if self.mode == "binpack" else unused

    def place(self, want: Want, view: ClusterView, rng: Generator) -> Place | Defer:
        """Return the GPUs of the densest, or the emptiest, node."""
        return place_by(self, want, view, rng)


RULES: Final[dict[str, Callable[[], PackingRule]]] = {
    "kai-binpack": partial(Kai, "binpack"),
    "kai-spread": partial(Kai, "spread"),
}
