"""Reads the journals of a running cluster's machines: each step, which comes out the same again."""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from inferx.core.errors import DescriptionError
from inferx.core.events import FunctionDefined
from inferx.core.explain import Decision
from inferx.core.journal import Entry, JournalError, JournalReader, decoded, replay
from inferx.core.machine.scheduler import Scheduler
from inferx.core.types import FunctionSpec, NodeSpec
from inferx.exec.journal import make
from inferx.load import Setting, load_bundle
from inferx.sim.observed import Heard

__all__ = ["Journals", "read_journals"]


@dataclass(frozen=True, slots=True)
class Journals:
    """What a cluster's journals hold.

    Attributes:
        heard: Every step, in order of time.
        nodes: By their numbers.
        functions: By their numbers, as they were defined.
        sliced: The same, as the policy slices them.
        decisions: The scheduler's.
        counters: Its counts so far.
        policy: Name of its bundle, as its command line has it.
        settings: Of the bundle.
        seed: Of its random streams.
        routers: How many gateways there are.
    """

    heard: list[Heard]
    nodes: tuple[NodeSpec, ...]
    functions: tuple[FunctionSpec, ...]
    sliced: tuple[FunctionSpec, ...]
    decisions: list[Decision]
    counters: dict[str, int]
    policy: str
    settings: dict[str, Setting]
    seed: int
    routers: int


class _Told(NamedTuple):
    machine: Any
    config: dict[str, Any]
    heard: list[Heard]


def read_journals(folder: Path) -> Journals:
    """Read all journals in a folder, which may still grow.

    Raises:
        DescriptionError: There is not exactly one scheduler's, or no gateway's.
        JournalError: One cannot be read, or its machine would answer otherwise now.
    """
    schedulers = sorted(folder.glob("scheduler-*.journal"))
    routers = sorted(folder.glob("router-*.journal"))
    if len(schedulers) != 1 or not routers:
        raise DescriptionError(
            f"{folder}: {len(schedulers)} journals of schedulers, {len(routers)} of gateways;"
            " expected one of a scheduler, and at least one of a gateway"
        )
    decisions: list[Decision] = []
    led = _read(schedulers[0], 0, on_decision=decisions.append, explain=True)
    assert isinstance(led.machine, Scheduler), "a journal of another kind has another name"
    others = [_read(path, number) for number, path in enumerate(routers, 1)]
    heard = heapq.merge(led.heard, *(one.heard for one in others), key=lambda one: one.now_ns)
    return Journals(
        heard=list(heard),
        nodes=tuple(led.machine.cluster.nodes),
        functions=tuple(_defined(led.heard)),
        sliced=tuple(led.machine.cluster.functions),
        decisions=decisions,
        counters=dict(led.machine.fleet.counters),
        policy=led.config["policy"],
        settings=led.config["settings"],
        seed=led.config["seed"],
        routers=len(routers),
    )


def _defined(heard: Sequence[Heard]) -> list[FunctionSpec]:
    found: list[FunctionSpec] = []
    for step in heard:
        for event in step.events:
            if isinstance(event, FunctionDefined):
                # One that is known is served anew; a new one has the next number.
                found[event.function : event.function + 1] = [event.spec]
    return found


def _read(path: Path, number: int, **more: Any) -> _Told:
    heard: list[Heard] = []
    try:
        with path.open("rb") as file:
            reader = JournalReader(file)

            def noted() -> Iterator[Entry]:
                for index, entry in enumerate(reader):
                    events, step = decoded(reader.machine, index, entry)
                    heard.append(Heard(entry.now_ns, number, events, step.commands))
                    yield entry

            machine = make(reader.machine, reader.config, load_bundle, **more)
            divergence = replay(reader.machine, machine, noted())
    except OSError as error:
        raise JournalError(f"{path}: {error.strerror or error}") from error
    if divergence is not None:
        raise JournalError(
            f"{path}: its machine answers step {divergence.entry} otherwise now;"
            " expected the policy and the version that wrote it"
        )
    return _Told(machine, reader.config, heard)
