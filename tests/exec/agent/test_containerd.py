"""What only containerd has: images, shims, a socket that may be away, containers of others."""

import os
import secrets
import signal
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
import system_parts as parts
from images import write_image
from system_parts import SERVER, ask, until

from inferx.exec.agent.containers import rootfs
from inferx.exec.agent.containers.container_criu import unfit
from inferx.exec.agent.containers.containerd import client as api
from inferx.exec.agent.containers.containerd import containerd_pb2 as pb
from inferx.exec.agent.containers.containerd.client import Client
from inferx.exec.agent.containers.containerd.generate import generate
from inferx.exec.agent.containers.containerd.image import chain_id, find_image
from inferx.exec.agent.containers.containerd.sandbox import ContainerdSandbox
from inferx.exec.agent.containers.containerd.snapshotter import ContainerdSnapshotter
from inferx.exec.agent.ports import AgentError, Launch, Mount, PodSpec
from inferx.exec.agent.processes import procfs

missing = parts.missing_parts("containerd", "runc")
needs_parts = pytest.mark.skipif(bool(missing), reason=missing)

IMAGE = "registry.test/group/server:1"


def test_the_checked_in_modules_are_what_the_compiler_writes(tmp_path: Path):
    for written in generate(tmp_path):
        checked_in = Path(api.__file__).with_name(written.name)
        assert written.read_text() == checked_in.read_text(), "run the generate module"


def test_a_chain_names_a_stack_of_layers():
    first, second, third = (f"sha256:{sha256(word).hexdigest()}" for word in (b"a", b"b", b"c"))
    two = f"sha256:{sha256(f'{first} {second}'.encode()).hexdigest()}"
    assert chain_id([first]) == first
    assert chain_id([first, second]) == two
    assert chain_id([first, second, third]) == (
        f"sha256:{sha256(f'{two} {third}'.encode()).hexdigest()}"
    )


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"criu": "/c", "criu_version": "4.2.1"}, ""),
        ({"criu": "/c", "criu_version": "10.0"}, ""),
        ({"criu": "/c", "criu_version": "3.17.1"}, "3.17.1; needs 4.2 or newer"),
        ({"criu": "/c", "criu_version": "4.1.1"}, "4.1.1; needs 4.2 or newer"),
        ({"criu": "/c"}, "cannot be run"),
        ({"runc": "/r"}, "no criu"),
        ({"programs": "cannot be looked for"}, ""),
    ],
)
def test_a_criu_that_is_known_to_be_unfit_is_a_reason(facts: dict[str, str], reason: str):
    assert reason in unfit(facts)
    assert bool(reason) == bool(unfit(facts))


def test_a_socket_that_is_not_there_is_one_clear_error(tmp_path: Path):
    client = Client(str(tmp_path / "none.sock"), "t", deadline_s=2.0)
    sandbox = ContainerdSandbox(client)
    for capability in (sandbox.probe(), ContainerdSnapshotter(sandbox).probe()):
        assert not capability.available
        assert "none.sock" in capability.reason or "needs root" in capability.reason
    with pytest.raises(AgentError, match=r"does not answer at .*none\.sock") as caught:
        sandbox.live()
    assert "\n" not in str(caught.value)
    client.close()


def test_a_socket_that_cannot_be_looked_at_is_a_reason():
    client = Client(f"/{'n' * 300}/containerd.sock", "t")
    reason = ContainerdSandbox(client).probe().reason
    assert "cannot be looked at: File name too long" in reason or reason == "needs root"
    client.close()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with parts.containerd(tmp_path_factory.mktemp("containerd")) as (_, address):
        yield address


class Bench:
    """A namespace of the test's own in a containerd, with its sandbox."""

    def __init__(self, socket: str, base: Path) -> None:
        self.socket = socket
        self.base = base
        self.name = f"inferx-t-{secrets.token_hex(4)}"
        self.client = Client(socket, self.name)
        self.sandbox = ContainerdSandbox(self.client, cgroup_parent=self.name)
        self.snapshotter = ContainerdSnapshotter(self.sandbox)
        self.made: list[str] = []

    def spec(self, pod: str, port: int, **launch: object) -> PodSpec:
        self.made.append(pod)
        said = {
            "function": "t/n/f@1",
            "command": (os.path.realpath(sys.executable), "/srv/container_server.py", "10"),
            "port": port,
            "mounts": (Mount(str(SERVER.parent), "/srv"),),
            **launch,
        }
        return PodSpec(pod=pod, launch=Launch(**said), folder=self.base / "pods" / pod)

    def ctr(self, *words: str) -> str:
        return parts.ctr(self.socket, self.name, *words)

    def check_nothing_left(self) -> None:
        assert list(self.sandbox.live()) == []
        assert list(self.sandbox.traces()) == []
        assert self.ctr("snapshot", "ls").count("Active") == 0
        assert str(self.base) not in Path("/proc/self/mounts").read_text()
        for pod in self.made:
            assert parts.cgroup_folders(f"/{self.name}/{pod}") == []
            assert not (self.base / "pods" / pod / "rootfs").exists()
        until(lambda: parts.processes("containerd-shim", f"-namespace {self.name}") == [])


@pytest.fixture
def bench(daemon: str, tmp_path: Path) -> Iterator[Bench]:
    one = Bench(daemon, tmp_path)
    try:
        yield one
        for pod in one.made:
            one.sandbox.stop(pod)
        one.check_nothing_left()
    finally:
        for pod in one.made:
            one.sandbox.stop(pod)
        one.client.close()
        parts.remove_cgroup(one.name)
        parts.remove_runtime_state(one.name)


@needs_parts
def test_a_pod_of_an_image_is_dumped_and_restored_without_changing_it(bench: Bench):
    archive = bench.base / "image.tar"
    write_image(
        archive,
        IMAGE,
        {"etc/": b"", "tmp/": b"", "etc/first": b"1"},
        {"etc/second": b"2"},
        env=("GREETING=from the image", "PATH=/usr/bin"),
    )
    bench.ctr("image", "import", str(archive))
    image = find_image(bench.client, IMAGE)
    assert image.env["GREETING"] == "from the image"
    port = parts.free_port()
    base = sys.base_prefix
    folders = {"/usr", "/lib", "/lib64", base if not base.startswith("/usr") else "/usr"}
    mounts = tuple(Mount(os.path.realpath(path), path) for path in sorted(folders))
    spec = bench.spec("one", port, image=IMAGE, mounts=(*mounts, Mount(str(SERVER.parent), "/srv")))
    live = bench.sandbox.start(spec)
    assert ask(port, "/env")["env"]["GREETING"] == "from the image"
    root = Path(f"/proc/{live.pid}/root")
    assert (root / "etc/first").read_text() + (root / "etc/second").read_text() == "12"
    assert not (root / "etc/passwd").exists()
    with pytest.raises(OSError, match="Read-only"):
        (root / "etc/third").touch()
    held = ask(port, "/sum")["sum"]
    into = bench.base / "dump"
    into.mkdir()
    bench.snapshotter.dump(spec, live, into, leave=True)
    bench.check_nothing_left()
    again = msgspec.structs.replace(bench.spec("two", port), launch=spec.launch)
    bench.snapshotter.restore(again, into)
    assert ask(port, "/sum") == {"asked": 3, "sum": held}
    assert ask(port, "/env")["env"]["GREETING"] == "from the image"


@needs_parts
@pytest.mark.parametrize("image", ["registry.test/none:1", "no name at all"])
def test_an_image_that_is_not_there_is_one_clear_error(bench: Bench, image: str):
    with pytest.raises(AgentError, match=r"pull it there first|cannot be pulled") as caught:
        bench.sandbox.start(bench.spec("one", 8000, image=image))
    assert image in str(caught.value)
    bench.check_nothing_left()


@needs_parts
def test_an_image_that_is_not_unpacked_is_one_clear_error(bench: Bench):
    archive = bench.base / "image.tar"
    write_image(archive, IMAGE, {"etc/": b""}, env=())
    bench.ctr("image", "import", "--no-unpack", str(archive))
    with pytest.raises(AgentError, match="not unpacked for overlayfs"):
        bench.sandbox.start(bench.spec("one", 8000, image=IMAGE))
    bench.check_nothing_left()


@needs_parts
def test_a_folder_of_a_pod_may_have_any_name_but_not_a_relative_one(bench: Bench):
    odd = bench.base / "a b%20c?d#e"
    spec = bench.spec("one", 8000, command=("/bin/echo", "done"))
    with pytest.raises(AgentError, match="not an absolute path"):
        bench.sandbox.start(msgspec.structs.replace(spec, folder=Path("pods/one")))
    (bench.base / "file").touch()
    with pytest.raises(AgentError, match="no folder"):
        bench.sandbox.start(msgspec.structs.replace(spec, folder=bench.base / "file" / "one"))
    bench.sandbox.start(msgspec.structs.replace(spec, folder=odd))
    until(lambda: not bench.sandbox.live() and list(bench.sandbox.traces()) == ["one"])
    assert (odd / "stdout.log").read_text() == "done\n"


@needs_parts
def test_a_runtime_that_is_not_there_is_one_clear_error(bench: Bench):
    sandbox = ContainerdSandbox(bench.client, cgroup_parent=bench.name, runtime="io.none.v2")
    with pytest.raises(AgentError, match=r"io\.none\.v2") as caught:
        sandbox.start(bench.spec("one", 8000))
    assert "\n" not in str(caught.value)
    bench.check_nothing_left()


@needs_parts
def test_a_snapshotter_that_is_not_there_is_one_clear_error(bench: Bench):
    archive = bench.base / "image.tar"
    write_image(archive, IMAGE, {"etc/": b""}, env=())
    bench.ctr("image", "import", str(archive))
    sandbox = ContainerdSandbox(bench.client, cgroup_parent=bench.name, snapshotter="none")
    with pytest.raises(AgentError, match="none"):
        sandbox.start(bench.spec("one", 8000, image=IMAGE))
    bench.check_nothing_left()


@needs_parts
def test_the_containers_of_others_are_left_alone(bench: Bench):
    other = ContainerdSandbox(bench.client, owner="another", cgroup_parent=bench.name)
    port = parts.free_port()
    other.start(bench.spec("one", port))
    try:
        assert list(bench.sandbox.live()) == []
        with pytest.raises(AgentError, match="not this agent's"):
            bench.sandbox.stop("one")
        with pytest.raises(AgentError, match="there already"):
            bench.sandbox.start(bench.spec("one", port))
        assert ask(port)["asked"] == 1
    finally:
        other.stop("one")


@needs_parts
def test_a_shim_that_is_killed_leaves_nothing_after_stop(bench: Bench):
    live = bench.sandbox.start(bench.spec("one", parts.free_port()))
    (shim,) = parts.processes("containerd-shim", f"-namespace {bench.name}", "-id one")
    os.kill(shim, 9)
    bench.sandbox.stop("one")
    # What it left to whoever collects it, this process maybe, is no more than a zombie.
    until(lambda: not procfs.started(live.pid))
    until(lambda: bench.ctr("task", "ls").count("one") == 0)
    bench.check_nothing_left()


@needs_parts
def test_a_record_without_a_task_remains_until_it_is_stopped(bench: Bench):
    bench.sandbox._claim(bench.spec("one", 8000), None, "start")
    assert list(bench.sandbox.live()) == []
    assert list(bench.sandbox.traces()) == ["one"]
    bench.sandbox.stop("one")
    assert list(bench.sandbox.traces()) == []


@needs_parts
def test_a_task_that_was_made_and_not_started_remains_until_it_is_stopped(bench: Bench):
    spec = bench.spec("one", 8000)
    bench.sandbox._claim(spec, None, "start")
    rootfs.lay_out(spec.folder / "rootfs", rootfs.host_mounts())
    made = pb.CreateTaskRequest(container_id="one")
    bench.client.call(api.CREATE_TASK, made, phase="start")
    assert list(bench.sandbox.live()) == []
    assert list(bench.sandbox.traces()) == ["one"]
    bench.sandbox.stop("one")


@needs_parts
def test_a_pod_that_ended_by_itself_remains_until_it_is_stopped(bench: Bench):
    bench.sandbox.start(bench.spec("one", 8000, command=("/bin/echo", "done")))
    until(lambda: not bench.sandbox.live() and list(bench.sandbox.traces()) == ["one"])
    assert (bench.base / "pods/one/stdout.log").read_text() == "done\n"
    bench.sandbox.stop("one")


@needs_parts
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo Version: 3.17.1", "criu is 3.17.1; needs 4.2 or newer"),
        ("exit 1", "criu cannot be run"),
    ],
)
def test_a_criu_that_containerd_finds_and_cannot_use_is_a_reason(
    tmp_path: Path, script: str, reason: str
):
    found = tmp_path / "old"
    found.mkdir()
    (found / "criu").write_text(f"#!/bin/sh\n{script}\n")
    (found / "criu").chmod(0o755)
    with parts.containerd(tmp_path / "c", criu=found) as (_, socket):
        client = Client(socket, "inferx-t")
        sandbox = ContainerdSandbox(client)
        assert sandbox.probe().available
        capability = ContainerdSnapshotter(sandbox).probe()
        client.close()
    assert not capability.available
    assert reason in capability.reason
    assert capability.facts["criu"] == str(found / "criu")


@needs_parts
def test_a_dump_that_containerd_is_not_there_for_leaves_the_pod_as_it_is(bench: Bench):
    port = parts.free_port()
    spec = bench.spec("one", port)
    live = bench.sandbox.start(spec)
    into = bench.base / "dump"
    into.mkdir()
    away = Client(str(bench.base / "none.sock"), bench.name, deadline_s=2.0)
    snapshotter = ContainerdSnapshotter(ContainerdSandbox(away), dump_s=2.0)
    with pytest.raises(AgentError, match="does not answer") as caught:
        snapshotter.dump(spec, live, into, leave=True)
    away.close()
    assert caught.value.survived
    assert ask(port)["asked"] == 1
    assert list(bench.sandbox.live()) == [live]


@needs_parts
def test_a_containerd_that_comes_back_is_used_again(tmp_path: Path):
    name = f"inferx-t-{secrets.token_hex(4)}"
    with parts.containerd(tmp_path / "c") as (pid, socket):
        client = Client(socket, name, deadline_s=0.5)
        sandbox = ContainerdSandbox(client, cgroup_parent=name)
        assert list(sandbox.live()) == []
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(AgentError, match="List did not end in time"):
                sandbox.live()
        finally:
            os.kill(pid, signal.SIGCONT)
        assert list(sandbox.live()) == []
        answer = client.call(api.VERSION, pb.Empty(), phase="inspect")
        assert answer.version
    with pytest.raises(AgentError, match="does not answer"):
        sandbox.live()
    client.close()
