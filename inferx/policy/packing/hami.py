"""HAMi's node and GPU scores, binpack and spread."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import numpy as np
from numpy.random import Generator

from inferx.policy import F64, MILLI_PER_GPU, ClusterView, Defer, Place, Want
from inferx.policy.packing.case import Case, PackingRule
from inferx.policy.packing.slot import place_by

__all__ = ["Hami"]


@dataclass(frozen=True, slots=True)
class Hami:
    """Binpack takes the fullest node, spread the emptiest; likewise for its GPUs.

    A node scores ten times the used share of compute and of memory, without the request, as the
    code does; a GPU's score includes it.

    Source: repository Project-HAMi/HAMi at 4707fb0, `pkg/scheduler/policy/node_policy.go`
    (`ComputeDefaultScore`, line 106) and `gpu_policy.go` (`ComputeScore`, line 194).
    Differs: no third term for how many of a GPU's slots are taken, for any number of pods may share
    one; no topology and no NUMA filter.
    """

    mode: Literal["binpack", "spread"]

    @property
    def local(self) -> bool:
        """A row's score depends on that row alone."""
        return True

    def score(self, case: Case, rng: Generator) -> F64:
        """Return the signed node score. Shape (rows,), in [-20, 20]."""
        total = np.maximum(1, case.count * MILLI_PER_GPU)
        used = (total - case.compute_left.sum(axis=1)) / total
        used += (total - case.memory_left.sum(axis=1)) / total
        return self._signed(10.0 * used)

    def prefer(self, case: Case, row: int) -> F64:
        """Return the signed GPU score. Shape (width,)."""
        asked = int(case.milli[row])
        compute = (asked + MILLI_PER_GPU - case.compute_left[row]) / MILLI_PER_GPU
        memory = (asked + MILLI_PER_GPU - case.memory_left[row]) / MILLI_PER_GPU
        return self._signed(10.0 * (compute + memory))

    def _signed(self, score: F64) -> F64:
        return score if self.mode == "binpack" else -score

    def place(self, want: Want, view: ClusterView, rng: Generator) -> Place | Defer:
        """Return the GPUs of the fullest, or the emptiest, node."""
        return place_by(self, want, view, rng)


RULES: Final[dict[str, Callable[[], PackingRule]]] = {
    "hami-binpack": partial(Hami, "binpack"),
    "hami-spread": partial(Hami, "spread"),
}
