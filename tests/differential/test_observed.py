"""A run's journals, read as a real cluster's are, give the record that the simulation kept."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from inferx.cli.live_profile import About, calibrated
from inferx.core.events import FunctionDefined
from inferx.core.explain import Decision
from inferx.core.types import FunctionId
from inferx.core.units import NS_PER_MS
from inferx.load import load_bundle
from inferx.sim.decisions import DecisionLog
from inferx.sim.driver import Simulation
from inferx.sim.link import LinkModel
from inferx.sim.observed import Asked, Heard, ObservedError, observe
from inferx.sim.profile import load_profile
from inferx.sim.record import Outcome, RunRecord
from inferx.sim.scenarios import SCENARIOS
from inferx.sim.tables import decisions_table

BEGAN_NS = 1_700_000_000_000_000_000
"""When the first request was sent, as a wall clock has it."""


class _Noted:
    """A machine whose steps are kept, as its journal would."""

    def __init__(self, name, machine, heard):
        self._machine = machine
        self._number = 0 if name == "scheduler" else 1 + int(name.partition("/")[2])
        self._heard = heard

    def step(self, now_ns, events):
        step = self._machine.step(now_ns, events)
        self._heard.append(Heard(BEGAN_NS + now_ns, self._number, events, step.commands))
        return step


def simulated(
    scenario_name: str,
    monkeypatch: pytest.MonkeyPatch,
    policy: str = "default",
    *,
    profile: str = "criu-memfd",
    heard: list[Heard] | None = None,
    delay_ns: int = 0,
) -> tuple[RunRecord, RunRecord]:
    """Return what a simulation kept, and what its journals and its clients tell."""
    heard = [] if heard is None else heard
    scenario = next(one for one in SCENARIOS if one.name == scenario_name)
    # Without delays a fact is heard when it happens, so that both tell of the same instant.
    world = replace(scenario.world(load_profile(profile)), link=LinkModel(delay_ns=delay_ns))

    def wrap(name, machine):
        return machine if name.startswith("agent/") else _Noted(name, machine, heard)

    decisions: list[Decision] = []
    take = DecisionLog.take

    def both(log: DecisionLog, decision: Decision) -> None:
        decisions.append(structs.replace(decision, at_ns=BEGAN_NS + decision.at_ns))
        take(log, decision)

    with monkeypatch.context() as patch:
        patch.setattr(DecisionLog, "take", both)
        own = Simulation(world, load_bundle(policy), seed=1, wrap=wrap).run([scenario.trace()])
    return own, observed(own, heard, decisions)


def observed(own: RunRecord, heard: list[Heard], decisions: list[Decision]) -> RunRecord:
    q = own.requests
    defined = tuple(FunctionDefined(FunctionId(f), spec) for f, spec in enumerate(own.functions))
    routers = {step.machine for step in heard if step.machine}
    first = [Heard(BEGAN_NS, number, defined, ()) for number in sorted(routers)]
    asked = [
        Asked(
            function=own.functions[q.function[row]].name,
            input_tokens=int(q.input_tokens[row]),
            output_tokens=int(q.output_tokens[row]),
            sent_ns=at(q.arrived_ns[row]),
            first_ns=at(q.first_ns[row]),
            ended_ns=at(q.finished_ns[row]),
            outcome=Outcome(q.outcome[row]),
            why=own.refusals.get(row, (0, ""))[1],
        )
        for row in range(len(q.function))
    ]
    return observe(
        [*first, *heard],
        asked,
        decisions,
        nodes=own.nodes,
        functions=own.functions,
        policy=own.policy,
        seed=own.seed,
        counters=own.counters,
    )


def at(ns: np.int64) -> int:
    return -1 if ns < 0 else BEGAN_NS + int(ns)


@pytest.mark.parametrize("name", ["crowded", "nothing prepared", "several pods a function"])
def test_the_record_is_the_one_that_the_simulation_kept(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, told = simulated(name, monkeypatch)
    for column in ("function", "arrived_ns", "started_ns", "first_ns", "finished_ns"):
        assert np.array_equal(getattr(told.requests, column), getattr(own.requests, column)), column
    for column in ("outcome", "cause", "pod"):
        assert np.array_equal(getattr(told.requests, column), getattr(own.requests, column)), column
    assert told.span_ns == own.span_ns
    assert np.array_equal(told.gpu_busy_ns, own.gpu_busy_ns)
    assert told.gpu_allocated_milli_ns == pytest.approx(own.gpu_allocated_milli_ns)
    assert told.gpu_resident_byte_ns == pytest.approx(own.gpu_resident_byte_ns)
    assert decisions_table(told).equals(decisions_table(own))
    # The scheduler hears of ends alone: behind others on a GPU a start begins later.
    assert lives(told) == lives(own)


def lives(record: RunRecord) -> dict[int, list[str]]:
    """Return each pod's states in their order, one line for all of its GPUs."""
    found: dict[int, list[str]] = {}
    for span in record.spans:
        if span.pod >= 0:
            states = found.setdefault(span.pod, [])
            if states[-1:] != [span.state]:
                states.append(span.state)
    return found


def test_what_is_not_of_this_run_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    own, _ = simulated("one function", monkeypatch)
    with pytest.raises(ObservedError, match="request 0 was answered, and no journal tells of it"):
        observed(own, [], [])
    asked = Asked(
        function="other", input_tokens=1, output_tokens=1, sent_ns=1, first_ns=-1, ended_ns=-1,
        outcome=Outcome.UNFINISHED, why="",
    )  # fmt: skip
    told = {"nodes": own.nodes, "functions": own.functions, "policy": "p", "seed": 1}
    with pytest.raises(ObservedError, match="no function other"):
        observe([], [asked], [], **told, counters={})
    with pytest.raises(ObservedError, match="no request was sent"):
        observe([], [], [], **told, counters={})


STAGE = """
[[{operation}]]
name = "it"
fixed_s = {fixed_s}
basis = "assumed"
source = "s"
machine = "m"
date = "d"
"""
TIMES = {"restore": 2.0, "resume": 0.5, "suspend": 0.25, "stop": 0.125}


@pytest.mark.parametrize("delay_ms", [0, 5])
def test_a_calibrated_profile_has_the_times_that_the_run_had(
    delay_ms: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given, found = tmp_path / "given.toml", tmp_path / "found.toml"
    stages = [STAGE.format(operation=name, fixed_s=fixed_s) for name, fixed_s in TIMES.items()]
    given.write_text("".join(['name = "g"\nsummary = "s"\ninherits = "criu-memfd"\n', *stages]))
    heard: list[Heard] = []
    own, told = simulated(
        "crowded", monkeypatch, profile=str(given), heard=heard, delay_ns=delay_ms * NS_PER_MS
    )
    defined = tuple(FunctionDefined(FunctionId(f), spec) for f, spec in enumerate(own.functions))
    about = About(name="found", source="a test", machine="m", date="d")
    base = load_profile("criu-memfd")
    found.write_text(calibrated([Heard(BEGAN_NS, 0, defined, ()), *heard], told, base, about))
    profile = load_profile(str(found))
    assert profile.name == "found"
    for name, fixed_s in TIMES.items():
        measured = [stage for stage in profile.operations[name] if stage.basis == "measured"]
        order = [stage for stage in measured if stage.untold]
        own = [stage for stage in measured if not stage.untold]
        # Command and news each went one way. What is told of without phases has that in it.
        both_s = 2 * delay_ms / 1e3
        whole_s = fixed_s + (both_s if name == "stop" else 0)
        assert [stage.fixed_s for stage in own] == [pytest.approx(whole_s, rel=0.02)], name
        assert {stage.bytes_of for stage in own} == {"none"}, name
        if name == "stop":
            assert not order
        else:
            assert [one.fixed_s for one in order] == [pytest.approx(both_s, rel=0.02, abs=1e-5)]
    # What did not happen is as it was, and so is what has no clock of its own.
    assert profile.operations["snapshot"] == base.operations["snapshot"]
    assert profile.per_neighbour == base.per_neighbour
    assert profile.speeds == {}
