"""What cannot go well is refused before anything is done, in a line that says why."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from agent_node import (
    FUNCTION,
    HELD,
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
from mps_daemon import mps_daemon
from standin_gpus import MB, enter, tenant
from standin_gpus import Node as Gpus

from inferx.core.types import FunctionId
from inferx.exec.agent import host_room
from inferx.exec.agent.executor import Executor
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.ports import AgentError

pytestmark = needs_node

LIMITED = FunctionId(1)


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gpus:
    made = Gpus.make(tmp_path / "gpus", memory=128 * MB)
    enter(made, monkeypatch)
    return made


@pytest.fixture
def node(tmp_path: Path, gpus: Gpus) -> Iterator[AgentNode]:
    with agent_node(tmp_path, gpus) as made:
        yield made
    assert not traces(made)


@pytest.fixture(scope="module")
def opened(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[AgentNode, Executor]]:
    gpus = Gpus.make(tmp_path_factory.mktemp("gpus") / "gpus", memory=128 * MB)
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(gpus, monkeypatch)
        limited = function(gpus, number=1, launch={"memory_bytes": 24 * MB})
        with (
            agent_node(tmp_path_factory.mktemp("node"), gpus, function(gpus), limited) as made,
            made.agent() as agent,
        ):
            yield made, agent


@pytest.fixture
def shared(opened: tuple[AgentNode, Executor]) -> Iterator[AgentNode]:
    """One node for many tests, without pods and snapshots for each."""
    made, agent = opened
    yield made
    empty_again(made, agent)


@pytest.fixture
def agent(shared: AgentNode, opened: tuple[AgentNode, Executor]) -> Executor:
    assert shared is opened[0]
    return opened[1]


def refused(work: Callable[[Phases], object], line: str, *steps: str) -> AgentError:
    """Check that something is refused, in its last step."""
    phases = Phases()
    with pytest.raises(AgentError, match=line) as caught:
        work(phases)
    assert "\n" not in str(caught.value)
    assert names(phases) == list(steps)
    return caught.value


def restored(
    agent: Executor, number: int = 2, index: int = 0, snapshot: str = ""
) -> Callable[[Phases], object]:
    return lambda phases: agent.freezing.restore(
        pod(number), FUNCTION, gpu(index), phases, snapshot=snapshot
    )


def frozen(agent: Executor) -> str:
    """Leave a snapshot of a pod; return its id."""
    agent.pods.create(pod(1), FUNCTION, gpu(0), Phases())
    return agent.freezing.snapshot(pod(1), Phases(), leave=True).id


# -- room ---
def test_gpu_state_that_its_limit_does_not_hold_stays_on_the_gpu(
    shared: AgentNode, agent: Executor
) -> None:
    before = memory(agent.pods.create(pod(1), LIMITED, gpu(0), Phases()))
    # The pod's own memory leaves less than its GPU state takes.
    assert agent.pods.node.sandbox.memory_bytes("pod-1") > 24 * MB - HELD
    for work in (
        lambda phases: agent.pods.suspend(pod(1), phases),
        lambda phases: agent.freezing.snapshot(pod(1), phases, leave=True),
    ):
        phases = Phases()
        with pytest.raises(AgentError, match="its memory limit leaves") as caught:
            work(phases)
        assert caught.value.survived
        assert names(phases)[-1] == "host-memory"
    assert memory(agent.pods.get(pod(1))) == before
    assert used(agent.pods.node) == [HELD, 0]
    assert not traces(shared, pods=[1])


def test_host_that_is_too_small_is_told_before_anything_moves(
    shared: AgentNode, agent: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen(agent)
    before = memory(agent.pods.create(pod(1), FUNCTION, gpu(0), Phases()))
    monkeypatch.setattr(host_room, "MARGIN_BYTES", 1 << 50)
    refused(
        lambda phases: agent.pods.suspend(pod(1), phases),
        "bytes of GPU state; the host has 0 to spare",
        "share",
        "quiesce",
        "holders",
        "host-memory",
    )
    refused(restored(agent), "bytes to restore; the host has 0", "fit", "host-memory")
    refused(
        lambda phases: agent.pods.create(pod(3), FUNCTION, gpu(1), phases),
        f"pod-3: {32 * MB} bytes of host memory to start; the host has 0",
        "host-memory",
    )
    assert memory(agent.pods.get(pod(1))) == before
    assert promised(agent.pods).keys() == {1}
    assert not traces(shared, pods=[1])


def test_full_gpu_is_told_before_anything_is_on_it(shared: AgentNode, agent: Executor) -> None:
    frozen(agent)
    before = memory(agent.pods.create(pod(1), FUNCTION, gpu(0), Phases()))
    agent.pods.suspend(pod(1), Phases())
    with tenant(shared.gpus, gpu_mb=120, visible="0", extra=("--api", "ctypes")):
        line = "GPU 0: .* bytes free as the driver tells"
        create = lambda phases: agent.pods.create(pod(3), FUNCTION, gpu(0), phases)  # noqa: E731
        refused(create, line, "host-memory", "reserve")
        refused(restored(agent), line, "fit", "host-memory", "verify", "reserve")
        error = refused(lambda phases: agent.pods.resume(pod(1), gpu(0), phases), line, "reserve")
        assert error.survived
        assert promised(agent.pods) == {}
        agent.pods.resume(pod(1), gpu(1), Phases())
    assert not traces(shared, pods=[1])
    assert memory(agent.pods.get(pod(1))) == before


def test_gpu_is_promised_once(shared: AgentNode, agent: Executor) -> None:
    for number in (1, 2):
        agent.pods.create(pod(number), FUNCTION, gpu(0), Phases())
    refused(
        lambda phases: agent.pods.create(pod(3), FUNCTION, gpu(0), phases),
        "GPU 0: 0 bytes not promised; expected",
        "host-memory",
        "reserve",
    )
    refused(
        lambda phases: agent.pods.create(pod(3), FUNCTION, gpu(7), phases),
        "no GPU 7; this node has 2",
        "host-memory",
    )
    assert promised(agent.pods).keys() == {1, 2}
    assert not traces(shared, pods=[1, 2])


def test_action_that_does_not_suit_a_pods_state_does_nothing_to_it(
    shared: AgentNode, agent: Executor
) -> None:
    pods = agent.pods
    before = memory(pods.create(pod(1), FUNCTION, gpu(0), Phases()))
    create = lambda phases: pods.create(pod(1), FUNCTION, gpu(1), phases)  # noqa: E731
    assert refused(create, "pod 1 runs already", "host-memory", "reserve").survived
    resume = lambda phases: pods.resume(pod(1), gpu(1), phases)  # noqa: E731
    assert refused(resume, "pod 1 is ready; expected standby").survived
    pods.suspend(pod(1), Phases())
    suspend = lambda phases: pods.suspend(pod(1), phases)  # noqa: E731
    assert refused(suspend, "pod 1 is standby; expected ready").survived
    refused(lambda phases: pods.suspend(pod(9), phases), "no pod 9 on this node")
    pods.resume(pod(1), gpu(0), Phases())
    assert memory(pods.get(pod(1))) == before


# -- snapshots ---
def largest(node: AgentNode, snapshot: str) -> Path:
    files = (node.folder / "nvme" / "snapshots" / snapshot / "files").rglob("*.img")
    return max(files, key=lambda path: path.stat().st_size)


def flip(node: AgentNode, snapshot: str) -> None:
    with largest(node, snapshot).open("r+b") as file:
        file.seek(5 * MB)
        byte = file.read(1)
        file.seek(5 * MB)
        file.write(bytes((byte[0] ^ 1,)))


def cut(node: AgentNode, snapshot: str) -> None:
    path = largest(node, snapshot)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 4096)


def lose(node: AgentNode, snapshot: str) -> None:
    largest(node, snapshot).unlink()


def add(node: AgentNode, snapshot: str) -> None:
    largest(node, snapshot).with_name("more.img").write_bytes(b"more")


@pytest.mark.parametrize(
    ("harm", "line"),
    [
        (flip, r"pages-\S+\.img: has checksum \w+, its manifest says"),
        (cut, r"pages-\S+\.img: has [\d,]+ bytes, its manifest says"),
        (lose, r"pages-\S+\.img: missing"),
        (add, r"more\.img: not in the manifest"),
    ],
)
def test_damaged_snapshot_is_not_restored(
    shared: AgentNode, agent: Executor, harm: Callable[[AgentNode, str], None], line: str
) -> None:
    snapshot = frozen(agent)
    harm(shared, snapshot)
    refused(
        restored(agent),
        rf"snapshot {snapshot} is damaged: {line}",
        "fit",
        "host-memory",
        "verify",
    )
    assert promised(agent.pods) == {}
    assert not traces(shared)


def test_manifest_that_cannot_be_read_hides_nothing_else(
    shared: AgentNode, agent: Executor
) -> None:
    older, newer = frozen(agent), frozen(agent)
    manifest = shared.folder / "nvme" / "snapshots" / newer / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:100])
    found = agent.recover()
    assert len(found.unreadable) == 1
    assert newer in found.unreadable[0]
    refused(restored(agent, snapshot=newer), newer, "fit")
    one = agent.freezing.restore(pod(2), FUNCTION, gpu(0), Phases())
    assert one.record.snapshot == older


def change(gpus: Gpus, old: str, new: str) -> None:
    file = gpus.folder / "gpus"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_snapshot_of_another_node_is_not_restored(node: AgentNode, gpus: Gpus) -> None:
    with node.agent() as agent:
        snapshot = frozen(agent)
    whole = (gpus.folder / "gpus").read_text()
    does_not_fit = rf"snapshot {snapshot} of t/n/tenant0@1 does not fit: "
    for old, new, line in (
        ("580.159.04", "590.1", r"GPU driver was 580\.159\.04, here 590\.1"),
        ("NVIDIA H100 80GB HBM3", "NVIDIA L4", "GPU 0 was NVIDIA H100 80GB HBM3, here NVIDIA L4"),
    ):
        change(gpus, old, new)
        with node.agent() as agent:
            refused(restored(agent), does_not_fit + line, "fit")
        (gpus.folder / "gpus").write_text(whole)

    other = function(gpus, extra=("--seed", "2"))
    with replace(node, functions={FUNCTION: other}).agent() as agent:
        refused(restored(agent), does_not_fit + r"command was \w+, here \w+", "fit")
    with node.agent(sandbox="runc") as agent:
        line = f"snapshot {snapshot} was written by criu; this node reads runc's"
        refused(restored(agent), line, "fit")
    with node.agent(criu=str(node.folder / "nothing")) as agent:
        refused(restored(agent), "was written by criu; this node reads none: no CRIU", "fit")
    assert not traces(node)


def test_node_without_criu_suspends_all_the_same(node: AgentNode) -> None:
    with node.agent(criu=str(node.folder / "nothing")) as agent:
        before = memory(agent.pods.create(pod(1), FUNCTION, gpu(0), Phases()))
        phases = Phases()
        with pytest.raises(AgentError, match=r"no CRIU: .*/nothing is not there") as caught:
            agent.freezing.snapshot(pod(1), phases, leave=True)
        assert caught.value.survived
        # Its GPU state has not moved, and it has given up nothing.
        assert names(phases) == ["share"]
        assert ask(agent.pods.get(pod(1)))["wakes"] == 0
        agent.pods.suspend(pod(1), Phases())
        agent.pods.resume(pod(1), gpu(1), Phases())
        assert memory(agent.pods.get(pod(1))) == before
        assert not traces(node, pods=[1])


def test_gpu_memory_that_cannot_be_moved_is_not_forgotten(node: AgentNode) -> None:
    with node.agent(checkpoints=False) as agent:
        before = memory(agent.pods.create(pod(1), FUNCTION, gpu(0), Phases()))
        line = f"pod-1 holds {HELD} bytes of GPU memory that cannot be moved"
        for work in (
            lambda phases: agent.pods.suspend(pod(1), phases),
            lambda phases: agent.freezing.snapshot(pod(1), phases, leave=True),
        ):
            with pytest.raises(AgentError, match=line) as caught:
                work(Phases())
            assert caught.value.survived
        assert memory(agent.pods.get(pod(1))) == before
        assert promised(agent.pods).keys() == {1}


def test_unknown_runtime_is_a_line(node: AgentNode) -> None:
    with (
        pytest.raises(AgentError, match=r"sandbox containerd: .*no-containerd.sock"),
        node.agent(sandbox="containerd"),
    ):
        pass


def test_node_has_one_agent(node: AgentNode) -> None:
    with (
        node.agent(),
        pytest.raises(AgentError, match="another agent works with it"),
        node.agent(),
    ):
        pass


def test_snapshot_that_the_tier_does_not_hold_is_not_begun(tmp_path: Path, gpus: Gpus) -> None:
    with (
        agent_node(tmp_path, gpus, budget_bytes=HELD) as node,
        node.agent() as agent,
    ):
        before = memory(agent.pods.create(pod(1), FUNCTION, gpu(0), Phases()))
        steps = ("share", "quiesce", "room")
        work = lambda phases: agent.freezing.snapshot(pod(1), phases, leave=True)  # noqa: E731
        assert refused(work, "tier nvme: .*", *steps).survived
        assert memory(agent.pods.get(pod(1))) == before
        assert not traces(node, pods=[1])


def test_share_that_cannot_be_checkpointed_is_told(tmp_path: Path, gpus: Gpus) -> None:
    mps = function(gpus, enforcement="mps")
    pipes = tmp_path / "pipes"
    pipes.mkdir()
    with (
        mps_daemon(pipes),
        agent_node(tmp_path, gpus, mps, mps_pipes=pipes) as node,
        node.agent() as agent,
    ):
        before = memory(agent.pods.create(pod(1), FUNCTION, gpu(0), Phases()))
        work = lambda phases: agent.freezing.snapshot(pod(1), phases, leave=True)  # noqa: E731
        assert refused(work, "mps", "share").survived
        work = lambda phases: agent.pods.suspend(pod(1), phases)  # noqa: E731
        assert refused(work, "mps", "share").survived
        assert memory(agent.pods.get(pod(1))) == before
