"""Fragmentation gradient descent: where the fragment grows least, or shrinks most."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.random import Generator

from inferx.policy import F64, I64, MILLI_PER_GPU, ClusterView, Defer, Place, Want
from inferx.policy.packing.case import Case, Mix, PackingRule, tightest
from inferx.policy.packing.slot import place_by

__all__ = ["FragmentationGradientDescent", "fragments"]

_WORST: Final = np.iinfo(np.int64).min


def fragments(mix: Mix, left: I64, host_left: I64) -> I64:
    """Return the fragment of each row with this left; times the mix's total weight.

    Source: Weng et al., USENIX ATC 2023, p. 1000, equations 1 to 3.
    Shape (rows,). Cost: O(rows * kinds * width).
    """
    short = left[:, np.newaxis, :] < mix.milli.T[:, :, np.newaxis]
    idle: I64 = left.sum(axis=1)[:, np.newaxis]
    lost: I64 = (left[:, np.newaxis, :] * short).sum(axis=2)
    holds = left.shape[1] - short.sum(axis=2) >= mix.gpus
    takes = holds & mix.allowed.T & (mix.gpus > 0)
    for resource in range(host_left.shape[1]):
        takes &= host_left[:, resource, np.newaxis] >= mix.host[:, resource]
    fragment: I64 = np.where(takes, lost, idle)
    total: I64 = (fragment * mix.weight).sum(axis=1)
    return total


@dataclass(frozen=True, slots=True)
class FragmentationGradientDescent:
    """Goes where the fragment, over the kinds that usually come, grows least or shrinks most.

    Source: Weng et al., "Beware of Fragmentation", USENIX ATC 2023, p. 1003, algorithm 1.
    Differs: the score is the whole number behind the paper's sigmoid, so it ties only where the
    fragments do; a typical kind must find all its host resources, not the CPU alone.
    """

    local = True

    def score(self, case: Case, rng: Generator) -> F64:
        """Return the descent on the best GPU, in GPUs. Shape (rows,)."""
        mix = case.mix
        assert mix is not None
        if case.gpus == 1:
            best = self._descents(case).max(axis=1, initial=_WORST)
        else:
            after = case.left.copy()
            if case.gpus:
                order = np.where(case.open, case.left, MILLI_PER_GPU + 1)
                at = np.argsort(order, axis=1, kind="stable")[:, : case.gpus]
                taken = np.take_along_axis(after, at, axis=1) - case.milli[:, np.newaxis]
                np.put_along_axis(after, at, taken, axis=1)
            best = fragments(mix, case.left, case.host_left)
            best -= fragments(mix, after, case.host_left - case.host)
        score: F64 = best / (MILLI_PER_GPU * int(mix.weight.sum()))
        return score

    def prefer(self, case: Case, row: int) -> F64:
        """Return the steepest GPU first; for several slices the tightest. Shape (width,)."""
        if case.gpus == 1:
            steepest: F64 = self._descents(case.take(np.array([row])))[0].astype(np.float64)
            return steepest
        return tightest(case, row)

    def _descents(self, case: Case) -> I64:
        """Return the descent on each GPU; the worst where it is not open. Shape (rows, width)."""
        mix = case.mix
        assert mix is not None
        before = fragments(mix, case.left, case.host_left)
        rows, gpus = np.nonzero(case.open)
        after = case.left[rows]
        after[np.arange(len(rows)), gpus] -= case.milli[rows]
        host_left = (case.host_left - case.host)[rows]
        descents = np.full(case.left.shape, _WORST, np.int64)
        descents[rows, gpus] = before[rows] - fragments(mix.take(rows), after, host_left)
        return descents

    def place(self, want: Want, view: ClusterView, rng: Generator) -> Place | Defer:
        """Return the GPUs of the steepest descent."""
        return place_by(self, want, view, rng, mixed=True)


RULES: Final[dict[str, Callable[[], PackingRule]]] = {
    "fragmentation-gradient-descent": FragmentationGradientDescent,
}
