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

__all__ = [
    "FGD_WORKLOADS",
    "SHOWN",
    "TITLES",
    "Compared",
    "Published",
    "compare",
    "document",
    "read_published",
    "short_names",
]

FGD_WORKLOADS: Final = ("default", "cpu100", "gpushare40", "gpuspec20", "multigpu30")
SHOWN: Final = {"alloc": (80, 90, 95, 100, 130), "frag_ratio": (10, 50, 80, 90, 100)}
TITLES: Final = {
    "alloc": "GPUs allocated, % of all, mean over seeds, at arrived load %",
    "frag_ratio": "Fragments, % of idle GPUs, median over seeds, at arrived load %",
}
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
        spread: Standard deviation of theirs over seeds.
        most: Largest difference of any point of any seed, of values rounded to two decimals;
            loads at which nothing arrived are left out.
    """

    workload: str
    policy: str
    metric: str
    seeds: int
    ours: F64
    theirs: F64
    spread: F64
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
        spread=theirs.std(axis=0, ddof=1 if len(pairs) > 1 else 0),
        # In whole hundredths: a difference of two rounded numbers has noise of its own.
        most=float(np.nanmax(np.abs(np.rint(100 * ours) - np.rint(100 * theirs)))) / 100,
    )


def short_names(workloads: Sequence[str]) -> dict[str, str]:
    """Return names without the words that all of them begin with."""
    words = {name: name.split("_") for name in workloads}
    while (
        len(words) > 1
        and len({parts[0] for parts in words.values()}) == 1
        and min(map(len, words.values())) > 1
    ):
        words = {name: parts[1:] for name, parts in words.items()}
    return {name: "_".join(parts) for name, parts in words.items()}


def document(compared: Sequence[Compared], command: Sequence[str], circumstances: str) -> str:
    """Return the comparison as a page."""
    lines = [
        "# The published packing comparison, regenerated",
        "",
        "```sh",
        " ".join([*command, "--out", "packed"]),
        "```",
        "",
        circumstances,
        "",
        *_verdict(compared),
    ]
    shown = short_names([one.workload for one in compared])
    for metric in METRICS:
        loads = SHOWN[metric]
        lines += [f"## {TITLES[metric]}", "", "Ours / published.", ""]
        lines.append("| workload | policy | " + " | ".join(map(str, loads)) + " |")
        lines.append("|---|---|" + "--:|" * len(loads))
        for one in compared:
            if one.metric == metric:
                cells = [f"{one.ours[load]:.2f} / {one.theirs[load]:.2f}" for load in loads]
                lines.append(f"| {shown[one.workload]} | {one.policy} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _verdict(compared: Sequence[Compared]) -> list[str]:
    """Return the largest differences, then how random differs, which need not be equal."""
    shown = short_names([one.workload for one in compared])
    most = {(one.policy, one.workload, one.metric): one.most for one in compared}
    exact = [p for p in dict.fromkeys(one.policy for one in compared) if p != "random"]
    lines = [
        "## Largest difference of any point of any seed",
        "",
        "Allocation / fragments, in percent, over all 131 points of each curve.",
        "",
        "| policy | " + " | ".join(shown.values()) + " |",
        "|---|" + "--:|" * len(shown),
    ]
    for policy in exact:
        cells = [" / ".join(f"{most[policy, w, metric]:.2f}" for metric in METRICS) for w in shown]
        lines.append(f"| {policy} | {' | '.join(cells)} |")
    draws = [one for one in compared if one.policy == "random" and one.metric == "alloc"]
    if draws:
        lines += [
            "",
            "Random draws from a generator of its own; its allocation, mean over seeds, beside the",
            "published mean and standard deviation:",
            "",
            "| workload | at 100 | published | at 130 | published |",
            "|---|--:|--:|--:|--:|",
        ]
    for one in draws:
        ranges: list[str] = []
        for load in (100, 130):
            theirs = f"{one.theirs[load]:.2f} ± {one.spread[load]:.2f}"
            ranges += [f"{one.ours[load]:.2f}", theirs]
        lines.append(f"| {shown[one.workload]} | {' | '.join(ranges)} |")
    return [*lines, ""]
