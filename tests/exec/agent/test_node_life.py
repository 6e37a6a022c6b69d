"""Pods on a whole node: started, suspended, resumed, written and restored, with equal memory.

The driver's libraries are stand-ins; processes, CRIU, cgroups and network namespaces are real.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from agent_node import (
    FUNCTION,
    GPU_MB,
    HELD,
    HOST_MB,
    AgentNode,
    agent_node,
    ask,
    empty_again,
    function,
    gpu,
    memory,
    names,
    needs_node,
    pod,
    promised,
    traces,
    used,
)
from msgspec.structs import replace
from standin_gpus import MB, enter, uuid
from standin_gpus import Node as Gpus

from inferx.core.events import FoundPod
from inferx.core.types import FunctionId
from inferx.exec.agent.executor import Executor
from inferx.exec.agent.phases import Phases

pytestmark = needs_node

DOWN = ["quiesce", "holders", "host-memory", "lock", "checkpoint", "verify"]
UP = ["device-restore", "unlock", "wake", "health"]
RESTORE = ["fit", "host-memory", "verify", "reserve", "network", "restore"]


@pytest.fixture(scope="module")
def opened(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[AgentNode, Executor]]:
    gpus = Gpus.make(tmp_path_factory.mktemp("gpus") / "gpus", gpus=3)
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(gpus, monkeypatch)
        with (
            agent_node(tmp_path_factory.mktemp("node"), gpus) as made,
            made.agent() as agent,
        ):
            yield made, agent


@pytest.fixture
def node(opened: tuple[AgentNode, Executor]) -> Iterator[AgentNode]:
    """One node for many tests, without pods and snapshots for each."""
    made, agent = opened
    yield made
    empty_again(made, agent)


@pytest.fixture
def agent(node: AgentNode, opened: tuple[AgentNode, Executor]) -> Executor:
    assert node is opened[0]
    return opened[1]


def charged(agent: Executor, number: int) -> int:
    return agent.pods.node.sandbox.memory_bytes(f"pod-{number}")


def test_pod_is_created_with_what_its_share_says(node: AgentNode, agent: Executor) -> None:
    phases = Phases()
    one = agent.pods.create(pod(1), FUNCTION, gpu(1), phases)
    assert names(phases) == ["host-memory", "reserve", "network", "start", "health"]
    assert all(timing.duration_ns > 0 for timing in phases.timings)
    assert ask(one)["gpus"] == [uuid(1)]
    assert used(agent.pods.node) == [0, HELD, 0]
    assert promised(agent.pods) == {1: [uuid(1)]}
    assert charged(agent, 1) > HOST_MB * MB
    agent.pods.stop(pod(1))
    assert used(agent.pods.node) == [0, 0, 0]
    assert promised(agent.pods) == {}
    assert not traces(node)


@pytest.mark.parametrize("index", [0, 1], ids=["the same GPU", "another GPU"])
def test_suspended_pod_comes_back_with_its_memory(
    node: AgentNode, agent: Executor, index: int
) -> None:
    pods = agent.pods
    one = pods.create(pod(1), FUNCTION, gpu(0), Phases())
    before, charged_before = memory(one), charged(agent, 1)
    ask(one, "/allocate?mb=3", post=True)
    assert used(pods.node) == [HELD + 3 * MB, 0, 0]

    down = Phases()
    pods.suspend(pod(1), down)
    assert names(down) == ["share", *DOWN, "freeze"]
    # What was taken beyond the weights was given up before, and what was moved is counted.
    assert [t.moved_bytes for t in down.timings if t.phase == "checkpoint"] == [HELD]
    assert used(pods.node) == [0, 0, 0]
    assert promised(pods) == {}
    assert charged(agent, 1) - charged_before == pytest.approx(GPU_MB * MB, abs=MB)
    assert pods.get(pod(1)).record.device_bytes == HELD
    assert pods.node.sandbox.pids("pod-1"), "it is kept"

    up = Phases()
    pods.resume(pod(1), gpu(index), up)
    assert names(up) == ["reserve", "thaw", *UP]
    assert used(pods.node)[index] == HELD == sum(used(pods.node))
    assert promised(pods) == {1: [uuid(index)]}
    assert charged(agent, 1) - charged_before == pytest.approx(0, abs=MB)
    one = pods.get(pod(1))
    told = ask(one)
    assert (told["gpu_crcs"], told["host_crc"]) == before
    assert (told["gpus"], told["counter"], told["wakes"]) == ([uuid(index)], 2, 1)
    assert not traces(node, pods=[1])


def test_pod_moves_around_all_gpus(agent: Executor) -> None:
    pods = agent.pods
    before = memory(pods.create(pod(1), FUNCTION, gpu(0), Phases()))
    for index in (1, 2, 0, 2):
        pods.suspend(pod(1), Phases())
        pods.resume(pod(1), gpu(index), Phases())
        assert memory(pods.get(pod(1))) == before
        assert used(pods.node)[index] == HELD == sum(used(pods.node))


def test_written_pod_goes_on(node: AgentNode, agent: Executor) -> None:
    pods = agent.pods
    one = pods.create(pod(1), FUNCTION, gpu(1), Phases())
    before, phases = memory(one), Phases()
    manifest = agent.freezing.snapshot(pod(1), phases, leave=False)
    written = ["share", "quiesce", "room", *DOWN[1:], "dump", "commit"]
    assert names(phases) == [*written, *UP]
    assert manifest.sizes.device_bytes == HELD
    assert manifest.size_bytes > (GPU_MB + HOST_MB) * MB
    assert [gpu.uuid for gpu in manifest.platform.gpus] == [uuid(1)]
    assert [phase.name for phase in manifest.phases] == written[:-1]
    assert memory(pods.get(pod(1))) == before
    assert used(pods.node) == [0, HELD, 0]
    assert pods.get(pod(1)).record.state == "ready"
    assert not traces(node, pods=[1])


def test_written_pod_that_was_suspended_stays_so(node: AgentNode, agent: Executor) -> None:
    pods = agent.pods
    before = memory(pods.create(pod(1), FUNCTION, gpu(0), Phases()))
    pods.suspend(pod(1), Phases())
    phases = Phases()
    agent.freezing.snapshot(pod(1), phases, leave=False)
    assert names(phases) == ["share", "room", "thaw", "dump", "commit", "freeze"]
    state = Path(f"/sys/fs/cgroup/freezer/{node.config.name}/pod-1/freezer.state")
    if state.exists():  # Version 1.
        assert state.read_text().strip() == "FROZEN"
    assert (used(pods.node), promised(pods)) == ([0, 0, 0], {})
    pods.resume(pod(1), gpu(2), Phases())
    assert memory(pods.get(pod(1))) == before
    one = agent.freezing.restore(pod(2), FUNCTION, gpu(1), Phases())
    assert memory(one) == before


@pytest.mark.parametrize("index", [0, 1], ids=["the same GPU", "another GPU"])
def test_restored_pod_has_the_memory_of_the_one_that_ended(
    node: AgentNode, agent: Executor, index: int
) -> None:
    pods = agent.pods
    before = memory(pods.create(pod(1), FUNCTION, gpu(0), Phases()))
    agent.freezing.snapshot(pod(1), Phases(), leave=True)
    assert (used(pods.node), promised(pods)) == ([0, 0, 0], {})
    assert not traces(node)

    phases = Phases()
    one = agent.freezing.restore(pod(2), FUNCTION, gpu(index), phases)
    assert names(phases) == [*RESTORE, *UP]
    assert used(pods.node)[index] == HELD == sum(used(pods.node))
    assert promised(pods) == {2: [uuid(index)]}
    told = ask(one)
    assert (told["gpu_crcs"], told["host_crc"]) == before
    assert (told["gpus"], told["counter"], told["wakes"]) == ([uuid(index)], 2, 1)
    assert not traces(node, pods=[2])


def test_pod_is_restored_without_gpus_and_resumed_later(agent: Executor) -> None:
    pods = agent.pods
    before = memory(pods.create(pod(1), FUNCTION, gpu(0), Phases()))
    agent.freezing.snapshot(pod(1), Phases(), leave=True)
    phases = Phases()
    one = agent.freezing.restore(pod(2), FUNCTION, (), phases)
    assert names(phases) == [*RESTORE, "freeze"]
    assert one.record.state == "standby"
    assert (used(pods.node), promised(pods)) == ([0, 0, 0], {})
    assert charged(agent, 2) > (GPU_MB + HOST_MB) * MB
    pods.resume(pod(2), gpu(2), Phases())
    assert memory(pods.get(pod(2))) == before
    assert promised(pods) == {2: [uuid(2)]}


def test_three_clones_at_once(node: AgentNode, agent: Executor) -> None:
    pods = agent.pods
    before = memory(pods.create(pod(1), FUNCTION, gpu(0), Phases()))
    agent.freezing.snapshot(pod(1), Phases(), leave=True)
    with ThreadPoolExecutor(3) as threads:
        clones = list(
            threads.map(
                lambda row: agent.freezing.restore(pod(row + 2), FUNCTION, gpu(row), Phases()),
                range(3),
            )
        )
    assert [memory(one) for one in clones] == [before] * 3
    assert len({one.record.address for one in clones}) == 3
    assert used(pods.node) == [HELD] * 3
    # Each counts for itself.
    assert [ask(clones[0])["counter"] for _ in range(3)] == [3, 4, 5]
    assert ask(clones[1])["counter"] == 3
    assert not traces(node, pods=[2, 3, 4])


def test_pod_of_two_gpus_changes_places(tmp_path: Path, opened: tuple[AgentNode, Executor]) -> None:
    gpus = opened[0].gpus
    both = function(gpus, gpus=2)
    with agent_node(tmp_path, gpus, both) as node, node.agent() as agent:
        pods = agent.pods
        before = memory(pods.create(pod(1), FUNCTION, gpu(0, 1), Phases()))
        pods.suspend(pod(1), Phases())
        pods.resume(pod(1), gpu(1, 2), Phases())
        assert memory(pods.get(pod(1))) == before
        assert used(pods.node) == [0, HELD, HELD]
        agent.freezing.snapshot(pod(1), Phases(), leave=True)
        one = agent.freezing.restore(pod(2), FUNCTION, gpu(2, 0), Phases())
        assert memory(one) == before
        assert used(pods.node) == [HELD, 0, HELD]


def test_pods_are_found_again(tmp_path: Path, opened: tuple[AgentNode, Executor]) -> None:
    with agent_node(tmp_path, opened[0].gpus) as node:
        found_again(node)
        assert not traces(node, pods=[1, 2, 3])
    assert not traces(node)


def found_again(node: AgentNode) -> None:
    with node.agent() as agent:
        agent.pods.create(pod(1), FUNCTION, gpu(0), Phases())
        before = memory(agent.pods.create(pod(2), FUNCTION, gpu(1), Phases()))
        agent.pods.suspend(pod(2), Phases())
    with node.agent() as agent:
        found = agent.recover()
        assert (found.adopted, found.killed) == ((1, 2), ())
        assert agent.running() == [
            FoundPod(pod(1), FUNCTION, gpu(0), "ready"),
            FoundPod(pod(2), FUNCTION, (), "suspended"),
        ]
        assert promised(agent.pods) == {1: [uuid(0)]}
        agent.pods.resume(pod(2), gpu(0), Phases())
        assert memory(agent.pods.get(pod(2))) == before
        # Addresses that are taken are known, too.
        three = agent.pods.create(pod(3), FUNCTION, gpu(2), Phases())
        assert len({one.record.address for one in agent.pods.all()}) == 3
        assert memory(three) == before


def test_a_pod_is_known_by_its_functions_name_not_by_its_number(
    tmp_path: Path, opened: tuple[AgentNode, Executor]
) -> None:
    gpus = opened[0].gpus
    with agent_node(tmp_path, gpus) as node:
        with node.agent() as agent:
            agent.pods.create(pod(1), FUNCTION, gpu(0), Phases())
        (one,) = node.functions.values()
        other = function(gpus, number=1)
        node.functions = {FunctionId(0): replace(other, id=0), FunctionId(1): replace(one, id=1)}
        with node.agent() as agent:
            assert agent.recover().adopted == (1,)
            assert agent.running() == [FoundPod(pod(1), FunctionId(1), gpu(0), "ready")]
        node.functions = {FunctionId(0): replace(other, id=0)}
        with node.agent() as agent:
            assert agent.recover().killed == (1,)
            assert agent.running() == []
        assert not traces(node)


def test_an_address_that_was_left_is_used_again_after_all_others(
    node: AgentNode, agent: Executor
) -> None:
    network = agent.pods.node.network
    places = set()
    for row in range(12):
        places.add(network.enter(f"pod-{row}").host)
        network.leave(f"pod-{row}")
    # Whoever still has a connection to the one that left must not meet another there.
    assert len(places) == 12
    assert not traces(node)
