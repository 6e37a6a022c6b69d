"""What lies on the disks: exact against a naive list, and between what the scheduler believes."""

from dataclasses import replace
from itertools import count, pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferx.core.commands import Copy, Create, Drop, Restore, Snapshot, Stop
from inferx.core.types import FunctionSpec, Tier
from inferx.core.units import NS_PER_S
from inferx.load import load_bundle
from inferx.sim.disks import Disks
from inferx.sim.driver import Simulation
from inferx.sim.faults import Fault, Faults
from inferx.sim.profile import load_profile
from inferx.sim.scenarios import SCENARIOS
from inferx.sim.spans import SpanLog

SPECS = tuple(
    FunctionSpec(name=f"f{i}", hbm_bytes=9, device_bytes=2**i, host_bytes=0, weight_bytes=1)
    for i in range(3)
)
EVENTS = st.lists(
    st.tuples(
        st.integers(0, 2), st.sampled_from(["wrote", "deleted", "lost"]), *[st.integers(0, 2)] * 2
    ),
    max_size=30,
)


@given(EVENTS, st.integers(0, 2))
def test_steps_are_what_a_list_of_snapshots_says(events, rest):
    spans, now = SpanLog(), 0
    disks = Disks(SPECS, spans)
    held = {node: set() for node in range(3)}
    series = {node: [] for node in range(3)}

    def pass_time(ns):
        nonlocal now
        for node, functions in held.items():
            state = (sum(SPECS[f].snapshot_bytes for f in functions), len(functions))
            series[node] += [state] * ns
        now += ns

    for after, what, node, function in events:
        pass_time(after)
        if what == "lost":
            disks.lost(now, node)
            held[node] = set()
        else:
            getattr(disks, what)(now, node, function)
            (held[node].add if what == "wrote" else held[node].discard)(function)
        size_bytes = sum(SPECS[f].snapshot_bytes for f in held[node])
        assert disks.bytes_on(node) == size_bytes
    pass_time(rest)
    disks.finish(now)
    for node, states in series.items():
        mine = [span for span in spans if span.node == node]
        for at, state in enumerate(states):
            there = [s for s in mine if s.from_ns <= at < s.to_ns]
            assert [(s.nvme_bytes, s.snapshots) for s in there] == ([state] if state[1] else [])
        steps = sum(a != b and b[1] > 0 for a, b in zip([(0, 0), *states], states, strict=False))
        # An exchange at one instant for something of the same size is a step all the same.
        assert steps <= len(mine) <= len(events)
    assert {(s.state, s.gpu, s.pod, s.function, s.hbm_bytes, s.host_bytes) for s in spans} <= {
        ("snapshot", -1, -1, -1, 0, 0)
    }


def test_full_disk_of_a_large_cluster_is_one_row_a_node():
    specs = SPECS * 500
    spans = SpanLog()
    disks = Disks(specs, spans)
    for node in range(64):
        disks.stock(0, node, range(len(specs)), 10**6)
    # The disks are alike and yet each its own.
    disks.deleted(NS_PER_S, 5, 0)
    disks.finish(2 * NS_PER_S)
    assert len(spans) == 65
    assert [span.snapshots for span in spans if span.to_ns == 2 * NS_PER_S] == [
        1_500 - (node == 5) for node in range(64)
    ]


def simulated(scenario, **changes):
    """Run a scenario under the default bundle; return the simulation and its record."""
    world = replace(scenario.world(load_profile("criu-memfd")), **changes)
    run = Simulation(world, load_bundle("default"), seed=1)
    return run, run.run([scenario.trace()])


def on_disk(record, node, at_ns):
    """Bytes of a node's snapshots at an instant, as its spans say; -1: at the end of the run."""
    return sum(
        span.nvme_bytes
        for span in record.spans
        if span.state == "snapshot"
        and span.node == node
        and (span.to_ns == record.span_ns if at_ns < 0 else span.from_ns <= at_ns < span.to_ns)
    )


@pytest.mark.parametrize("prepared", ["none", "remote", "nvme"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_disks_hold_what_the_scheduler_knows_of_and_no_more_than_it_charges(scenario, prepared):
    run, record = simulated(scenario, prepared=prepared)
    cluster = run.scheduler.cluster
    known = cluster.nvme @ cluster.snapshot_bytes
    charged = cluster.node_nvme_total - cluster.node_nvme_free
    if not record.span_ns:
        assert not record.spans, "a run that lasts no time has no spans"
        return
    for node, spec in enumerate(record.nodes):
        # A snapshot may be whole, or gone, and the news of it under way.
        assert known[node] <= on_disk(record, node, -1) <= charged[node]
        mine = [s for s in record.spans if s.state == "snapshot" and s.node == node]
        assert all(0 < span.nvme_bytes <= spec.nvme_bytes for span in mine)
        # One step after the other.
        assert all(a.to_ns <= b.from_ns for a, b in pairwise(mine))
    if prepared == "remote":
        assert charged.any(), "what is fetched is kept"


def test_prepared_disks_are_full_from_the_start_as_far_as_they_have_room():
    scenario = next(one for one in SCENARIOS if one.name == "crowded")
    world = scenario.world(load_profile("criu-memfd"))
    sizes = [spec.snapshot_bytes for spec in world.functions]
    # Room for the first and the third, and not for the second.
    room = sizes[0] + sizes[2]
    (node,) = world.nodes
    small = msgspec.structs.replace(node, nvme_bytes=room)
    assert sizes[1] <= room - sizes[0] < sizes[1] + sizes[2]
    _, record = simulated(scenario, prepared="nvme", nodes=(small,))
    fits = 0
    for size in sizes:
        fits += size if fits + size <= room else 0
    assert on_disk(record, 0, 0) == fits
    _, ample = simulated(scenario, prepared="nvme")
    assert on_disk(ample, 0, 0) == sum(sizes)


def test_lost_node_comes_back_with_an_empty_disk():
    scenario = next(one for one in SCENARIOS if one.name == "nodes lost and back")
    lost = Faults(fault=(Fault(node="g6e.12xlarge-0", at_s=60, kind="lost", back_after_s=60),))
    _, record = simulated(scenario, prepared="nvme", faults=lost)
    before, after = 60 * NS_PER_S - 1, 60 * NS_PER_S + 1
    assert on_disk(record, 0, before) > 0
    assert on_disk(record, 0, after) == 0
    assert on_disk(record, 1, after) == on_disk(record, 1, before) > 0


def test_mechanism_without_snapshots_leaves_nothing_on_the_disk():
    scenario = next(one for one in SCENARIOS if one.name == "nothing prepared")
    run, record = simulated(scenario, profile=load_profile("safetensors"), prepared="remote")
    assert not run.scheduler.cluster.remote.any(), "nothing was prepared that nothing restores"
    assert not any(span.state == "snapshot" for span in record.spans)


@pytest.mark.parametrize(("mechanism", "comes"), [("sleep", False), ("criu-memfd", True)])
def test_only_a_mechanism_that_restores_brings_pods_into_host_memory(mechanism, comes):
    scenario = next(one for one in SCENARIOS if one.name == "nothing prepared")
    run = Simulation(scenario.world(load_profile(mechanism)), load_bundle("default"), seed=1)
    (node,), env = run.nodes, run.clock.env
    node.receive(Restore(node.id, 0, 1, 7, 0, (), Tier.REMOTE, keep=False))
    env.run(until=env.now + 600 * NS_PER_S)
    assert (7 in node._here) == comes
    run._ledger.finish(env.now)
    assert ("standby" in {span.state for span in run._ledger.spans}) == comes


def test_each_command_leaves_on_the_disk_what_it_says():
    scenario = next(one for one in SCENARIOS if one.name == "nothing prepared")
    run = Simulation(scenario.world(load_profile("criu-memfd")), load_bundle("default"), seed=1)
    (node,), env = run.nodes, run.clock.env
    a, b, c = (run.scheduler.cluster.functions[f].snapshot_bytes for f in range(3))
    numbers = count(1)

    def ordered(kind, *rest):
        """Bytes on the disk after a command; the scheduler did not send it and ignores its fact."""
        node.receive(kind(node.id, 0, next(numbers), *rest))
        env.run(until=env.now + 600 * NS_PER_S)
        return node._ledger.disks.bytes_on(node.id)

    assert ordered(Create, 70, 0, (0,)) == 0
    assert ordered(Snapshot, 70, 0, (0,), False) == a, "it serves on"
    assert ordered(Snapshot, 70, 0, (0,), True) == a, "the same once more"
    assert ordered(Restore, 71, 1, (1,), Tier.REMOTE, False) == a, "read, not kept"
    assert ordered(Restore, 72, 1, (2,), Tier.REMOTE, True) == a + b
    assert ordered(Restore, 73, 0, (3,), Tier.NVME, False) == a + b
    assert ordered(Copy, 2, Tier.REMOTE, Tier.NVME) == a + b + c
    assert ordered(Copy, 3, Tier.NVME, Tier.REMOTE) == a + b + c, "copied out, not in"
    assert ordered(Drop, 0, Tier.NVME) == b + c
    assert ordered(Drop, 0, Tier.NVME) == b + c
    assert ordered(Stop, 72, 1, (2,)) == b + c


def test_start_that_fails_leaves_nothing_on_the_disk():
    scenario = next(one for one in SCENARIOS if one.name == "nothing prepared")
    world = scenario.world(load_profile("criu-memfd"))
    never = replace(world, faults=Faults(start_failures=1.0))
    run = Simulation(never, load_bundle("default"), seed=1)
    (node,), env = run.nodes, run.clock.env
    node.receive(Restore(node.id, 0, 1, 70, 0, (0,), Tier.REMOTE, True))
    env.run(until=600 * NS_PER_S)
    assert node._ledger.disks.bytes_on(node.id) == 0
