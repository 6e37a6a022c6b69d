"""A snapshot that was taken on another node: its GPUs are not here, and others are.

The other node is the same stand-in folder with other GPUs in it, another agent's state and the same
tier, as after a copy. What the stand-in driver asks of a map is what NVIDIA's headers ask.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from agent_node import (
    FUNCTION,
    HELD,
    AgentNode,
    agent_node,
    ask,
    gpu,
    memory,
    needs_node,
    pod,
    traces,
    used,
)
from standin_gpus import Node as Gpus
from standin_gpus import enter

from inferx.exec.agent.executor import Executor
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.ports import AgentError

pytestmark = needs_node


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gpus:
    made = Gpus.make(tmp_path / "gpus", gpus=2)
    enter(made, monkeypatch)
    return made


@pytest.fixture
def written(tmp_path: Path, gpus: Gpus) -> tuple[object, object]:
    """Write a snapshot of a pod on the first of two GPUs; return the memory that it had."""
    with node_over(tmp_path, gpus, "first") as (_, agent):
        before = memory(agent.pods.create(pod(1), FUNCTION, gpu(0), Phases()))
        agent.freezing.snapshot(pod(1), Phases(), leave=True)
    return before


@contextmanager
def node_over(folder: Path, gpus: Gpus, name: str) -> Iterator[tuple[AgentNode, Executor]]:
    (folder / name).mkdir()
    with (
        agent_node(folder / name, gpus, store=folder / "nvme") as node,
        node.agent() as agent,
    ):
        yield node, agent


@pytest.mark.parametrize(("count", "index"), [(2, 0), (2, 1), (3, 2)])
def test_it_is_restored_onto_gpus_that_it_never_saw(
    tmp_path: Path, gpus: Gpus, written: tuple[object, object], count: int, index: int
) -> None:
    others = gpus.become_another(gpus=count)
    with node_over(tmp_path, gpus, "second") as (node, agent):
        one = agent.freezing.restore(pod(2), FUNCTION, gpu(index), Phases())
        assert memory(one) == written
        assert ask(one)["gpus"] == [others[index]]
        assert used(agent.pods.node)[index] == HELD
        # From here on it is this node's as any other: down, up elsewhere, and into a snapshot.
        agent.pods.suspend(pod(2), Phases())
        agent.pods.resume(pod(2), gpu(1 - min(index, 1)), Phases())
        again = agent.freezing.snapshot(pod(2), Phases(), leave=True)
        assert [each.uuid for each in again.platform.node_gpus] == others
        assert memory(agent.freezing.restore(pod(3), FUNCTION, gpu(0), Phases())) == written
        assert not traces(node, pods=[3])


def test_one_that_waits_without_gpus_can_be_written_again_before_it_is_resumed(
    tmp_path: Path, gpus: Gpus, written: tuple[object, object]
) -> None:
    others = gpus.become_another()
    with node_over(tmp_path, gpus, "second") as (_, agent):
        first = agent.freezing.restore(pod(2), FUNCTION, (), Phases()).record
        again = agent.freezing.snapshot(pod(2), Phases(), leave=False)
        assert again.platform.node_gpus == first.built_among
        agent.pods.resume(pod(2), gpu(1), Phases())
        assert ask(agent.pods.get(pod(2)))["gpus"] == [others[1]]
        one = agent.freezing.restore(pod(3), FUNCTION, gpu(0), Phases(), snapshot=again.id)
        assert memory(one) == memory(agent.pods.get(pod(2))) == written


def test_one_that_waits_is_found_again_with_where_it_came_from(
    tmp_path: Path, gpus: Gpus, written: tuple[object, object]
) -> None:
    gpus.become_another()
    (tmp_path / "second").mkdir()
    with agent_node(tmp_path / "second", gpus, store=tmp_path / "nvme") as node:
        with node.agent() as agent:
            agent.freezing.restore(pod(2), FUNCTION, (), Phases())
        with node.agent() as agent:
            assert agent.recover().adopted == (2,)
            agent.pods.resume(pod(2), gpu(1), Phases())
            assert memory(agent.pods.get(pod(2))) == written


def test_a_node_with_too_few_gpus_refuses_before_anything_is_started(
    tmp_path: Path, gpus: Gpus, written: tuple[object, object]
) -> None:
    gpus.become_another(gpus=1)
    with node_over(tmp_path, gpus, "second") as (node, agent):
        with pytest.raises(AgentError, match="among 2 of NVIDIA H100 80GB HBM3, here are 1") as no:
            agent.freezing.restore(pod(2), FUNCTION, gpu(0), Phases())
        assert no.value.phase == "fit"
        assert not traces(node)
