"""An agent whose shared tier is a bucket: copies go there, restores come from there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    traces,
)
from s3_server import S3Server, credentials, missing_s3, s3_server
from standin_gpus import Node as Gpus
from standin_gpus import enter
from system_parts import until

from inferx.core.commands import Copy, Create, Drop, Restore, Snapshot, Stop
from inferx.core.types import NodeId, Tier
from inferx.core.units import MIB
from inferx.exec.agent.executor import Executor
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.processes.page_server import pages_of
from inferx.exec.agent.store import BucketConfig, FolderConfig

pytestmark = [
    needs_node,
    pytest.mark.skipif(bool(missing_s3("rclone")), reason=missing_s3("rclone")),
]
NODE = NodeId(0)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with s3_server("rclone", tmp_path / "s3") as running:
        credentials(running, monkeypatch)
        yield running


@pytest.fixture
def node(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentNode]:
    gpus = Gpus.make(tmp_path / "gpus")
    enter(gpus, monkeypatch)
    tiers = (
        FolderConfig(tier="nvme", folder=tmp_path / "nvme", budget_bytes=1 << 30),
        BucketConfig(tier="shared", bucket=server.config()),
    )
    with agent_node(tmp_path, gpus, function(gpus), tiers=tiers) as made:
        yield made
    assert not traces(made)


def on(kind: type, number: int, *more: object) -> Any:
    return kind(NODE, 1, number, pod(number), FUNCTION, gpu(0), *more)


def restore(number: int, *, keep: bool) -> Any:
    return on(Restore, number, Tier.REMOTE, keep)


def sunk(agent: Executor) -> object:
    """Have a snapshot in the bucket alone, as a scheduler orders it; return what its pod held."""
    agent.perform(on(Create, 1), Phases())
    before = memory(agent.pods.get(pod(1)))
    agent.perform(on(Snapshot, 1, True), Phases())
    agent.perform(Copy(NODE, 1, 3, FUNCTION, Tier.NVME, Tier.REMOTE), Phases())
    agent.perform(Drop(NODE, 1, 4, FUNCTION, Tier.NVME), Phases())
    assert tiers_of(agent) == ("shared",)
    return before


def tiers_of(agent: Executor) -> tuple[str, ...]:
    (found,) = agent.pods.node.store.everything()
    return found.tiers


@pytest.mark.parametrize("keep", [False, True])
def test_a_restore_fetches_from_the_bucket_and_keeps_what_it_was_told_to(
    node: AgentNode, keep: bool
) -> None:
    with node.agent() as agent:
        before, phases = sunk(agent), Phases()
        agent.perform(restore(2, keep=keep), phases)
        assert memory(agent.pods.get(pod(2))) == before
        assert "fetch" in names(phases)
        assert tiers_of(agent) == (("nvme", "shared") if keep else ("shared",))
        assert agent.on_disk() == ([FUNCTION] if keep else [])
        agent.perform(on(Stop, 2), Phases())


def test_an_agent_starts_and_works_while_the_bucket_is_away(
    server: S3Server, node: AgentNode
) -> None:
    with node.agent() as agent:
        before = sunk(agent)
        agent.perform(restore(2, keep=True), Phases())
        agent.perform(on(Stop, 2), Phases())
    server.stop()
    with node.agent() as agent:
        (told,) = [one for one in agent.pods.node.capabilities if one.name == "store/s3"]
        assert not told.available
        assert told.reason.endswith("the server cannot be reached")
        (line,) = agent.recover().unreadable
        assert line == told.reason
        agent.perform(restore(3, keep=False), Phases())
        assert memory(agent.pods.get(pod(3))) == before, "from the disk, which is warmer"
        agent.perform(on(Stop, 3), Phases())
        agent.perform(on(Create, 4), Phases())
        with pytest.raises(AgentError, match="the server cannot be reached"):
            agent.perform(Copy(NODE, 1, 11, FUNCTION, Tier.NVME, Tier.REMOTE), Phases())
        agent.perform(on(Stop, 4), Phases())


def test_where_neither_disk_nor_memory_has_room_nothing_is_fetched(node: AgentNode) -> None:
    with node.agent() as agent:
        sunk(agent)
        tier = agent.pods.node.store.tier("nvme")
        tier.budget_bytes = tier._room._budget_bytes = MIB
        with pytest.raises(AgentError, match=r"tier nvme: .* do not fit"):
            agent.perform(restore(2, keep=False), Phases())
        assert tiers_of(agent) == ("shared",)


def test_what_was_fetched_stays_while_a_pod_s_pages_come_from_it(node: AgentNode) -> None:
    with node.agent() as agent:
        told = agent.pods.node.lazy_pages
        if not told.available:
            pytest.skip(told.reason)
        before = sunk(agent)
        one = agent.freezing.restore(
            pod(2), FUNCTION, gpu(0), Phases(), coldest="shared", lazy=True
        )
        until(lambda: pages_of(one.spec.folder) == "whole")
        assert agent.pods.pages.look() == {}
        assert tiers_of(agent) == ("shared",)
        assert memory(one) == before
        agent.perform(on(Stop, 2), Phases())
