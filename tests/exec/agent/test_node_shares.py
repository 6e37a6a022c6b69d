"""A pod's share is asked as the pod starts: what held it yesterday may be gone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_node import (
    FUNCTION,
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
from mps_daemon import mps_daemon
from standin_gpus import Node as Gpus
from standin_gpus import enter

from inferx.core.types import FunctionId
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.ports import AgentError

pytestmark = needs_node

HOOKED = FunctionId(1)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentNode]:
    gpus = Gpus.make(tmp_path / "gpus")
    enter(gpus, monkeypatch)
    functions = (
        function(gpus, enforcement="mps"),
        function(gpus, number=1, enforcement="hook"),
    )
    places = {"mps_pipes": tmp_path / "pipes", "hook": tmp_path / "libvgpu.so"}
    (tmp_path / "pipes").mkdir()
    with agent_node(tmp_path, gpus, *functions, **places) as made:
        yield made


def environment(node: AgentNode, number: int) -> dict[str, str]:
    with node.agent() as agent:
        agent.recover()
        pid = agent.pods.get(pod(number)).live.pid
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if pair)


def test_a_pod_under_mps_is_refused_once_the_daemon_has_died(
    node: AgentNode, tmp_path: Path
) -> None:
    with node.agent() as agent:
        with mps_daemon(tmp_path / "pipes"):
            one = agent.pods.create(pod(1), FUNCTION, gpu(0), Phases())
        with pytest.raises(
            AgentError, match=r"share mps: no MPS control daemon at /.*/pipes"
        ) as no:
            agent.pods.create(pod(2), FUNCTION, gpu(1), Phases())
        assert no.value.phase == "share"
        assert ask(one)["gpus"], "who runs is left alone"
        assert list(promised(agent.pods)) == [1]
        assert not traces(node, pods=[1])
    assert environment(node, 1)["CUDA_MPS_PIPE_DIRECTORY"] == str(tmp_path / "pipes")


def test_a_pod_under_a_hook_is_refused_once_the_library_is_gone(
    node: AgentNode, tmp_path: Path
) -> None:
    with node.agent() as agent:
        with pytest.raises(AgentError, match=r"share hook: /.*/libvgpu.so is not there") as no:
            agent.pods.create(pod(1), HOOKED, gpu(0), Phases())
        assert no.value.phase == "share"
        assert not traces(node)
