"""How much of the cluster a pod takes: inequalities that every packing of pods onto GPUs meets.

Beside the sums of GPU memory and of compute over all GPUs, each goes through dual feasible
functions: u with sum(u(x)) <= 1 for every set of sizes with sum(x) <= 1. So three pods of 60 % of a
GPU need three GPUs, where the sums ask for 1.8.

Source: Fekete and Schepers, New classes of fast lower bounds for bin packing problems, Mathematical
Programming 91(1), 2001, pp. 11-31, theorem 1 (u^(k)).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from inferx.core.types import F64, FunctionSpec, NodeSpec
from inferx.core.units import MILLI_PER_GPU

__all__ = ["Room", "dual_feasible", "room_of"]

_ORDERS: Final = (1, 2, 3, 4)


@dataclass(frozen=True, slots=True)
class Room:
    """Inequalities `pods @ taken[i] <= total[i]`, for the pods on GPUs at any instant."""

    names: tuple[str, ...]
    taken: F64
    """Of one pod. Shape (inequalities, functions)."""
    total: F64
    """Shape (inequalities,)."""


def dual_feasible(size: Fraction, order: int) -> Fraction:
    """Return u^(order) of a size in [0, 1]: itself where (order + 1) of it are whole."""
    scaled = size * (order + 1)
    return (
        size if scaled.denominator == 1 else Fraction(scaled.numerator // scaled.denominator, order)
    )


def room_of(functions: Sequence[FunctionSpec], nodes: Sequence[NodeSpec]) -> Room:
    """Return the inequalities of a cluster; those that say nothing are left out."""
    gpus = sum(node.gpus for node in nodes)
    largest = max(node.hbm_bytes for node in nodes)
    hbm = [Fraction(min(f.hbm_bytes, largest), largest) for f in functions]
    milli = [Fraction(min(f.milli_gpu, MILLI_PER_GPU), MILLI_PER_GPU) for f in functions]
    whole = sum(node.gpus * node.hbm_bytes for node in nodes) / largest
    rows: dict[str, tuple[list[float], float]] = {
        "hbm": ([float(size) for size in hbm], whole),
        "milli": ([float(size) for size in milli], float(gpus)),
        "host": (
            [f.host_bytes / f.gpus / largest for f in functions],
            sum(node.host_bytes for node in nodes) / largest,
        ),
    }
    for order in _ORDERS:
        for name, sizes in (("hbm", hbm), ("milli", milli)):
            taken = [float(dual_feasible(size, order)) for size in sizes]
            rows[f"{name}-u{order}"] = (taken, float(gpus))
    slices = np.array([function.gpus for function in functions], np.float64)
    per_pod = np.array([row[0] for row in rows.values()], np.float64) * slices
    total = np.array([row[1] for row in rows.values()], np.float64)
    kept = _undominated(per_pod / total[:, None])
    return Room(tuple(list(rows)[row] for row in kept), per_pod[kept], total[kept])


def _undominated(share: F64) -> list[int]:
    """Return the rows that are nowhere below another one; of equal rows the first."""
    kept: list[int] = []
    for row in range(len(share)):
        above = (share >= share[row] * (1 - 1e-12)).all(axis=1)
        above[row] = False
        # Of two that say the same, the later yields.
        same = above & (share <= share[row] * (1 + 1e-12)).all(axis=1)
        above[same & (np.arange(len(share)) > row)] = False
        if share[row].any() and not above.any():
            kept.append(row)
    return kept
