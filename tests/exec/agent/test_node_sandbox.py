"""The sandbox that has pods is the one that the next agent takes, or waits for."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import system_parts as parts
from agent_node import FUNCTION, AgentNode, needs_node, pod, traces
from container_node import container_node, tenant
from standin_gpus import Node as Gpus

from inferx.exec.agent.phases import Phases
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.sandbox_kind import kind_of, remember

missing = parts.missing_parts("containerd", "runc", "ip")
needs_containers = pytest.mark.skipif(bool(missing), reason=missing)

GPU_LESS = {"gpu_mb": 0, "gpus": 0, "milli_gpu": 0, "hbm_bytes": 0}


@pytest.fixture
def gpus(tmp_path: Path) -> Gpus:
    return Gpus.make(tmp_path / "gpus", gpus=1)


def start(node: AgentNode) -> None:
    with node.agent() as agent:
        agent.pods.create(pod(1), FUNCTION, (), Phases())


@needs_node
@needs_containers
def test_pods_keep_their_sandbox(tmp_path: Path, gpus: Gpus) -> None:
    declared = {"gpus": (1 << 30,)}
    with container_node(tmp_path, gpus, "runc", tenant(gpus, **GPU_LESS), **declared) as node:
        start(node)
        # Another would take them for gone.
        with (
            pytest.raises(AgentError, match=r"has 1 pods of sandbox runc; expected runc or auto"),
            node.agent(sandbox="process"),
        ):
            pass
        with node.agent(sandbox="auto") as agent:
            assert agent.pods.node.sandbox.name == "runc"
            assert agent.recover().adopted == (1,)
            agent.pods.stop(pod(1))
        assert not traces(node)
        # Without pods another can be taken.
        with node.agent(sandbox="process") as agent:
            assert agent.recover().adopted == ()
        with node.agent(sandbox="auto") as agent:
            assert agent.pods.node.sandbox.name == "process"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[tuple[int, str]]:
    with parts.containerd(tmp_path / "containerd") as started:
        yield started


@needs_node
@needs_containers
def test_a_containerd_that_has_pods_is_waited_for(
    tmp_path: Path, gpus: Gpus, daemon: tuple[int, str]
) -> None:
    pid, socket = daemon
    function, declared = tenant(gpus, **GPU_LESS), {"gpus": (1 << 30,)}
    with container_node(tmp_path, gpus, "containerd", function, socket=socket, **declared) as node:
        start(node)
        os.kill(pid, signal.SIGSTOP)
        try:
            with (
                pytest.raises(AgentError, match=r"^sandbox containerd: .*it has 1 pods of"),
                node.agent(sandbox="auto"),
            ):
                pass
            threading.Timer(1.0, os.kill, (pid, signal.SIGCONT)).start()
            with node.agent(sandbox="auto", wait_s=30.0) as agent:
                sandbox = agent.pods.node.sandbox
                assert sandbox.name == "containerd"
                assert agent.recover().adopted == (1,)
                agent.pods.stop(pod(1))
        finally:
            os.kill(pid, signal.SIGCONT)
        # The connection ended with the agent.
        with pytest.raises(ValueError, match="closed channel"):
            sandbox.live()
        assert not traces(node)


def test_what_was_remembered_counts_only_where_there_are_pods(tmp_path: Path) -> None:
    assert kind_of(tmp_path, "auto") == "auto"
    remember(tmp_path, "runc")
    assert kind_of(tmp_path, "process") == "process"
    (tmp_path / "pods/pod-7").mkdir(parents=True)
    assert kind_of(tmp_path, "auto") == kind_of(tmp_path, "runc") == "runc"
    (tmp_path / "sandbox").unlink()
    (tmp_path / "sandbox").mkdir()
    with pytest.raises(AgentError, match="cannot be read") as caught:
        kind_of(tmp_path, "auto")
    assert "\n" not in str(caught.value)
