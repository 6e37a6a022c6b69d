"""Which function a request calls: a share for each, and runs of the same one."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from inferx.core.errors import DescriptionError
from inferx.core.types import F64, I32

__all__ = ["MAX_FUNCTIONS", "FunctionDraw", "Popularity"]

MAX_FUNCTIONS = 1_000_000
"""Most functions that requests can be spread over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Popularity:
    """How requests are shared between functions: function i gets a weight of (i + 1) ** -alpha.

    Attributes:
        functions: How many there are.
        alpha: 0 is uniform; 1 is Zipf's law.
        sticky: Chance that a request calls the function of the one before. It makes runs and
            leaves the shares as they are.
    """

    functions: int
    alpha: float = 0.0
    sticky: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.functions <= MAX_FUNCTIONS:
            raise DescriptionError(f"{self.functions} functions; expected 1 to {MAX_FUNCTIONS}")
        if not 0 <= self.alpha <= 10:  # Also refuses NaN.
            raise DescriptionError(f"alpha is {self.alpha:g}; expected 0 to 10")
        if not 0 <= self.sticky < 1:
            raise DescriptionError(f"sticky is {self.sticky:g}; expected 0 to below 1")

    @property
    def names(self) -> tuple[str, ...]:
        """`f0000`, `f0001`, ...: the first is the most popular."""
        return tuple(f"f{i:04d}" for i in range(self.functions))

    def shares(self) -> F64:
        """Each function's probability, shape (functions,)."""
        weights: F64 = np.arange(1, self.functions + 1, dtype=np.float64) ** -self.alpha
        shares: F64 = weights / weights.sum()
        return shares


class FunctionDraw:
    """Draws functions in row order; how many are asked for at a time does not matter."""

    def __init__(self, popularity: Popularity, rng: Generator) -> None:
        self._sticky = popularity.sticky
        self._edges = np.cumsum(popularity.shares())
        self._edges[-1] = 1.0
        self._choosing, self._staying = rng.spawn(2)
        self._last = -1

    def next(self, rows: int) -> I32:
        """Return the functions of the next requests, shape (rows,)."""
        chosen = np.searchsorted(self._edges, self._choosing.random(rows), side="right")
        drawn = chosen.astype(np.int32)
        if self._sticky and rows:
            stays = self._staying.random(rows) < self._sticky
            if self._last < 0:
                stays[0] = False
            # Each row takes the row where its run began; -1 is the run of the call before.
            began = np.maximum.accumulate(np.where(stays, -1, np.arange(rows)))
            drawn = np.where(began < 0, np.int32(self._last), drawn[began])
        if rows:
            self._last = int(drawn[-1])
        return drawn
