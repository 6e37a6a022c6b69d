"""What a bench has measured, as a profile that the simulator loads."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from inferx.exec.agent.bench import Line, Results, Round, fit_line
from inferx.exec.agent.bench.results import StepName
from inferx.sim.profile import Basis, Operation, Stage, load_profile

__all__ = ["BASE", "profile_text"]

BASE = "criu-memfd"
"""Whose stages are kept where nothing was measured: on GPUs, cold, and between nodes."""
_REPLACED = frozenset({"container", "criu", "dump", "freeze", "thaw"})


@dataclass(frozen=True, slots=True)
class _Measured:
    name: str
    step: StepName
    tier: str = ""
    only_from: Literal["", "REMOTE", "NVME", "DRAM"] = ""
    link: str = "none"
    of_snapshot: bool = True


_STAGES: dict[Operation, tuple[_Measured, ...]] = {
    "restore": (
        _Measured("restore", "restore", "dram", "DRAM", "tier"),
        _Measured("restore", "restore_cold", "nvme", "NVME", "tier"),
        _Measured("restore", "restore_cold", "nvme", "REMOTE", "tier"),
    ),
    "resume": (_Measured("thaw", "resume", of_snapshot=False),),
    "suspend": (_Measured("freeze", "suspend", of_snapshot=False),),
    "snapshot": (_Measured("dump", "dump", "nvme", link="disk_write"),),
    "stop": (_Measured("stop", "stop", of_snapshot=False),),
}
"""Which of our steps each operation of the simulator is, for a pod without GPUs."""


def profile_text(results: Results, *, name: str) -> str:
    """Return the profile as TOML.

    An operation of which nothing was measured is the base's; so is what GPUs add to the others,
    each stage with the source that it has there. Cold starts are the base's as well: a worker of
    ours starts faster than any engine.
    """
    about = results.about
    summary = (
        f"Measured by inferx agent bench: pods of {about.sandbox} without GPUs, CRIU {about.criu};"
        f" what GPUs add, cold starts and copies are those of {BASE}."
    )
    lines = [f"name = {_text(name)}", f"summary = {_text(summary)}", f"inherits = {_text(BASE)}"]
    base = load_profile(BASE)
    for operation, wanted in _STAGES.items():
        stages = [stage for one in wanted for stage in _stage(one, results)]
        if not stages:
            continue
        kept = [one for one in base.operations.get(operation, ()) if one.name not in _REPLACED]
        if operation == "stop":
            kept = []
        # A pod's processes are back before its GPU state is; they are written after it has left.
        first, then = (kept, stages) if operation in {"suspend", "snapshot"} else (stages, kept)
        for stage in (*first, *then):
            lines += ["", f"[[{operation}]]", *_fields(stage)]
    return "\n".join(lines) + "\n"


def _stage(one: _Measured, results: Results) -> Iterator[Stage]:
    rounds = [r for r in results.rounds if r.engine == "paced" and one.tier in {"", r.tier}]
    points = list(_points(one, rounds))
    if not points:
        return
    line = fit_line(points)
    about = results.about
    grows = one.of_snapshot and line.bytes_per_s > 0
    basis: Basis = "assumed" if one.only_from == "REMOTE" else "measured"
    yield Stage(
        name=one.name,
        fixed_s=round(line.fixed_s, 6),
        bytes_of="snapshot" if grows else "none",
        link=one.link if grows else "none",
        cap_bytes_per_s=round(line.bytes_per_s) if grows else 0,
        jitter_cv=round(line.spread, 3),
        only_from=one.only_from,
        basis=basis,
        source=_source(one, line, points, about.command, about.commit),
        machine=f"{about.machine}, Linux {about.kernel}, no GPU",
        date=about.date,
    )


def _points(one: _Measured, rounds: Sequence[Round]) -> Iterator[tuple[int, float]]:
    for found in rounds:
        for step in found.steps:
            if step.name == one.step:
                yield found.snapshot_bytes if one.of_snapshot else 0, step.seconds


def _source(
    one: _Measured, line: Line, points: Sequence[tuple[int, float]], command: str, commit: str
) -> str:
    sizes = [size for size, _ in points]
    span = f", {min(sizes) / 1e6:,.0f} to {max(sizes) / 1e6:,.0f} MB" if one.of_snapshot else ""
    taken = "As from the disk, where this was measured: " if one.only_from == "REMOTE" else ""
    return (
        f"{taken}{command} at commit {commit or 'unknown'}: {one.step}, least squares of"
        f" {line.count} times{span}; spread {100 * line.spread:.0f} %"
    )


def _fields(stage: Stage) -> Iterator[str]:
    """Yield a stage's lines of TOML, without what is as it is by default."""
    told = msgspec.to_builtins(stage)
    for field in msgspec.structs.fields(Stage):
        value = told[field.name]
        if value != field.default:
            yield f"{field.name} = {_text(value) if isinstance(value, str) else _number(value)}"


def _text(value: str) -> str:
    """Return a TOML string: JSON's escapes are TOML's, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _number(value: bool | float) -> str:  # noqa: FBT001 - TOML has three kinds of values.
    return str(value).lower() if isinstance(value, bool) else repr(value)
