"""What a run of a real cluster has measured, as a profile that predicts other runs of it."""

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import numpy as np
from msgspec.structs import replace

from inferx.cli.profile_lines import (
    interference_lines,
    serving_lines,
    stage_lines,
    toml_text,
)
from inferx.core.commands import Copy, Create, Restore, Resume, Snapshot, Stop, Suspend
from inferx.core.events import (
    FunctionDefined,
    PhaseTiming,
    PodGone,
    PodReady,
    PodSuspended,
    SnapshotCopied,
    SnapshotTaken,
)
from inferx.core.types import FunctionSpec, Tier
from inferx.core.units import NS_PER_S
from inferx.exec.agent.bench import Line, fit_line
from inferx.sim.manifest import git_fact
from inferx.sim.observed import Heard
from inferx.sim.profile import EVERY, BytesOf, Operation, Profile, Stage
from inferx.sim.record import Cause, Outcome, RunRecord
from inferx.spec.serving import ServingSpec

__all__ = ["About", "about_run", "calibrated"]

LEAST_WARM: Final = 5
"""Warm requests from which on a function has a speed of its own."""
LEAST_S: Final = 1e-6
"""What is faster took no time that two clocks could tell."""
USUAL: Final = 4.0
"""Ways longer than so many medians waited behind another operation: the agent has them in a row."""
_BYTES: Final[dict[Operation, BytesOf]] = {
    "cold": "weights",
    "restore": "snapshot",
    "snapshot": "snapshot",
    "copy_in": "snapshot",
    "copy_out": "snapshot",
}
"""What an operation's time may grow with; others' times are fixed."""
_Key = tuple[Operation, str]


class _Point(NamedTuple):
    """One operation: whose, what its own phases took, and from command to the news of its end."""

    spec: FunctionSpec
    own_s: float | None
    whole_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Where a profile's numbers come from."""

    name: str
    source: str
    machine: str
    date: str


def about_run(name: str) -> About:
    """Return where the numbers of a run that has just ended come from."""
    git = git_fact()
    commit = "unknown" if git is None else f"{git.commit}{'+changes' if git.dirty else ''}"
    now = datetime.now(UTC)
    return About(
        name=name,
        source=f"inferx drive --calibrate at commit {commit}",
        machine=f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.release()}",
        date=now.isoformat(timespec="seconds"),
    )


@dataclass(slots=True)
class _Times:
    """Operations that were commanded, and how long each took by the scheduler's clock."""

    functions: list[FunctionSpec] = field(default_factory=list[FunctionSpec])
    points: dict[_Key, list[_Point]] = field(default_factory=dict[_Key, list[_Point]])
    begun: dict[tuple[str, int], tuple[_Key, int, int]] = field(
        default_factory=dict[tuple[str, int], tuple[_Key, int, int]]
    )
    """What is under way, by the answer that ends it and whose: key, when, function."""

    def take(self, step: Heard) -> None:
        for event in step.events:
            self._told(step.now_ns, event)
        for command in step.commands:
            self._commanded(step.now_ns, command)

    def _commanded(self, now_ns: int, command: Any) -> None:
        what: Operation
        tier = ""
        match command:
            case Create():
                what, ends = "cold", "ready"
            case Restore() if command.gpus:
                what, ends, tier = "restore", "ready", command.source.name
            case Resume():
                what, ends = "resume", "ready"
            case Suspend():
                what, ends = "suspend", "suspended"
            case Snapshot():
                what, ends = "snapshot", "taken"
            case Stop():
                what, ends = "stop", "gone"
            case Copy():
                what, ends = "copy_in" if command.target is Tier.NVME else "copy_out", "copied"
            case _:
                return
        whose = int(command.function if isinstance(command, Copy) else command.pod)
        key: _Key = (what, tier)
        # One that is repeated began when it was commanded first.
        self.begun.setdefault((ends, whose), (key, now_ns, int(command.function)))

    def _told(self, now_ns: int, event: Any) -> None:
        match event:
            case FunctionDefined(function, spec):
                self.functions[function : function + 1] = [spec]
            case PodReady(pod=pod, phases=phases):
                self._ended(now_ns, "ready", pod, phases)
            case PodSuspended(pod=pod, phases=phases):
                self._ended(now_ns, "suspended", pod, phases)
            case SnapshotTaken(pod=pod, phases=phases):
                self._ended(now_ns, "taken", pod, phases)
            case PodGone(pod=pod):
                self._ended(now_ns, "gone", pod)
            case SnapshotCopied(function=function, ok=True):
                self._ended(now_ns, "copied", function)
            case _:
                pass

    def _ended(self, now_ns: int, how: str, whose: int, phases: Sequence[PhaseTiming] = ()) -> None:
        found = self.begun.pop((how, whose), None)
        if found is not None:
            key, began_ns, function = found
            own_s = sum(one.duration_ns for one in phases) / NS_PER_S if phases else None
            point = _Point(self.functions[function], own_s, (now_ns - began_ns) / NS_PER_S)
            self.points.setdefault(key, []).append(point)

    def ways(self) -> dict[_Key, list[float]]:
        """Return what each operation took beyond its phases: the way of command and news, records.

        Those much longer than is usual waited for another operation on the same GPU.
        """
        found: dict[_Key, list[float]] = {}
        for key, points in self.points.items():
            beyond = [
                max(LEAST_S, one.whole_s - one.own_s) for one in points if one.own_s is not None
            ]
            if beyond:
                most_s = USUAL * float(np.median(beyond))
                found[key] = [one for one in beyond if one <= most_s]
        return found

    def seconds(self) -> dict[_Key, list[tuple[FunctionSpec, float]]]:
        """Return what each operation took on its node, without the wait for others on its GPU.

        That is what its phases took. What tells of no phases has all its time from its command on.
        """
        return {
            key: [
                (one.spec, max(LEAST_S, one.whole_s if one.own_s is None else one.own_s))
                for one in points
            ]
            for key, points in self.points.items()
        }


def calibrated(heard: Sequence[Heard], record: RunRecord, base: Profile, about: About) -> str:
    """Return a profile as TOML: what the run did at least once by its times, the rest the base's.

    An operation took what its node tells, beside whatever else the node did meanwhile. The way of
    command and news, and what is made durable on it, is an untold stage before: a scheduler learns
    from phases alone. A function's speed is the median of its requests that did not wait.
    """
    times = _Times()
    for step in heard:
        if step.machine == 0:
            times.take(step)
    took, ways = times.seconds(), times.ways()
    lines = [f"name = {toml_text(about.name)}", f"summary = {toml_text(about.source)}"]
    for operation, kept in base.operations.items():
        measured = list(_stages(operation, took, ways, about))
        for stage in measured or kept:
            lines += stage_lines(operation, stage)
    why = f"As in {base.name}"
    lines += interference_lines(base.per_neighbour, source=why, date=about.date)
    speeds = {row[0]: row for row in _speeds(record)}
    for function, known in base.speeds.items():
        if function not in speeds:
            lines += serving_lines(function, known, source=why, date=about.date)
    for function, speed, count in speeds.values():
        source = f"{about.source}: medians of {count} requests"
        told = {"source": source, "date": about.date, "machine": about.machine}
        lines += serving_lines(function, speed, **told, basis="measured")
    return "\n".join(lines) + "\n"


def _stages(
    operation: Operation,
    points: Mapping[_Key, Sequence[tuple[FunctionSpec, float]]],
    ways: Mapping[_Key, Sequence[float]],
    about: About,
) -> Iterator[Stage]:
    tiers = {tier: found for (what, tier), found in points.items() if what == operation}
    wanted = ("NVME", "REMOTE") if operation == "restore" else ("",)
    for tier in wanted if tiers else ():
        like = tier if tier in tiers else next(iter(tiers))
        assumed = "" if like == tier else like
        way = ways.get((operation, like))
        if way is not None:
            line = fit_line([(0, one) for one in way])
            yield replace(_as_stage("order", line, about, tier=tier, like=assumed), untold=True)
        yield _stage(operation, tier, tiers[like], about, like=assumed)


def _stage(
    operation: Operation,
    tier: str,
    points: Sequence[tuple[FunctionSpec, float]],
    about: About,
    *,
    like: str,
) -> Stage:
    of: BytesOf = _BYTES.get(operation, "none")

    def size(spec: FunctionSpec) -> int:
        return {"weights": spec.weight_bytes, "snapshot": spec.snapshot_bytes}.get(of, 0)

    line = fit_line([(size(spec), seconds) for spec, seconds in points])
    return _as_stage(operation, line, about, of=of, tier=tier, like=like)


def _as_stage(
    name: str, line: Line, about: About, *, of: BytesOf = "none", tier: str = "", like: str = ""
) -> Stage:
    grows = line.bytes_per_s > 0
    return Stage(
        name=name,
        fixed_s=round(line.fixed_s, 6),
        bytes_of=of if grows else "none",
        cap_bytes_per_s=round(line.bytes_per_s) if grows else 0,
        jitter_cv=round(line.spread, 3),
        only_from=tier,  # type: ignore[arg-type]  # a tier's name
        basis="assumed" if like else "measured",
        source=f"{f'As from {like}: ' if like else ''}{about.source}: {line.count} times",
        machine=about.machine,
        date=about.date,
    )


def _speeds(record: RunRecord) -> Iterator[tuple[str, ServingSpec, int]]:
    """Yield functions, their speeds, and how many requests tell so."""
    q = record.requests
    warm = (np.asarray(q.outcome) == Outcome.FINISHED) & (np.asarray(q.cause) == Cause.WARM)
    warm &= (q.first_ns > q.arrived_ns) & (q.output_tokens > 1) & (q.input_tokens > 0)
    kinds = {spec.name: warm & (q.function == row) for row, spec in enumerate(record.functions)}
    for function, rows in {EVERY: warm, **kinds}.items():
        count = int(rows.sum())
        if count >= LEAST_WARM:
            first_s = (q.first_ns - q.arrived_ns)[rows] / NS_PER_S
            token_ns = (q.finished_ns - q.first_ns)[rows] / (q.output_tokens[rows] - 1)
            speed = ServingSpec(
                prefill_tokens_per_s=max(1, round(np.median(q.input_tokens[rows] / first_s))),
                decode_base_ns=max(1, round(np.median(token_ns))),
                decode_per_request_ns=0,
            )
            yield function, speed, count
