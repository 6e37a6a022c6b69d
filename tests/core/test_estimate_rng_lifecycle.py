"""What is learned, what is drawn, and the life of a pod."""

from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from kernel_world import function, node

from inferx.core.errors import InferXError, PolicyError
from inferx.core.estimate import ArrivalEstimate, StartEstimate, moved_bytes
from inferx.core.lifecycle import (
    HOLDS_GPU,
    REFERENCE_NAME,
    STARTING,
    TRANSITIONS,
    PodState,
    check_transition,
)
from inferx.core.rng import stream
from inferx.core.types import Tier
from inferx.core.units import GIB, NS_PER_S

LIFECYCLE = Path(__file__).parents[2] / "docs" / "lifecycle.md"


# -- arrivals ---
def test_a_function_never_asked_for_has_no_rate() -> None:
    learned = ArrivalEstimate(2)
    assert learned.per_s(10 * NS_PER_S).tolist() == [0.0, 0.0]
    assert learned.one_per_s(0, 10 * NS_PER_S) == 0.0
    learned.learn(0, 1, 10 * NS_PER_S, within_ns=NS_PER_S)
    # One request tells no gap.
    assert learned.one_per_s(0, 20 * NS_PER_S) == 0.0


def test_several_first_arrivals_tell_a_gap_at_once() -> None:
    # Not by how long ago the clock began: a wall's began in 1970.
    for now_ns in (20 * NS_PER_S, 1_800_000_000 * NS_PER_S):
        learned = ArrivalEstimate(1)
        learned.learn(0, 10, now_ns, within_ns=20 * NS_PER_S)
        assert learned.one_per_s(0, now_ns) == pytest.approx(0.5)
        learned.learn(0, 1, now_ns + 2 * NS_PER_S, within_ns=NS_PER_S)
        assert learned.one_per_s(0, now_ns + 2 * NS_PER_S) == pytest.approx(0.5)


def test_the_rate_converges_to_that_of_a_steady_stream() -> None:
    learned = ArrivalEstimate(1)
    rng = stream(1, "arrivals")
    now_ns = 0
    for _ in range(2_000):
        now_ns += NS_PER_S
        arrivals = int(rng.poisson(4.0))
        if arrivals:
            learned.learn(0, arrivals, now_ns, within_ns=NS_PER_S)
    assert learned.one_per_s(0, now_ns) == pytest.approx(4.0, rel=0.3)


def test_a_silent_function_fades_as_its_silence_grows() -> None:
    learned = ArrivalEstimate(1)
    for second in range(1, 50):
        learned.learn(0, 1, second * NS_PER_S, within_ns=NS_PER_S)
    rates = [learned.one_per_s(0, (49 + s) * NS_PER_S) for s in (1, 2, 10, 1_000)]
    assert rates == pytest.approx([1.0, 0.5, 0.1, 0.001])
    np.testing.assert_allclose(learned.per_s(59 * NS_PER_S), [0.1])
    assert learned.last_ns().tolist() == [49 * NS_PER_S]


# -- starts ---
def test_a_start_estimate_begins_at_the_declared_bandwidth() -> None:
    starts = StartEstimate()
    starts.add_groups([node()])
    spec = function(device_bytes=16 * GIB, host_bytes=0)
    # 2 s, and 16 GiB at 4 GiB/s.
    assert starts.start_ns(Tier.NVME, 0, spec) == pytest.approx(6 * NS_PER_S, rel=1e-6)
    assert starts.start_ns(Tier.DRAM, 0, spec) == pytest.approx(1.3 * NS_PER_S, rel=1e-6)


@pytest.mark.parametrize("tier", [Tier.ABSENT, Tier.REMOTE, Tier.NVME, Tier.DRAM])
def test_a_start_estimate_converges_to_what_is_measured(tier: Tier) -> None:
    starts = StartEstimate()
    starts.add_groups([node("a"), node("b", group="b")])
    other = function(weight_bytes=20 * GIB, device_bytes=30 * GIB)
    before = starts.start_ns(tier, 1, other)
    rng = stream(2, "starts")
    for _ in range(200):
        size = int(rng.integers(1, 60)) * GIB
        spec = function(weight_bytes=size, device_bytes=size, host_bytes=GIB)
        took_s = 7.0 + 0.5 * moved_bytes(spec, tier) / GIB + float(rng.normal(0, 0.1))
        starts.learn(tier, 0, spec, int(took_s * NS_PER_S))
    expected_s = 7.0 + 0.5 * moved_bytes(other, tier) / GIB
    assert starts.start_ns(tier, 0, other) == pytest.approx(expected_s * NS_PER_S, rel=0.05)
    assert starts.version == 200
    # The other group of nodes has learned nothing.
    assert starts.start_ns(tier, 1, other) == before


def test_a_start_estimate_is_never_negative() -> None:
    starts = StartEstimate()
    starts.add_groups([node()])
    small, large = function(device_bytes=GIB, host_bytes=0), function(device_bytes=90 * GIB)
    for _ in range(100):
        starts.learn(Tier.DRAM, 0, small, 1)
        starts.learn(Tier.DRAM, 0, large, 200 * NS_PER_S)
    assert starts.start_ns(Tier.DRAM, 0, function(device_bytes=0, host_bytes=0)) >= 0
    assert starts.start_ns(Tier.DRAM, 0, large) == pytest.approx(200 * NS_PER_S, rel=0.1)
    # Larger ones that were quicker have no negative slope.
    for _ in range(100):
        starts.learn(Tier.NVME, 0, small, 9 * NS_PER_S)
        starts.learn(Tier.NVME, 0, large, 3 * NS_PER_S)
    assert starts.start_ns(Tier.NVME, 0, large) >= 3 * NS_PER_S


# -- chance ---
def test_inv_7_a_stream_is_its_seed_and_its_name() -> None:
    draws = {
        (seed, name): stream(seed, name).integers(1 << 60, size=4).tolist()
        for seed in (0, 1)
        for name in ("a", "b", "sim.link")
    }
    assert len({tuple(drawn) for drawn in draws.values()}) == 6
    assert stream(1, "a").integers(1 << 60, size=4).tolist() == draws[1, "a"]
    # The same on every machine: a change of these numbers changes every run.
    assert stream(7, "policy.scheduler").integers(1 << 32, size=3).tolist() == PINNED


PINNED = [550356626, 4070320665, 1141177155]


# -- errors ---
def test_a_policy_error_tells_slot_check_and_proposal() -> None:
    error = PolicyError("placement", "GPU 3 is too full", (3,))
    assert (error.slot, error.check) == ("placement", "GPU 3 is too full")
    assert str(error) == "placement policy: GPU 3 is too full; it proposed (3,)"
    assert str(PolicyError("scaling", "it raised", None)) == "scaling policy: it raised"
    assert isinstance(error, InferXError)


# -- lifecycle ---
@given(st.sampled_from(PodState), st.sampled_from(PodState))
def test_a_transition_is_allowed_if_the_table_has_it(old: PodState, new: PodState) -> None:
    if new in TRANSITIONS[old]:
        check_transition(old, new)
    else:
        with pytest.raises(AssertionError, match=f"{old.name} -> {new.name}"):
            check_transition(old, new)


def test_the_table_is_whole() -> None:
    assert set(TRANSITIONS) == set(REFERENCE_NAME) == set(PodState)
    # Every state is reached from INIT and leads to GONE.
    reached, edge = {PodState.INIT}, [PodState.INIT]
    while edge:
        for new in TRANSITIONS[edge.pop()]:
            if new not in reached:
                reached.add(new)
                edge.append(new)
    assert reached == set(PodState)
    for state in set(PodState) - {PodState.GONE, PodState.FAILED, PodState.TERMINATING}:
        assert TRANSITIONS[state] & {PodState.FAILED, PodState.GONE}, state
    assert TRANSITIONS[PodState.GONE] == frozenset()
    assert not STARTING & {PodState.READY, PodState.STANDBY}
    assert not HOLDS_GPU & {PodState.INIT, PodState.STANDBY, PodState.GONE}


WORDS = {
    PodState.INIT: "decided; waits for its victims to leave, holds a claim",
    PodState.CREATING: "starts from its image",
    PodState.RESTORING: "starts from its snapshot",
    PodState.READY: "serves, or could: leases tell whether it is idle",
    PodState.SUSPENDING: "moves its GPU state to host memory",
    PodState.STANDBY: "suspended: holds host memory, no GPU",
    PodState.RESUMING: "moves its GPU state back",
    PodState.SNAPSHOTTING: "its frozen state is written to the node's disk",
    PodState.DRAINING: "takes no new requests; sinks when its leases are back",
    PodState.TERMINATING: "is being stopped",
    PodState.FAILED: "broke, and was killed",
    PodState.GONE: "all it held is free",
}


def drawn() -> str:
    lines = [
        "# The life of a pod",
        "",
        "Drawn from `TRANSITIONS` in `inferx/core/lifecycle.py` by",
        "`pytest tests/core/test_estimate_rng_lifecycle.py --regen`. Whatever is there may also go",
        "to `FAILED`, and from there to `GONE`; those arrows are left out.",
        "",
        "```mermaid",
        "stateDiagram-v2",
        "    [*] --> INIT",
    ]
    for old, news in TRANSITIONS.items():
        lines += [
            f"    {old.name} --> {new.name}"
            for new in sorted(news)
            if PodState.FAILED not in (old, new)
        ]
    lines += ["    GONE --> [*]", "```", "", "| State | Shown as | What it is |", "|---|---|---|"]
    lines += [f"| `{s.name}` | {REFERENCE_NAME[s]} | {WORDS[s]} |" for s in PodState]
    return "\n".join(lines) + "\n"


def test_the_documented_lifecycle_is_the_table(regen: bool) -> None:
    if regen:
        LIFECYCLE.write_text(drawn())
    assert LIFECYCLE.read_text() == drawn()
