"""What a bench has found: plain data, kept as JSON."""

import statistics
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from inferx.core.events import PhaseTiming
from inferx.exec.agent.store import TierName

__all__ = [
    "About",
    "Clones",
    "Engine",
    "Floor",
    "FloorName",
    "Results",
    "Round",
    "Step",
    "StepName",
    "medians",
]

Engine = Literal["paced", "torch"]
StepName = Literal[
    "cold", "suspend", "resume", "dump", "restore", "restore_cold", "restore_lazy", "stop"
]
FloorName = Literal["write", "read", "read_cold"]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One action on a pod.

    Attributes:
        seconds: From the call; to the first right answer, where the pod serves afterwards.
        phases: The agent's own steps of it.
    """

    name: StepName
    seconds: float
    phases: tuple[PhaseTiming, ...]


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """What `dd` took for a snapshot's bytes, by its own count."""

    name: FloorName
    moved_bytes: int
    seconds: float


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One pod's life: started, suspended, resumed, dumped, restored in several ways, stopped.

    Attributes:
        weight_bytes: What was asked for; the snapshot holds the interpreter, too.
        snapshot_bytes: All files of the snapshot.
        skipped: What could not be done here, and why, by the name of the step.
    """

    engine: Engine
    weight_bytes: int
    tier: TierName
    snapshot_bytes: int
    steps: tuple[Step, ...]
    floors: tuple[Floor, ...]
    skipped: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])


class Clones(msgspec.Struct, frozen=True, kw_only=True):
    """Several pods restored from one snapshot at once; memory and answer of each were right.

    Attributes:
        seconds: From the first call to the last pod's first answer.
        each_s: The same for each pod.
    """

    engine: Engine
    weight_bytes: int
    tier: TierName
    snapshot_bytes: int
    seconds: float
    each_s: tuple[float, ...]


class About(msgspec.Struct, frozen=True, kw_only=True):
    """Where results come from.

    Attributes:
        gpus: Who told of the GPUs, and how many: a library's file, `declared`, or nobody.
        finished: Whether all that was asked for has been measured.
    """

    command: str
    commit: str
    date: str
    machine: str
    kernel: str
    sandbox: str
    snapshotter: str
    network: str
    criu: str
    gpus: str
    seed: int
    rounds: int
    finished: bool = True


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """One bench."""

    about: About
    rounds: tuple[Round, ...]
    clones: tuple[Clones, ...] = ()


def medians(rounds: Iterable[Round]) -> dict[str, float]:
    """Return the median seconds of each step, and of each floor, as `floor/NAME`."""
    found: dict[str, list[float]] = {}
    for one in rounds:
        for step in one.steps:
            found.setdefault(step.name, []).append(step.seconds)
        for floor in one.floors:
            found.setdefault(f"floor/{floor.name}", []).append(floor.seconds)
    return {name: statistics.median(seconds) for name, seconds in found.items()}
