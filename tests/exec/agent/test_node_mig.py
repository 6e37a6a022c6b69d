"""Pods on MIG devices: each device of a cut GPU is one of the node's GPUs, with its own number."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_node import (
    FUNCTION,
    GPU_MB,
    AgentNode,
    agent_node,
    ask,
    function,
    gpu,
    needs_node,
    pod,
    promised,
    traces,
)
from msgspec.structs import replace
from standin_gpus import MB, enter, mig_uuid, uuid
from standin_gpus import Node as Gpus

from inferx.core.types import FunctionId
from inferx.exec.agent.description import describe
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.ports import AgentError

pytestmark = needs_node

WHOLE = FunctionId(1)
SMALL, LARGE = 96 * MB, 512 * MB


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentNode]:
    """Two GPUs, the first of them cut into two small devices and a large one."""
    parts = [("1g.10gb", SMALL), ("1g.10gb", SMALL), ("3g.40gb", LARGE)]
    gpus = Gpus.make(tmp_path / "gpus", gpus=2, mig={0: parts})
    enter(gpus, monkeypatch)
    functions = (
        function(gpus, enforcement="mig", milli_gpu=1000),
        function(gpus, number=1, enforcement="env"),
    )
    with agent_node(tmp_path, gpus, *functions) as made:
        yield made


def test_each_device_is_addressed_by_its_own_number(node: AgentNode) -> None:
    with node.agent() as agent:
        told = [
            (each.index, each.mig_profile, each.memory_total) for each in agent.pods.room.gpus()
        ]
        assert told[:4] == [
            (-1, "", 1024 * MB),
            (0, "1g.10gb", SMALL),
            (1, "1g.10gb", SMALL),
            (2, "3g.40gb", LARGE),
        ]
        for row in range(3):
            one = agent.pods.create(pod(row + 1), FUNCTION, gpu(row), Phases())
            assert ask(one)["gpus"] == [mig_uuid(row).replace("MIG", "GPU")], "as CUDA tells it"
        other = agent.pods.create(pod(4), WHOLE, gpu(3), Phases())
        assert ask(other)["gpus"] == [uuid(1)]
        assert promised(agent.pods) == {
            1: [mig_uuid(0)],
            2: [mig_uuid(1)],
            3: [mig_uuid(2)],
            4: [uuid(1)],
        }
        assert [one.gpus for one in agent.running()] == [(0,), (1,), (2,), (3,)]
        with pytest.raises(AgentError, match="GPU 1: 33554432 bytes not promised"):
            agent.pods.create(pod(5), FUNCTION, gpu(1), Phases())
        with pytest.raises(AgentError, match="enforcement 'mig' cannot be checkpointed") as no:
            agent.pods.suspend(pod(1), Phases())
        assert no.value.survived
        assert not traces(node, pods=[1, 2, 3, 4])


@pytest.mark.parametrize(
    ("which", "row", "expected"),
    [
        (FUNCTION, 3, "is a whole GPU, not a MIG device"),
        (WHOLE, 0, "is a MIG device; its share is mig"),
        (FUNCTION, 4, "no GPU 4; this node has 4"),
        (FUNCTION, -1, "no GPU -1; this node has 4"),
    ],
)
def test_what_a_share_cannot_use_is_refused(
    node: AgentNode, which: FunctionId, row: int, expected: str
) -> None:
    with node.agent() as agent:
        with pytest.raises(AgentError, match=expected):
            agent.pods.create(pod(1), which, gpu(row), Phases())
        assert promised(agent.pods) == {}
        assert not traces(node)


def test_a_scheduler_is_told_of_what_commands_can_name(node: AgentNode) -> None:
    with node.agent() as agent:
        told = describe(agent.pods.node, name="here")
        assert (told.gpus, told.hbm_bytes) == (4, SMALL)


def test_a_slice_larger_than_the_device_is_refused(node: AgentNode) -> None:
    large = replace(node.functions[FUNCTION].spec, hbm_bytes=SMALL + GPU_MB * MB)
    node.functions = {FUNCTION: replace(node.functions[FUNCTION], spec=large)}
    with node.agent() as agent:
        with pytest.raises(AgentError, match=f"GPU 0: {SMALL} bytes not promised"):
            agent.pods.create(pod(1), FUNCTION, gpu(0), Phases())
        agent.pods.create(pod(1), FUNCTION, gpu(2), Phases())
