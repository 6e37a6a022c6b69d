"""Sparse linear programs, built a row at a time and solved by HiGHS (through scipy)."""

import ctypes
import os
import sys
from array import array
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final

import numpy as np

from inferx.core.errors import InferXError
from inferx.core.types import F64

__all__ = ["Program", "SolverError", "scipy", "silent"]

_SLACK: Final = 1e-6
"""HiGHS meets constraints to 1e-7; what it reports is lowered by a share that covers it."""


class SolverError(InferXError):
    """A program that could not be solved in its time, or at all."""


def scipy() -> tuple[Any, Any]:
    """Return scipy's `optimize` and `sparse`: loaded when first used, and without types."""
    return import_module("scipy.optimize"), import_module("scipy.sparse")


@contextmanager
def silent() -> Generator[None]:
    """Keep what C code prints off the process's standard output.

    HiGHS's branch and bound prints a line of its own whenever it mends a solution, whatever it is
    told, and JSON on standard output would end in it.
    """
    sys.stdout.flush()
    libc = ctypes.CDLL(None)
    libc.fflush(None)
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        libc.fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _floats() -> "array[float]":
    return array("d")


def _ints() -> "array[int]":
    return array("q")


@dataclass(slots=True)
class Program:
    """Minimise cost @ x, where low <= x <= high and every row's sum is at most its limit."""

    _cost: "array[float]" = field(default_factory=_floats)
    _low: "array[float]" = field(default_factory=_floats)
    _high: "array[float]" = field(default_factory=_floats)
    _limit: "array[float]" = field(default_factory=_floats)
    _row: "array[int]" = field(default_factory=_ints)
    _column: "array[int]" = field(default_factory=_ints)
    _value: "array[float]" = field(default_factory=_floats)

    @property
    def columns(self) -> int:
        """How many variables it has."""
        return len(self._cost)

    @property
    def entries(self) -> int:
        """How many coefficients its rows have."""
        return len(self._value)

    def column(self, *, cost: float, low: float = 0.0, high: float = np.inf) -> int:
        """Add a variable; return its number."""
        self._cost.append(cost)
        self._low.append(low)
        self._high.append(high)
        return len(self._cost) - 1

    def row(self, limit: float) -> int:
        """Add a row without terms; return its number."""
        self._limit.append(limit)
        return len(self._limit) - 1

    def term(self, row: int, column: int, value: float) -> None:
        """Add `value * x[column]` to a row; terms of one column in one row add up."""
        self._row.append(row)
        self._column.append(column)
        self._value.append(value)

    def least(self, *, time_limit_s: float) -> float:
        """Return the least cost, lowered by what the solver's tolerance may be worth.

        Raises:
            SolverError: There is none within the time.
        """
        found = self._solve(time_limit_s)
        scale = abs(float(found.fun)) + float(np.abs(found.x).max(initial=0.0))
        return float(found.fun) - _SLACK * scale

    def solution(self, *, time_limit_s: float) -> F64:
        """Return a cheapest x. Raises: see `least`."""
        return np.asarray(self._solve(time_limit_s).x, np.float64)

    def _solve(self, time_limit_s: float) -> Any:
        optimize, sparse = scipy()
        shape = (len(self._limit), len(self._cost))
        rows = sparse.csr_array((self._value, (self._row, self._column)), shape=shape)
        found = optimize.linprog(
            np.array(self._cost),
            A_ub=rows if shape[0] else None,
            b_ub=np.array(self._limit) if shape[0] else None,
            bounds=np.column_stack([self._low, self._high]),
            method="highs",
            options={"time_limit": time_limit_s},
        )
        if found.status != 0:
            raise SolverError(f"linear program of {shape[0]:,} rows: {found.message}")
        return found
