"""What `inferx pack` leaves on disk: a directory, complete or not there at all.

curves.csv     a row a workload, policy, seed and metric; a column a percent of arrived load
summary.json   a row a workload, policy and seed
manifest.json  command, inputs with checksums, versions, commit
"""

import csv
import io
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from inferx.core.errors import InferXError
from inferx.core.units import MILLI_PER_GPU
from inferx.sim.aside import make_aside, put_in_place
from inferx.sim.manifest import facts_of, git_fact, versions
from inferx.sim.packing.curves import LOADS, METRICS
from inferx.sim.packing.runs import PackRun

__all__ = ["PackOutputError", "PackRow", "curves_csv", "refuse_early", "rows_of", "write_pack"]

_LOADS_TOLD: Final = (100, 130)


class PackOutputError(InferXError):
    """A directory that cannot be written as asked."""


class PackRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run. None where no arrival came at that load.

    Percent are of all GPUs (`alloc`, `placed`, `optimum`), of what is idle of them (`frag_ratio`),
    and of the optimum (`regret`). What belongs to the optimum is there if that was asked for.
    """

    workload: str
    policy: str
    seed: int
    arrivals: int
    placed: int
    placed_milli: int
    placed_percent: float
    alloc_percent_at_100: float | None
    alloc_percent_at_130: float | None
    frag_ratio_percent_at_100: float | None
    frag_ratio_percent_at_130: float | None
    optimum_milli: int | None = None
    optimum_percent: float | None = None
    regret_percent: float | None = None


def rows_of(runs: Sequence[PackRun]) -> list[PackRow]:
    """Return the summary of each run."""

    def at(run: PackRun, metric: str, load: int) -> float | None:
        value = float(run.curves.of(metric)[load])
        return None if np.isnan(value) else value

    return [
        PackRow(
            workload=run.workload,
            policy=run.policy,
            seed=run.seed,
            arrivals=run.arrivals,
            placed=run.placed,
            placed_milli=run.placed_milli,
            placed_percent=_percent(run.placed_milli, run.gpus * MILLI_PER_GPU),
            alloc_percent_at_100=at(run, "alloc", 100),
            alloc_percent_at_130=at(run, "alloc", 130),
            frag_ratio_percent_at_100=at(run, "frag_ratio", 100),
            frag_ratio_percent_at_130=at(run, "frag_ratio", 130),
            optimum_milli=run.optimum_milli,
            optimum_percent=None
            if run.optimum_milli is None
            else _percent(run.optimum_milli, run.gpus * MILLI_PER_GPU),
            regret_percent=None
            if run.optimum_milli is None
            else _percent(run.optimum_milli - run.placed_milli, run.optimum_milli),
        )
        for run in runs
    ]


def _percent(part: int, whole: int) -> float:
    """Return 0 of nothing: where nothing can be placed, nobody falls short."""
    return 100 * part / whole if whole else 0.0


def curves_csv(runs: Sequence[PackRun]) -> str:
    """Return the curves as CSV: percent, two decimals; empty where nothing arrived."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["workload", "policy", "seed", "metric", *range(LOADS)])
    for run in runs:
        for metric in METRICS:
            points = ["" if np.isnan(p) else f"{p:.2f}" for p in run.curves.of(metric).tolist()]
            writer.writerow([run.workload, run.policy, run.seed, metric, *points])
    return text.getvalue()


def refuse_early(out: Path, *, overwrite: bool) -> None:
    """Refuse at once what would be refused at the end.

    Raises:
        PackOutputError: Something is there that is not ours, or that may not be replaced.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite:
        raise PackOutputError(f"{out} exists; choose another name, or give --overwrite")
    if not (out.is_dir() and (out / "curves.csv").is_file() and (out / "manifest.json").is_file()):
        raise PackOutputError(f"{out} is not what `inferx pack` wrote; it is left alone")


def write_pack(
    out: Path,
    runs: Sequence[PackRun],
    *,
    command: Sequence[str],
    inputs: Mapping[str, Path],
    shown: Callable[[Path], str],
    attached: Mapping[str, str],
    overwrite: bool,
) -> None:
    """Write the directory, aside first.

    Args:
        out: The directory.
        runs: What to write.
        command: As the manifest tells it.
        inputs: Files that the result depends on, by role.
        shown: How the manifest calls an input.
        attached: Further files, by name.
        overwrite: Whether a former one is replaced.

    Raises:
        PackOutputError: See `refuse_early`.
    """
    refuse_early(out, overwrite=overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = make_aside(out)
    try:
        (aside / "curves.csv").write_text(curves_csv(runs), "utf-8")
        (aside / "summary.json").write_bytes(_json(rows_of(runs)))
        manifest = {
            "command": list(command),
            "inputs": {
                role: msgspec.to_builtins(facts_of(path, shown(path)))
                for role, path in sorted(inputs.items())
            },
            "versions": versions(),
            "git": msgspec.to_builtins(git_fact()),
            "wall_clock": {"finished": datetime.now(UTC).isoformat(timespec="seconds")},
        }
        (aside / "manifest.json").write_bytes(_json(manifest))
        for name, text in attached.items():
            (aside / name).write_text(text, "utf-8")
        mask = os.umask(0)
        os.umask(mask)
        aside.chmod(0o777 & ~mask)
        put_in_place(aside, out)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value, order="deterministic"), indent=2) + b"\n"
