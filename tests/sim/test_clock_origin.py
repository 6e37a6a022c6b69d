"""Simulated time begins at 0 and real time in 1970: no decision may hang on which."""

from dataclasses import replace

import msgspec
import pytest

from inferx.core.events import LeaseAsked
from inferx.core.units import NS_PER_S
from inferx.load import load_bundle
from inferx.sim.driver import Simulation
from inferx.sim.profile import load_profile
from inferx.sim.scenarios import SCENARIOS
from inferx.sim.tables import decisions_table

SINCE_1970_NS = 1_800_000_000 * NS_PER_S
"""A whole number of minutes and of control periods, by which some policies count."""

COLUMNS = ("kind", "function", "pod", "node", "gpus", "start", "reason", "victims")


class _Later:
    """A scheduler that is told another time than its world has."""

    def __init__(self, machine, later_ns):
        self._machine = machine
        self._later_ns = later_ns

    def step(self, now_ns, events):
        told = [
            msgspec.structs.replace(event, oldest_ns=event.oldest_ns + self._later_ns)
            if isinstance(event, LeaseAsked)
            else event
            for event in events
        ]
        step = self._machine.step(now_ns + self._later_ns, tuple(told))
        if step.deadline_ns is None:
            return step
        return msgspec.structs.replace(step, deadline_ns=step.deadline_ns - self._later_ns)


def decided(scenario, policy, later_ns):
    world, trace = scenario.world(load_profile("criu-memfd")), scenario.trace()
    # What comes at once is told of at once: the first report of a function counts several.
    trace = replace(trace, arrival_ns=trace.arrival_ns // NS_PER_S * NS_PER_S)

    def wrap(name, machine):
        return _Later(machine, later_ns) if name == "scheduler" else machine

    record = Simulation(world, load_bundle(policy), seed=1, wrap=wrap).run([trace])
    return decisions_table(record).select(COLUMNS).to_pylist()


@pytest.mark.parametrize("name", ["crowded", "nothing prepared", "several pods a function"])
@pytest.mark.parametrize("policy", ["default", "hybrid-histogram", "greedy-dual"])
def test_what_is_decided_does_not_hang_on_when_the_clock_began(name, policy):
    scenario = next(one for one in SCENARIOS if one.name == name)
    assert decided(scenario, policy, SINCE_1970_NS) == decided(scenario, policy, 0)
