"""Pods with GPUs as containers, on a whole node: as processes are, and what only containers have.

The driver's library is a stand-in that a CDI file gives them; containerd, runc, CRIU, images,
cgroups and networks are real.
"""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import system_parts as parts
from agent_node import (
    FUNCTION,
    HELD,
    AgentNode,
    Meanwhile,
    ask,
    empty_again,
    gpu,
    memory,
    needs_node,
    pod,
    promised,
    traces,
    used,
)
from container_node import IMAGE, container_node, import_image, tenant, write_cdi
from msgspec.structs import replace
from standin_gpus import Node as Gpus
from standin_gpus import enter, uuid
from system_parts import until

from inferx.core.types import FunctionId
from inferx.exec.agent.executor import Executor
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.processes import launch, procfs

missing = parts.missing_parts("containerd", "runc", "ip")
pytestmark = [needs_node, pytest.mark.skipif(bool(missing), reason=missing)]

GPUS = 3
IDLE = FunctionId(1)
"""A function without GPUs."""


@pytest.fixture(scope="module")
def gpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpus]:
    made = Gpus.make(tmp_path_factory.mktemp("gpus") / "gpus", gpus=GPUS)
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(made, monkeypatch)
        yield made


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with parts.containerd(tmp_path_factory.mktemp("containerd")) as (_, address):
        yield address


@pytest.fixture(scope="module", params=["runc", "containerd"])
def opened(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    gpus: Gpus,
    socket: str,
) -> Iterator[tuple[AgentNode, Executor]]:
    launch.adopt_orphans()
    kind = request.param
    image = IMAGE if kind == "containerd" else ""
    functions = (
        tenant(gpus, image=image, launch={"cpu_milli": 1500}),
        tenant(gpus, image=image, number=1, gpu_mb=0, gpus=0, milli_gpu=0, hbm_bytes=0),
    )
    folder = tmp_path_factory.mktemp("node")
    by = "uuid" if kind == "runc" else "index"
    cdi = write_cdi(folder / "gpus", gpus, count=GPUS, by=by)
    with container_node(folder, gpus, kind, *functions, socket=socket, cdi=(cdi,)) as made:
        if image:
            import_image(made, folder / "image.tar")
        with made.agent() as agent:
            yield made, agent


@pytest.fixture
def node(opened: tuple[AgentNode, Executor]) -> Iterator[AgentNode]:
    made, agent = opened
    yield made
    empty_again(made, agent)
    assert list(agent.pods.node.sandbox.traces()) == []
    # Of this process, as of an agent that is the first in its own container.
    assert procfs.inner_zombies() == []
    name = made.config.name
    until(lambda: parts.processes("containerd-shim", f"-namespace {name}") == [])


@pytest.fixture
def agent(node: AgentNode, opened: tuple[AgentNode, Executor]) -> Executor:
    assert node is opened[0]
    return opened[1]


def devices(agent: Executor, number: int) -> list[str]:
    """Return the GPUs' device files that a pod sees."""
    live = agent.pods.get(pod(number)).live
    found = Path(f"/proc/{live.pid}/root/dev").glob("nvidia*")
    return sorted(path.name for path in found)


def test_a_pod_has_its_gpu_and_no_other(node: AgentNode, agent: Executor) -> None:
    told = {one.name: one for one in agent.pods.node.capabilities}["devices/cdi"]
    assert told.available, told.reason
    one = agent.pods.create(pod(1), FUNCTION, gpu(1), Phases())
    assert ask(one)["gpus"] == [uuid(1)]
    assert used(agent.pods.node) == [0, HELD, 0]
    assert devices(agent, 1) == ["nvidia1"]
    environ = Path(f"/proc/{one.live.pid}/environ").read_bytes().split(b"\0")
    assert b"NVIDIA_VISIBLE_DEVICES=void" in environ
    assert f"CUDA_VISIBLE_DEVICES={uuid(1)}".encode() in environ
    idle = agent.pods.create(pod(2), IDLE, (), Phases())
    assert devices(agent, 2) == []
    assert not Path(f"/proc/{idle.live.pid}/root/gpu/lib").exists()
    agent.pods.stop(pod(1))
    assert used(agent.pods.node) == [0, 0, 0]


@pytest.mark.parametrize("index", [0, 1], ids=["the same GPU", "another GPU"])
def test_a_suspended_pod_comes_back_with_its_memory(
    node: AgentNode, agent: Executor, index: int
) -> None:
    pods = agent.pods
    before = memory(pods.create(pod(1), FUNCTION, gpu(0), Phases()))
    pods.suspend(pod(1), Phases())
    assert (used(pods.node), promised(pods)) == ([0, 0, 0], {})
    pods.resume(pod(1), gpu(index), Phases())
    assert memory(pods.get(pod(1))) == before
    assert used(pods.node)[index] == HELD == sum(used(pods.node))
    assert devices(agent, 1) == [f"nvidia{index}"]
    # And it can be written from there.
    agent.freezing.snapshot(pod(1), Phases(), leave=False)
    assert memory(pods.get(pod(1))) == before


@pytest.mark.parametrize("index", [0, 2], ids=["the same GPU", "another GPU"])
def test_a_restored_pod_has_the_memory_of_the_one_that_ended(
    node: AgentNode, agent: Executor, index: int
) -> None:
    pods = agent.pods
    before = memory(pods.create(pod(1), FUNCTION, gpu(0), Phases()))
    manifest = agent.freezing.snapshot(pod(1), Phases(), leave=True)
    assert manifest.snapshotter == node.config.sandbox
    assert not traces(node)
    one = agent.freezing.restore(pod(2), FUNCTION, gpu(index), Phases())
    told = ask(one)
    assert (told["gpu_crcs"], told["host_crc"]) == before
    assert (told["gpus"], told["counter"], told["wakes"]) == ([uuid(index)], 2, 1)
    assert devices(agent, 2) == [f"nvidia{index}"]


def test_a_pod_is_restored_without_gpus_and_resumed_later(node: AgentNode, agent: Executor) -> None:
    pods = agent.pods
    before = memory(pods.create(pod(1), FUNCTION, gpu(0), Phases()))
    agent.freezing.snapshot(pod(1), Phases(), leave=True)
    one = agent.freezing.restore(pod(2), FUNCTION, (), Phases())
    assert one.record.state == "standby"
    assert devices(agent, 2) == []
    pods.resume(pod(2), gpu(2), Phases())
    assert memory(pods.get(pod(2))) == before
    assert devices(agent, 2) == ["nvidia2"]


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
    assert used(pods.node) == [HELD] * 3
    assert [devices(agent, row + 2) for row in range(3)] == [[f"nvidia{row}"] for row in range(3)]
    assert [ask(clones[0])["counter"] for _ in range(3)] == [3, 4, 5]
    assert ask(clones[1])["counter"] == 3


def test_a_pod_is_found_again_by_the_next_agent(tmp_path: Path, gpus: Gpus, socket: str) -> None:
    cdi = write_cdi(tmp_path / "gpus", gpus, count=GPUS)
    with container_node(tmp_path, gpus, "runc", tenant(gpus), cdi=(cdi,)) as node:
        with node.agent() as agent:
            before = memory(agent.pods.create(pod(1), FUNCTION, gpu(0), Phases()))
            agent.pods.suspend(pod(1), Phases())
        with node.agent() as agent:
            assert agent.recover().adopted == (1,)
            agent.pods.resume(pod(1), gpu(1), Phases())
            assert memory(agent.pods.get(pod(1))) == before
            agent.pods.stop(pod(1))
        assert not traces(node)


def test_a_gpu_that_no_file_describes_is_one_clear_line(tmp_path: Path, gpus: Gpus) -> None:
    cdi = write_cdi(tmp_path / "gpus", gpus, count=1)
    with container_node(tmp_path, gpus, "runc", tenant(gpus), cdi=(cdi,)) as node:
        with node.agent() as agent:
            told = {one.name: one for one in agent.pods.node.capabilities}["devices/cdi"]
            assert not told.available
            assert f"GPU {uuid(1)}: no CDI file in {cdi} names" in told.reason
            with pytest.raises(AgentError, match="no CDI file") as caught:
                agent.pods.create(pod(1), FUNCTION, gpu(1), Phases())
            assert "\n" not in str(caught.value)
            agent.pods.create(pod(1), FUNCTION, gpu(0), Phases())
            agent.pods.stop(pod(1))
        assert not traces(node)


def test_gpus_that_are_declared_need_no_file(tmp_path: Path, gpus: Gpus) -> None:
    function = tenant(gpus, gpu_mb=0)
    declared = {"gpus": (1 << 30,), "cdi": (tmp_path / "none",)}
    with container_node(tmp_path, gpus, "runc", function, **declared) as node:
        with node.agent() as agent:
            agent.pods.create(pod(1), FUNCTION, gpu(0), Phases())
            assert devices(agent, 1) == []
            agent.pods.stop(pod(1))
        assert not traces(node)


def test_the_host_is_seen_no_more_than_programs_need(node: AgentNode, agent: Executor) -> None:
    if node.config.sandbox != "runc":
        pytest.skip("pods of an image see the image")
    live = agent.pods.create(pod(1), IDLE, (), Phases()).live
    root = Path(f"/proc/{live.pid}/root")
    assert (root / "etc/passwd").is_file()
    for hidden in ("etc/shadow", "etc/ssh", "home", "var", "srv", "boot"):
        assert not (root / hidden).exists(), hidden
    # Where the agent's own interpreter is in there, nothing beside it is.
    base = Path(sys.base_prefix).resolve()
    for at in (path for path in base.parents if path.is_relative_to("/root")):
        below = [path.name for path in (root / str(at)[1:]).iterdir()]
        assert below == [base.relative_to(at).parts[0]]


def test_processor_time_and_processes_are_bounded(node: AgentNode, agent: Executor) -> None:
    agent.pods.create(pod(1), FUNCTION, gpu(0), Phases())
    (quota,) = limits(node, "cpu.cfs_quota_us", "cpu.max")
    assert quota in {"150000", "150000 100000"}
    assert limits(node, "pids.max") == ["8192"]


def limits(node: AgentNode, *files: str) -> list[str]:
    """Return what a pod's cgroups say in these files, each hierarchy once."""
    tops = {os.path.realpath(top) for top in parts.cgroup_folders(f"/{node.config.name}/pod-1")}
    found = [Path(top) / file for top in sorted(tops) for file in files]
    return [path.read_text().strip() for path in found if path.exists()]


def test_the_digest_of_an_image_decides_of_a_restore(
    tmp_path: Path, node: AgentNode, agent: Executor
) -> None:
    agent.pods.create(pod(1), IDLE, (), Phases())
    manifest = agent.freezing.snapshot(pod(1), Phases(), leave=False)
    if node.config.sandbox == "runc":
        assert manifest.platform.image_digest == ""
        return
    assert manifest.platform.image_digest.startswith("sha256:")
    # The name comes to mean another image. What runs is still of the first, which has another name:
    # else containerd would be collecting it while it is imported again.
    socket, namespace = node.config.containerd, node.config.name
    parts.ctr(socket, namespace, "image", "tag", IMAGE, "registry.test/kept:1")
    import_image(node, tmp_path / "other.tar", content=b"2")
    try:
        again = agent.freezing.snapshot(pod(1), Phases(), leave=True)
        assert again.platform.image_digest == manifest.platform.image_digest
        with pytest.raises(
            AgentError, match=r"does not fit: image was sha256:.*, here sha"
        ) as told:
            agent.freezing.restore(pod(2), IDLE, (), Phases())
        assert "\n" not in str(told.value)
    finally:
        import_image(node, tmp_path / "first.tar")
    # It is moved in the middle of a restore: what was checked is what runs.
    other = lambda: import_image(node, tmp_path / "other.tar", content=b"2")  # noqa: E731
    try:
        agent.freezing.restore(pod(2), IDLE, (), Meanwhile("verify", other))
        sandbox = agent.pods.node.sandbox
        assert sandbox.digest_of("pod-2") == manifest.platform.image_digest
        launch = agent.pods.function(IDLE).launch
        assert sandbox.image_digest(launch) != manifest.platform.image_digest
        gone = replace(agent.pods.get(pod(2)).spec, pod="gone", image_digest=f"sha256:{'0' * 64}")
        with pytest.raises(AgentError, match=r"containerd does not have sha256:0{64}") as told:
            sandbox.start(replace(gone, folder=tmp_path / "gone"))
        assert "\n" not in str(told.value)
    finally:
        import_image(node, tmp_path / "first.tar")
