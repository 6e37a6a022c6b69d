"""Turns what `inferx replay` was asked for into jobs; every bad description is found here.

A seed is one replication of the whole experiment: it draws the assignment, the made-up functions,
the device times and the policies' own chances. All policies of one seed meet the same requests for
the same functions on the same cluster, so they are compared pair by pair.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from inferx.cli.options import Chosen
from inferx.core.errors import DescriptionError, PolicyError
from inferx.core.types import FunctionSpec, NodeSpec
from inferx.core.watched import check_bundle
from inferx.load import LoadError
from inferx.sim.faults import Faults
from inferx.sim.link import LinkModel
from inferx.sim.profile import Profile, load_profile
from inferx.sim.sweep import Job
from inferx.sim.workload.popularity import Popularity
from inferx.sim.workload.read import read_trace
from inferx.sim.workload.stored import store_trace
from inferx.sim.workload.trace import Trace
from inferx.sim.workload.transform import assign
from inferx.sim.world import World
from inferx.spec.cluster import check_fit
from inferx.spec.functions import load_functions
from inferx.spec.template import auto_functions

__all__ = [
    "EXPLAINED",
    "PROFILE_OF",
    "Entry",
    "Experiment",
    "Replication",
    "entries_of",
    "is_auto",
    "parse_profiles",
]

PROFILE_OF: Final = {
    "snapshot": "criu-memfd",
    "loader": "serverlessllm",
    "none": "safetensors",
}
"""The profile of a bundle's mechanism, where the command names none."""
EXPLAINED: Final = 100_000
"""Traces of up to so many requests are explained unless the command says otherwise."""
_NAMED: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One policy of the experiment."""

    label: str
    chosen: Chosen
    profile_name: str
    profile: Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class Replication:
    """What all policies of one seed share."""

    seed: int
    functions: tuple[FunctionSpec, ...]
    trace: Path
    requests: int
    last_ns: int
    """When the last request arrives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """The rest of the command, understood."""

    trace: Path
    sort: bool
    durations: Path | None
    spread: Popularity | None
    functions: str
    nodes: tuple[NodeSpec, ...]
    allow_misfits: bool
    prepared: str
    routers: int
    faults: Faults
    link: LinkModel = field(default_factory=LinkModel)
    explain: bool | None

    def replicate(self, seeds: Sequence[int], folder: Path) -> list[Replication]:
        """Read and store what each seed's runs replay; equal traces are stored once.

        Raises:
            DescriptionError: A request cannot be read, or its function is unknown or fits nowhere.
        """
        made: list[Replication] = []
        last: tuple[Trace, Path] | None = None
        described = None if is_auto(self.functions) else load_functions(Path(self.functions))
        for seed in seeds:
            trace = read_trace(self.trace, seed=seed, sort=self.sort, durations=self.durations)
            if self.spread is not None:
                trace = assign(trace, self.spread, seed)
            if described is None:
                functions = auto_functions(trace.names, seed=seed, template=self.functions)
            else:
                functions = described
                trace = self._in_terms_of(trace, functions)
            if not self.allow_misfits:
                self._check_fit(functions)
            if last is None or not _equal(trace, last[0]):
                last = (trace, folder / f"seed-{seed}")
                store_trace(*last)
            made.append(
                Replication(
                    seed=seed,
                    functions=functions,
                    trace=last[1],
                    requests=len(trace),
                    last_ns=int(trace.arrival_ns[-1]),
                )
            )
        return made

    def _check_fit(self, functions: tuple[FunctionSpec, ...]) -> None:
        try:
            check_fit(functions, self.nodes)
        except DescriptionError as error:
            raise DescriptionError(f"{error}; --allow-misfits replays them all the same") from None

    def _in_terms_of(self, trace: Trace, functions: tuple[FunctionSpec, ...]) -> Trace:
        """Renumber the trace's functions as they are described."""
        index = {function.name: row for row, function in enumerate(functions)}
        used: list[int] = np.unique(trace.function).tolist()
        unknown = [trace.names[row] for row in used if trace.names[row] not in index]
        if unknown:
            named = ", ".join(unknown[:_NAMED])
            more = f" and {len(unknown) - _NAMED:,} more" if len(unknown) > _NAMED else ""
            raise DescriptionError(
                f"{self.trace}: functions that {self.functions} does not describe: {named}{more};"
                " expected every function of the trace there, or --functions auto"
            )
        new = np.array([index.get(name, -1) for name in trace.names], np.int32)
        names = tuple(function.name for function in functions)
        return replace(trace, function=new[trace.function], names=names)

    def jobs(self, entries: Sequence[Entry], replications: Sequence[Replication]) -> list[Job]:
        """Return the runs, in the command's order: policy by policy, seed by seed."""
        return [
            Job(
                policy=entry.label,
                make=entry.chosen.make,
                seed=replication.seed,
                world=World(
                    nodes=self.nodes,
                    functions=replication.functions,
                    profile=entry.profile,
                    prepared=self.prepared,
                    routers=self.routers,
                    link=self.link,
                    faults=self.faults,
                ),
                trace=replication.trace,
                explain=replication.requests <= EXPLAINED if self.explain is None else self.explain,
            )
            for entry in entries
            for replication in replications
        ]


def is_auto(functions: str) -> bool:
    """Say whether `--functions` asks for made-up ones."""
    return functions.partition(":")[0] == "auto"


def _equal(one: Trace, two: Trace) -> bool:
    if len(one) != len(two):
        return False
    theirs = two.columns()
    return all(np.array_equal(column, theirs[name]) for name, column in one.columns().items())


def parse_profiles(texts: Sequence[str]) -> dict[str, str]:
    """Return mechanism -> profile from `NAME` (for all) and `MECHANISM=NAME`.

    Raises:
        DescriptionError: A profile cannot be used, even if no policy would use it.
    """
    chosen: dict[str, str] = {}
    for text in texts:
        mechanism, equals, name = text.partition("=")
        load_profile(name if equals else text)
        if not equals:
            chosen |= dict.fromkeys(PROFILE_OF, text)
        elif mechanism in PROFILE_OF:
            chosen[mechanism] = name
        else:
            raise DescriptionError(
                f"profile {text!r}: {mechanism!r}; expected one of {', '.join(PROFILE_OF)}"
                " before the equals sign"
            )
    return PROFILE_OF | chosen


def entries_of(chosen: Sequence[Chosen], profiles: Mapping[str, str]) -> list[Entry]:
    """Make each policy once, to see that it can be made, and pick its profile."""
    entries: list[Entry] = []
    loaded: dict[str, Profile] = {}
    for one in chosen:
        bundle = one.make()
        try:
            check_bundle(bundle)
        except PolicyError as error:
            raise LoadError(f"policy {one.spec}: {error}") from error
        name = profiles[bundle.mechanism]
        if name not in loaded:
            loaded[name] = load_profile(name)
        label = one.label(bundle)
        if any(entry.label == label for entry in entries):
            raise LoadError(
                f"policy {one.words}: a second policy called {label};"
                " expected names or settings that differ"
            )
        entries.append(Entry(label=label, chosen=one, profile_name=name, profile=loaded[name]))
    return entries
