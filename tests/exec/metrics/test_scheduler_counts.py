"""What a scheduler counts over its terms."""

import asyncio

from prometheus_client.parser import text_string_to_metric_families

from inferx.core.commands import Create, Drop, Restore, Resume
from inferx.core.events import LeaseAsked, NodeLost, PodFailed, PodReady, PodSuspended
from inferx.core.explain import Decision
from inferx.core.machine.step import Step
from inferx.core.types import FunctionId, GpuId, NodeId, PodId, RouterId, Tier
from inferx.core.units import NS_PER_S
from inferx.exec.metrics.cluster import SchedulerSource
from inferx.exec.metrics.exposition import exposition
from inferx.exec.metrics.scheduler import COMMANDS_TIMED, SchedulerCounts, Timed, called

F, POD = FunctionId(0), PodId(0)
IDENTITY = "t/n/f@7"


def page(counts: SchedulerCounts) -> dict[tuple[str, ...], float]:
    """Return what is told: values by name and the labels' values, in the order of their names."""
    text = asyncio.run(exposition([SchedulerSource(counts, lambda: None)])).decode()
    return {
        (one.name, *(value for _, value in sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def create(sequence: int, node: int = 0) -> Create:
    return Create(NodeId(node), 1, sequence, POD, F, (GpuId(0),))


def count(counts: SchedulerCounts, start: str) -> int:
    return sum(counts.starts[start].counts)


def test_a_start_is_timed_from_its_first_command_to_its_fact() -> None:
    counts = SchedulerCounts("p")
    counts.begin(1)
    counts.ordered(create(1), 0)
    counts.ordered(create(1), 5 * NS_PER_S)  # Repeated.
    restore = Restore(NodeId(0), 1, 2, POD, F, (), Tier.NVME, keep=False)
    counts.ordered(restore, 0)
    counts.ordered(Resume(NodeId(0), 1, 3, POD, F, (GpuId(0),)), 0)
    counts.ordered(Drop(NodeId(0), 1, 4, F, Tier.NVME), 0)
    counts.heard(PodReady(NodeId(0), 1, 1, POD), 8 * NS_PER_S)
    counts.heard(PodSuspended(NodeId(0), 1, 2, POD), NS_PER_S)
    counts.heard(PodFailed(NodeId(0), 1, 3, POD, "resume"), NS_PER_S)
    # Told again, and of nothing that was started.
    counts.heard(PodReady(NodeId(0), 1, 1, POD), 9 * NS_PER_S)
    counts.heard(PodSuspended(NodeId(0), 1, 9, POD), 9 * NS_PER_S)
    assert counts.starts["cold"].sum == 8
    assert counts.starts["restore-nvme"].sum == 1
    assert [count(counts, one) for one in ("cold", "restore-nvme", "resume")] == [1, 1, 0]
    assert counts.commands == {"create": 2, "restore": 1, "resume": 1, "drop": 1}


def test_what_a_lost_node_was_starting_is_forgotten_and_so_is_what_is_too_much() -> None:
    counts = SchedulerCounts("p")
    counts.ordered(create(1, node=1), 0)
    counts.ordered(create(2, node=2), 0)
    counts.heard(NodeLost(NodeId(1)), 0)
    counts.heard(PodReady(NodeId(1), 1, 1, POD), NS_PER_S)
    counts.heard(PodReady(NodeId(2), 1, 2, POD), NS_PER_S)
    assert count(counts, "cold") == 1
    for sequence in range(3, 2 * COMMANDS_TIMED):
        counts.ordered(create(sequence), 0)
    assert len(counts._under_way) == COMMANDS_TIMED
    counts.begin(2)
    assert not counts._under_way


def test_a_cold_lease_is_timed_from_the_oldest_request_that_waits() -> None:
    counts = SchedulerCounts("p")
    ask = LeaseAsked(RouterId(0), F, 3, 0, 2 * NS_PER_S, 1)
    counts.heard(ask, 3 * NS_PER_S)
    for cold in (True, False, True):
        counts.granted(F, IDENTITY, "node", cold=cold, now_ns=5 * NS_PER_S)
    # A gateway's clock may be ahead.
    counts.heard(LeaseAsked(RouterId(0), F, 3, 0, 9 * NS_PER_S, 2), 3 * NS_PER_S)
    counts.granted(F, IDENTITY, "node", cold=True, now_ns=5 * NS_PER_S)
    told = page(counts)
    assert told["coldStartPodLatency_count", "f", "n", "t"] == 3
    assert told["coldStartPodLatency_sum", "f", "n", "t"] == 6
    assert told["podLeaseCnt_total", "f", "n", "node", "7", "t"] == 4


def test_functions_that_are_no_more_have_no_series() -> None:
    counts = SchedulerCounts("p")
    for version in (1, 2):
        counts.granted(F, f"t/n/f@{version}", "node", cold=False, now_ns=0)
        counts.heard(LeaseAsked(RouterId(0), F, 1, 0, 0, 1), 0)
        counts.granted(F, f"t/n/f@{version}", "node", cold=True, now_ns=0)
    counts.forget_others({called("t/n/f@2")})
    assert [key[0].version for key in counts.leases] == ["2"]
    assert list(counts.cold) == [("t", "n", "f")]
    counts.forget_others(set())
    assert not counts.leases
    assert not counts.cold


def test_the_kernels_counts_go_on_from_term_to_term() -> None:
    counts = SchedulerCounts("p")
    for epoch in (3, 5):
        counts.begin(epoch)
        counts.end({"evictions": 2, "starts_cold": 1})
    told = page(counts)
    assert told["inferx_scheduler_evictions_total",] == 4
    assert told["inferx_scheduler_starts_total", "cold"] == 2
    assert told["inferx_scheduler_starts_total", "resume"] == 0
    assert told["inferx_scheduler_terms_total",] == 2
    assert told["inferx_scheduler_epoch",] == 5
    assert told["inferx_scheduler_leader",] == 0
    # Whoever leads tells of the cluster, and nobody else.
    assert not [key for key in told if key[0] == "inferx_scheduler_pods"]


def test_steps_are_timed_apart_where_something_was_decided() -> None:
    counts = SchedulerCounts("p")

    class Machine:
        def step(self, now_ns, events):
            for event in events:
                counts.decided(Decision(now_ns, event, 0, reason="no GPU fits"))
            return Step((), (), None)

    timed = Timed(Machine(), counts)
    assert timed.step(1, ()) == Step((), (), None)
    timed.step(2, ("place", "defer"))
    assert [sum(counts.steps[one].counts) for one in ("no", "yes")] == [1, 1]
    told = page(counts)
    assert told["inferx_scheduler_decisions_total", "defer", "p"] == 1
    assert told["inferx_scheduler_deferrals_total", "no GPU fits"] == 1
