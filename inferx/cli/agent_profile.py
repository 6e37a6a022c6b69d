"""What a bench has measured, as a profile that the simulator loads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from inferx.cli.profile_lines import interference_lines, stage_lines, toml_text
from inferx.exec.agent.bench import Line, Results, Round, fit_line
from inferx.exec.agent.bench.results import StepName
from inferx.sim.profile import Basis, Operation, Stage, load_profile
from inferx.spec.shape import ENFORCEMENTS

__all__ = ["BASE", "profile_text"]

BASE = "criu-memfd"
"""Whose stages are kept where nothing was measured: on GPUs, cold, and between nodes."""
_MEASURED: Basis = "measured"
_ASSUMED: Basis = "assumed"
_REPLACED = frozenset({"container", "criu", "dump", "freeze", "thaw"})


@dataclass(frozen=True, slots=True)
class _Measured:
    """A stage, and the step that it is measured by; or else what it is assumed to be like.

    Attributes:
        tier: Of the rounds that count; empty for all.
        bytes_of: What the time grows with; empty for nothing.
        instead: Step and tier that are taken where there are none.
    """

    name: str
    step: StepName
    tier: str = ""
    only_from: Literal["", "REMOTE", "NVME", "DRAM"] = ""
    link: str = ""
    bytes_of: Literal["", "snapshot", "weights"] = ""
    instead: tuple[StepName, str] | None = None


_STAGES: dict[Operation, tuple[_Measured, ...]] = {
    "restore": (
        _Measured("restore", "restore", "dram", "DRAM", "tier", instead=("restore", "nvme")),
        _Measured("restore", "restore_cold", "nvme", "NVME", "tier"),
        _Measured(
            "restore", "restore_cold", "shared", "REMOTE", "tier", instead=("restore_cold", "nvme")
        ),
    ),
    "resume": (_Measured("thaw", "resume"),),
    "suspend": (_Measured("freeze", "suspend"),),
    "snapshot": (_Measured("dump", "dump", "nvme", link="disk_write"),),
    "stop": (_Measured("stop", "stop"),),
}
"""Which of our steps each operation of the simulator is, for a pod without GPUs."""

_WORKERS: dict[Operation, tuple[_Measured, ...]] = {
    "cold": (_Measured("start", "cold", bytes_of="weights"),),
    "restore": (
        _Measured("restore", "restore", "nvme", "NVME", "none"),
        _Measured("restore", "restore", "shared", "REMOTE", "none", instead=("restore", "nvme")),
    ),
    "resume": (_Measured("thaw", "resume"),),
    "suspend": (_Measured("freeze", "suspend"),),
    "snapshot": (_Measured("dump", "dump", "nvme", link="none"),),
    "stop": (_Measured("stop", "stop"),),
}
"""The same of a cluster of such workers on this machine, as `inferx up` makes one.

Their GPUs are declared and hold nothing. What was just dumped is restored from the page cache, so
no link of the node is crossed. Cold starts are the workers' own.
"""


def profile_text(results: Results, *, name: str, of_workers: bool = False) -> str:
    """Return the profile as TOML.

    An operation of which nothing was measured is the base's; so is what GPUs add to the others,
    each stage with the source that it has there. Cold starts are the base's as well: a worker of
    ours starts faster than any engine. But `of_workers` makes it such workers' own, see `_WORKERS`.
    """
    about = results.about
    rest = (
        "for clusters of such workers on one machine"
        if of_workers
        else f"what GPUs add, cold starts and copies are those of {BASE}"
    )
    summary = (
        f"Measured by inferx agent bench: pods of {about.sandbox} without GPUs, CRIU {about.criu};"
        f" {rest}."
    )
    lines = [
        f"name = {toml_text(name)}",
        f"summary = {toml_text(summary)}",
        f"inherits = {toml_text(BASE)}",
    ]
    base = load_profile(BASE)
    for operation, wanted in (_WORKERS if of_workers else _STAGES).items():
        stages = [_stage(one, results) for one in wanted]
        if None in stages:
            # A part of an operation would be faster than all of it.
            continue
        kept = [one for one in base.operations.get(operation, ()) if one.name not in _REPLACED]
        if operation == "stop" or of_workers:
            kept = []
        # A pod's processes are back before its GPU state is; they are written after it has left.
        first, then = (kept, stages) if operation in {"suspend", "snapshot"} else (stages, kept)
        for stage in filter(None, (*first, *then)):
            lines += stage_lines(operation, stage)
    if of_workers:
        alone: dict[str, float] = dict.fromkeys(ENFORCEMENTS, 0.0)
        why = "Nothing is on GPUs that are declared"
        lines += interference_lines(alone, source=why, date=about.date)
    return "\n".join(lines) + "\n"


def _stage(one: _Measured, results: Results) -> Stage | None:
    about = results.about
    step, tier, basis = one.step, one.tier, _MEASURED
    weights = one.bytes_of == "weights"
    points = _points(results.rounds, step, tier, weights=weights)
    if not points and one.instead is not None:
        (step, tier), basis = one.instead, _ASSUMED
        points = _points(results.rounds, step, tier, weights=weights)
    if not points:
        return None
    moves = bool(one.bytes_of or one.link)
    line = fit_line(points if moves else [(0, seconds) for _, seconds in points])
    grows = line.bytes_per_s > 0
    return Stage(
        name=one.name,
        fixed_s=round(line.fixed_s, 6),
        bytes_of=(one.bytes_of or "snapshot") if grows else "none",
        link=(one.link or "none") if grows else "none",
        cap_bytes_per_s=round(line.bytes_per_s) if grows else 0,
        jitter_cv=round(line.spread, 3),
        only_from=one.only_from,
        basis=basis,
        source=(
            f"{'' if basis == _MEASURED else f'As from {tier}: '}{about.command} at commit"
            f" {about.commit or 'unknown'}: {_told(step, line, points if moves else [])}"
        ),
        machine=f"{about.machine}, Linux {about.kernel}, no GPU used",
        date=about.date,
    )


def _points(
    rounds: Sequence[Round], step: StepName, tier: str, *, weights: bool
) -> list[tuple[int, float]]:
    return [
        (one.weight_bytes if weights else one.snapshot_bytes, taken.seconds)
        for one in rounds
        if one.engine == "paced" and tier in {"", one.tier}
        for taken in one.steps
        if taken.name == step
    ]


def _told(step: StepName, line: Line, points: Sequence[tuple[int, float]]) -> str:
    sizes = [size for size, _ in points]
    span = f", {min(sizes) / 1e6:,.0f} to {max(sizes) / 1e6:,.0f} MB" if sizes else ""
    return f"{step}, least squares of {line.count} times{span}; spread {100 * line.spread:.0f} %"
