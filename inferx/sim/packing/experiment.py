"""The published comparison: ours beside the authors' numbers, point by point.

Source: Weng et al., "Beware of Fragmentation", USENIX ATC 2023, figures 7 and 9; the numbers are
those of the authors' artefact, analysis_allo_discrete.csv and analysis_frag_ratio_discrete.csv.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from inferx.core.errors import DescriptionError
from inferx.core.types import F64
from inferx.sim.packing.curves import LOADS, METRICS
from inferx.sim.packing.runs import PackRun

__all__ = ["FGD_WORKLOADS", "Compared", "Published", "compare", "read_published"]

FGD_WORKLOADS: Final = ("default", "cpu100", "gpushare40", "gpuspec20", "multigpu30")
_FILES: Final = {
    "alloc": "analysis_allo_discrete.csv",
    "frag_ratio": "analysis_frag_ratio_discrete.csv",
}
_NAMES: Final = {
    "01-Random": "random",
    "02-DotProd": "dotprod",
    "03-GpuClustering": "gpu-clustering",
    "04-GpuPacking": "gpu-packing",
    "05-BestFit": "best-fit",
    "06-FGD": "fgd",
}

Published = dict[tuple[str, str, int, str], F64]
"""Workload, policy, seed and metric -> a curve of shape (131,)."""


def read_published(folder: Path) -> Published:
    """Read the authors' curves.

    Raises:
        DescriptionError: A file is missing, or is not what it should be.
    """
    found: Published = {}
    for metric, name in _FILES.items():
        path = folder / name
        if not path.is_file():
            raise DescriptionError(f"{path}: no such file; expected the authors' {name}")
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                try:
                    key = (row["workload"], _NAMES[row["sc_policy"]], int(row["seed"]), metric)
                    found[key] = np.array([float(row[str(load)]) for load in range(LOADS)])
                except (KeyError, ValueError, TypeError) as error:
                    raise DescriptionError(f"{path}: not the authors' curves: {error}") from error
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Ours and theirs, of one workload, policy and metric, over the seeds that both have.

    Attributes:
        ours: Mean over seeds (`alloc`), or median (`frag_ratio`), as the authors show them.
        theirs: The same.
        most: Largest difference of any point of any seed, of values rounded to two decimals;
            loads at which nothing arrived are left out.
    """

    workload: str
    policy: str
    metric: str
    seeds: int
    ours: F64
    theirs: F64
    most: float


def compare(runs: Iterable[PackRun], published: Published) -> list[Compared]:
    """Put runs beside the published ones; runs that nobody published are left out."""
    groups: dict[tuple[str, str, str], list[tuple[F64, F64]]] = {}
    for run in runs:
        for metric in METRICS:
            theirs = published.get((run.workload, run.policy, run.seed, metric))
            if theirs is not None:
                pairs = groups.setdefault((run.workload, run.policy, metric), [])
                pairs.append((run.curves.of(metric), np.round(theirs, 2)))
    return [_compared(*key, pairs) for key, pairs in groups.items()]


def _compared(
    workload: str, policy: str, metric: str, pairs: Sequence[tuple[F64, F64]]
) -> Compared:
    ours, theirs = (np.array(side) for side in zip(*pairs, strict=True))
    middle = np.mean if metric == "alloc" else np.median
    return Compared(
        workload=workload,
        policy=policy,
        metric=metric,
        seeds=len(pairs),
        ours=middle(ours, axis=0),
        theirs=middle(theirs, axis=0),
        # In whole hundredths: a difference of two rounded numbers has noise of its own.
        most=float(np.nanmax(np.abs(np.rint(100 * ours) - np.rint(100 * theirs)))) / 100,
    )
