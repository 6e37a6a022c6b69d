"""What the executor tells is so: pods that cannot be ended, and where a restore read."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_node import (
    FUNCTION,
    AgentNode,
    agent_node,
    function,
    gpu,
    memory,
    names,
    needs_node,
    pod,
    promised,
    traces,
)
from squatter import Squatter
from standin_gpus import Node as Gpus
from standin_gpus import enter, uuid

from inferx.core.commands import Create, Drop, Restore, Snapshot, Stop
from inferx.core.events import FoundPod
from inferx.core.types import NodeId, Tier
from inferx.exec.agent.executor import Executor
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.processes import cgroup
from inferx.exec.agent.store.config import FolderConfig

pytestmark = needs_node

NODE = NodeId(0)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentNode]:
    # What cannot be ended need not be waited for here.
    monkeypatch.setattr(cgroup, "KILL_S", 0.3)
    gpus = Gpus.make(tmp_path / "gpus")
    enter(gpus, monkeypatch)
    tiers = tuple(
        FolderConfig(tier=name, folder=tmp_path / name, budget_bytes=1 << 30)
        for name in ("nvme", "shared")
    )
    broken = function(gpus, number=1, launch={"command": ("/bin/false",)})
    with agent_node(tmp_path, gpus, function(gpus), broken, tiers=tiers) as made:
        yield made
    assert not traces(made)


@pytest.fixture
def agent(node: AgentNode) -> Iterator[Executor]:
    with node.agent() as agent:
        yield agent


def on(kind: type, number: int, *more: object) -> object:
    return kind(NODE, 1, number, pod(number), FUNCTION, gpu(0), *more)


def test_a_pod_that_cannot_be_ended_keeps_its_gpu_and_is_told(
    node: AgentNode, agent: Executor
) -> None:
    agent.perform(on(Create, 1), Phases())
    squatter = Squatter(node.config.name, 1)
    try:
        for _ in range(2):
            with pytest.raises(AgentError) as caught:
                agent.perform(on(Stop, 1), Phases())
            assert caught.value.stays
            assert promised(agent.pods) == {1: [uuid(0)]}
            assert agent.running() == [FoundPod(pod(1), FUNCTION, gpu(0), "stuck")]
    finally:
        squatter.leave()
    agent.perform(on(Stop, 1), Phases())
    assert (promised(agent.pods), agent.running()) == ({}, [])
    assert not traces(node)


def test_pods_whose_gpus_cannot_be_seen_are_not_taken_for_lost(
    node: AgentNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    with node.agent() as agent:
        agent.perform(on(Create, 1), Phases())
        before = memory(agent.pods.get(pod(1)))
    with monkeypatch.context() as without:
        without.setenv("STANDIN_GPUS", str(node.folder / "no-driver"))
        line = r"1 pods hold GPUs, and no GPU can be seen \(gpu/nvml: NVML: Driver Not Loaded\)"
        with node.agent() as agent, pytest.raises(AgentError, match=line) as caught:
            agent.recover()
        assert "\n" not in str(caught.value)
    with node.agent() as agent:
        assert agent.recover().adopted == (1,)
        assert memory(agent.pods.get(pod(1))) == before
        agent.perform(on(Stop, 1), Phases())


def test_a_pod_that_cannot_be_ended_is_stuck_for_the_next_agent_too(node: AgentNode) -> None:
    with node.agent() as agent:
        agent.perform(on(Create, 1), Phases())
        squatter = Squatter(node.config.name, 1)
        with pytest.raises(AgentError):
            agent.perform(on(Stop, 1), Phases())
    try:
        with node.agent() as agent:
            recovered = agent.recover()
            assert (recovered.adopted, recovered.killed, recovered.stuck) == ((), (), (1,))
            assert promised(agent.pods) == {1: [uuid(0)]}
            assert agent.running() == [FoundPod(pod(1), FUNCTION, gpu(0), "stuck")]
            squatter.leave()
            agent.perform(on(Stop, 1), Phases())
            assert not traces(node)
    finally:
        squatter.leave()


def frozen(agent: Executor, *tiers: str) -> object:
    """Have a snapshot on these tiers alone; return what its pod held."""
    agent.perform(on(Create, 1), Phases())
    before = memory(agent.pods.get(pod(1)))
    agent.perform(on(Snapshot, 1, True), Phases())
    store = agent.pods.node.store
    (found,) = store.everything()
    if "shared" in tiers:
        store.sink(found.manifest.id, "shared", keep="nvme" in tiers)
    assert store.everything()[0].tiers == tiers
    return before


def tiers_of(agent: Executor) -> tuple[str, ...]:
    (found,) = agent.pods.node.store.everything()
    return found.tiers


@pytest.mark.parametrize("keep", [False, True])
def test_a_restore_from_the_shared_store_leaves_on_the_disk_what_it_was_told_to(
    agent: Executor, keep: bool
) -> None:
    before, phases = frozen(agent, "shared"), Phases()
    agent.perform(on(Restore, 2, Tier.REMOTE, keep), phases)
    assert memory(agent.pods.get(pod(2))) == before
    assert tiers_of(agent) == (("nvme", "shared") if keep else ("shared",))
    assert ("fetch" in names(phases)) == keep
    agent.perform(on(Stop, 2), Phases())


def test_a_restore_that_failed_leaves_nothing_of_what_it_fetched(
    node: AgentNode, agent: Executor
) -> None:
    frozen(agent, "shared")
    node.gpus.inject("restore", error=2)
    with pytest.raises(AgentError) as caught:
        agent.perform(on(Restore, 2, Tier.REMOTE, True), Phases())
    assert caught.value.phase == "device-restore"
    assert not caught.value.stays
    assert tiers_of(agent) == ("shared",)


def test_a_restore_reads_no_colder_tier_than_it_was_told_to(agent: Executor) -> None:
    frozen(agent, "shared")
    with pytest.raises(AgentError, match=r"no snapshot of .*; expected one on nvme"):
        agent.perform(on(Restore, 2, Tier.NVME, False), Phases())
    with pytest.raises(AgentError, match="this node has no tier dram; it has nvme, shared"):
        agent.perform(on(Restore, 2, Tier.DRAM, False), Phases())
    assert agent.running() == []


def test_a_restore_reads_a_warmer_tier_than_it_was_told_to_where_there_is_one(
    agent: Executor,
) -> None:
    frozen(agent, "nvme", "shared")
    phases = Phases()
    agent.perform(on(Restore, 2, Tier.REMOTE, True), phases)
    assert "fetch" not in names(phases)
    agent.perform(on(Stop, 2), Phases())


def test_a_snapshot_in_use_is_not_told_as_dropped(agent: Executor) -> None:
    frozen(agent, "nvme")
    store = agent.pods.node.store
    (found,) = store.everything()
    with store.hold(found.manifest.id, "a reader", now_ns=0)[1]:
        with pytest.raises(AgentError, match="in use by a reader"):
            agent.perform(Drop(NODE, 1, 3, FUNCTION, Tier.NVME), Phases())
        assert tiers_of(agent) == ("nvme",)
    agent.perform(Drop(NODE, 1, 4, FUNCTION, Tier.NVME), Phases())
    assert store.everything() == []


def test_a_pod_that_was_throttled_serves_again_under_the_next_agent(node: AgentNode) -> None:
    with node.agent() as agent:
        agent.perform(on(Create, 1), Phases())
        agent.pods.node.sandbox.freeze("pod-1")
    with node.agent() as agent:
        assert agent.recover().adopted == (1,)
        assert memory(agent.pods.get(pod(1)))
        for pid in agent.pods.node.sandbox.pids("pod-1"):
            os.kill(pid, signal.SIGKILL)
        agent.perform(on(Stop, 1), Phases())
