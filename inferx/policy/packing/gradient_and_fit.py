"""Ours: down the gradient of fragmentation, and among nearly equal steps the tightest node."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from numpy.random import Generator

from inferx.policy import F64, ClusterView, Defer, Place, Want
from inferx.policy.packing.case import Case, PackingRule
from inferx.policy.packing.fitting import BestFit
from inferx.policy.packing.gradient import FragmentationGradientDescent
from inferx.policy.packing.slot import place_by

__all__ = ["GradientAndFit"]

_GRADIENT: Final = FragmentationGradientDescent()
_FIT: Final = BestFit()


@dataclass(frozen=True, slots=True)
class GradientAndFit:
    """Adds a little best fit to the gradient, for the gradient does not see what is far from full.

    `fit_gpus` is what the tightest node is preferred by to the emptiest, in GPUs of fragments. It
    is small: in the published rule, truncation makes ties of steps that differ by less, and the
    order of nodes decides those.

    Source: ours; the parts cite theirs.
    """

    fit_gpus: float = 0.04

    @property
    def local(self) -> bool:
        """A row's score depends on that row alone."""
        return True

    def score(self, case: Case, rng: Generator) -> F64:
        """Return descent plus tightness, in GPUs. Shape (rows,)."""
        return _GRADIENT.score(case, rng) + self.fit_gpus * _FIT.score(case, rng)

    def prefer(self, case: Case, row: int) -> F64:
        """Return the steepest GPU first. Shape (width,)."""
        return _GRADIENT.prefer(case, row)

    def place(self, want: Want, view: ClusterView, rng: Generator) -> Place | Defer:
        """Return the GPUs of the best step."""
        return place_by(self, want, view, rng, mixed=True)


RULES: Final[dict[str, Callable[[], PackingRule]]] = {"gradient-and-fit": GradientAndFit}
