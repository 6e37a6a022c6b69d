"""What is promised, what NVML counts and what the cgroup is charged agree at every step on the way.

GPU state is in one place: on its GPU and within what was promised there, or in the pod's cgroup;
and host memory for it is promised before it comes.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from agent_node import (
    FUNCTION,
    GPU_MB,
    HELD,
    AgentNode,
    agent_node,
    gpu,
    needs_node,
    pod,
    promised,
    traces,
    used,
)
from standin_gpus import MB, enter, uuid
from standin_gpus import Node as Gpus

from inferx.exec.agent.executor import Executor
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.ports import AgentError

pytestmark = needs_node


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentNode]:
    gpus = Gpus.make(tmp_path / "gpus")
    enter(gpus, monkeypatch)
    with agent_node(tmp_path, gpus) as made:
        yield made
        assert not traces(made)


class Audit(Phases):
    """Looks at a pod's memory as every step begins and ends."""

    def __init__(self, agent: Executor) -> None:
        super().__init__()
        self._agent = agent
        self.places: list[tuple[str, str]] = []
        """Where its GPU state was found as each step began."""
        self._at_rest = agent.pods.node.sandbox.memory_bytes("pod-1")
        if agent.pods.get(pod(1)).record.state == "standby":
            self._at_rest -= GPU_MB * MB

    @contextmanager
    def step(self, name: str, moved_bytes: int = 0) -> Generator[None]:
        with super().step(name, moved_bytes):
            self.places.append((name, self.look(name)))
            yield
            self.look(name)

    def look(self, name: str) -> str:
        """Return where the GPU state is, after a look at all that tells of it."""
        pods = self._agent.pods
        moved = pods.node.sandbox.memory_bytes("pod-1") - self._at_rest
        on_gpus = {uuid(index): count for index, count in enumerate(used(pods.node)) if count}
        slices = pods.room.held().get(1, ())
        for one, count in on_gpus.items():
            assert count == HELD, name
            assert count <= sum(part.hbm_bytes for part in slices if part.gpu == one), name
        if on_gpus:
            assert moved == pytest.approx(0, abs=MB), name
        else:
            assert moved == pytest.approx(GPU_MB * MB, abs=MB), name
        coming = pods.host_room.promised_bytes()
        if name in {"lock", "checkpoint", "verify"}:
            # Promised, and once: what has come is not promised any more.
            assert coming + moved == pytest.approx(HELD, abs=MB), name
        elif name != "host-memory":
            assert coming == 0, name
        return next(iter(on_gpus), "host")


def audited(agent: Executor, work: Callable[[Phases], object]) -> list[tuple[str, str]]:
    """Do something, looking; return where the GPU state was as each step began."""
    audit = Audit(agent)
    work(audit)
    audit.look("after")
    assert agent.pods.host_room.promised_bytes() == 0
    return audit.places


def test_views_agree_before_during_and_after_a_suspend(node: AgentNode) -> None:
    with node.agent() as agent:
        pods = agent.pods
        pods.create(pod(1), FUNCTION, gpu(0), Phases())
        places = audited(agent, lambda phases: pods.suspend(pod(1), phases))
        assert [where for step, where in places if step in {"checkpoint", "verify"}] == [
            uuid(0),
            "host",
        ]
        assert (used(pods.node), promised(pods)) == ([0, 0], {})
        places = audited(agent, lambda phases: pods.resume(pod(1), gpu(1), phases))
        assert [where for step, where in places if step in {"device-restore", "unlock"}] == [
            "host",
            uuid(1),
        ]
        assert (used(pods.node), promised(pods)) == ([0, HELD], {1: [uuid(1)]})
        audited(
            agent, lambda phases: agent.freezing.snapshot(pod(1), phases, leave=False, to="nvme")
        )
        assert (used(pods.node), promised(pods)) == ([0, HELD], {1: [uuid(1)]})
        pods.stop(pod(1))


@pytest.mark.parametrize("call", ["lock", "checkpoint"])
def test_views_agree_after_a_suspend_that_failed(node: AgentNode, call: str) -> None:
    with node.agent() as agent:
        pods = agent.pods
        pods.create(pod(1), FUNCTION, gpu(0), Phases())
        audit = Audit(agent)
        node.gpus.inject(call, error=600)
        with pytest.raises(AgentError):
            pods.suspend(pod(1), audit)
        if pods.all():
            assert audit.look("after") == uuid(0)
            assert promised(pods) == {1: [uuid(0)]}
            pods.stop(pod(1))
        assert (used(pods.node), promised(pods)) == ([0, 0], {})
        assert pods.host_room.promised_bytes() == 0
