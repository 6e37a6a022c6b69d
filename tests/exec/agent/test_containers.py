"""Pods as real containers, of containerd and of runc alone: started, dumped, restored, cloned."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
import system_parts as parts
from system_parts import SERVER, ask, until

from inferx.exec.agent.containers.containerd.client import Client
from inferx.exec.agent.containers.containerd.sandbox import ContainerdSandbox
from inferx.exec.agent.containers.containerd.snapshotter import ContainerdSnapshotter
from inferx.exec.agent.containers.kernel_facts import cgroup_memory, cgroup_pids
from inferx.exec.agent.containers.oci import NO_EDITS, DeviceNode, OciEdits
from inferx.exec.agent.containers.runc import RuncSandbox
from inferx.exec.agent.containers.runc_criu import RuncSnapshotter
from inferx.exec.agent.ports import AgentError, Launch, Live, Mount, PodSpec
from inferx.exec.agent.processes.page_server import NOTE, pages_of

missing = parts.missing_parts("containerd", "runc", "ip")
pytestmark = pytest.mark.skipif(bool(missing), reason=missing)

LIMIT = 200 << 20


@dataclass
class Node:
    """A runtime of the test's own, and the pods that it makes there."""

    kind: str
    base: Path
    socket: str
    parent: str
    edits: OciEdits = NO_EDITS
    made: list[str] = field(default_factory=list)
    closing: ExitStack = field(default_factory=ExitStack)

    def sandbox(self, **more: object):
        """Return the sandbox as an agent that has just started has it."""
        more = {"cgroup_parent": self.parent, "edits": lambda _: self.edits, **more}
        if self.kind == "runc":
            criu = parts.criu_folder()
            return RuncSandbox(self.base / "state", criu=f"{criu}/criu", **more)
        client = Client(self.socket, self.parent)
        self.closing.callback(client.close)
        return ContainerdSandbox(client, **more)

    def snapshotter(self, sandbox, **more: object):
        kind = RuncSnapshotter if self.kind == "runc" else ContainerdSnapshotter
        return kind(sandbox, **more)

    def dump_within(self, seconds: float) -> dict[str, float]:
        # Of runc, a start, a dump and a restore may take as long.
        return {} if self.kind == "runc" else {"dump_s": seconds}

    def spec(self, port: int, *, mb: int = 10, network: str = "", name: str = "") -> PodSpec:
        pod = name or f"p{len(self.made)}"
        self.made.append(pod)
        launch = Launch(
            function="t/n/f@1",
            command=(os.path.realpath(sys.executable), "/srv/container_server.py", str(mb)),
            port=port,
            mounts=(Mount(str(SERVER.parent), "/srv"),),
            env=(("GREETING", "hello"),),
            cwd="/srv",
            memory_bytes=LIMIT,
        )
        return PodSpec(pod=pod, launch=launch, network=network, folder=self.base / "pods" / pod)

    def folder(self) -> Path:
        into = self.base / f"dump-{secrets.token_hex(3)}"
        into.mkdir()
        return into

    def check_nothing_left(self) -> None:
        """Nothing of any pod is there, wherever it could be."""
        sandbox = self.sandbox()
        assert list(sandbox.live()) == []
        assert list(sandbox.traces()) == []
        for pod in self.made:
            assert parts.cgroup_folders(f"/{self.parent}/{pod}") == []
            assert not (self.base / "pods" / pod / "rootfs").exists()
        mounts = Path("/proc/self/mounts").read_text()
        assert str(self.base) not in mounts
        until(lambda: parts.processes("containerd-shim", f"-namespace {self.parent}") == [])
        until(lambda: parts.processes(str(self.base / "pods")) == [])


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with parts.containerd(tmp_path_factory.mktemp("containerd")) as (_, address):
        yield address


@pytest.fixture(params=["containerd", "runc"])
def node(request: pytest.FixtureRequest, tmp_path: Path, socket: str) -> Iterator[Node]:
    one = Node(request.param, tmp_path, socket, f"inferx-t-{secrets.token_hex(4)}")
    with one.closing:
        try:
            yield one
            sandbox = one.sandbox()
            for pod in one.made:
                sandbox.stop(pod)
            one.check_nothing_left()
        finally:
            sandbox = one.sandbox()
            for pod in one.made:
                sandbox.stop(pod)
            parts.remove_cgroup(one.parent)
            parts.remove_runtime_state(one.parent)


@pytest.fixture
def port() -> int:
    return parts.free_port()


# What the two share is tried with one.
with_containerd = pytest.mark.parametrize("node", ["containerd"], indirect=True)


def limit_of(cgroup: str) -> int:
    for file in ("memory.limit_in_bytes", "memory.max"):
        for folder in parts.cgroup_folders(cgroup):
            if (folder / file).exists():
                return int((folder / file).read_text())
    raise AssertionError(f"no memory limit at {cgroup}")


def test_both_say_what_they_found(node: Node):
    sandbox = node.sandbox()
    for capability in (sandbox.probe(), node.snapshotter(sandbox).probe()):
        assert capability.available, capability.reason
        assert capability.name.endswith(f"/{node.kind}")
        assert capability.facts["criu_version"] >= "4.2"
        assert capability.facts["runc_version"]


def test_a_pod_runs_with_what_its_function_says_and_no_more(node: Node, port: int):
    sandbox = node.sandbox()
    spec = node.spec(port)
    live = sandbox.start(spec)
    said = ask(port, "/env")
    assert said["cwd"] == "/srv"
    assert said["env"]["GREETING"] == "hello"
    assert ask(port, "/ring") | {"asked": 0} == {"asked": 0, "code": -1, "errno": 38}
    assert ask(port, "/write")["errno"] == 30
    assert ask(port, "/files")["files"] == ["asked-4"]
    status = Path(f"/proc/{live.pid}/status").read_text()
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert sandbox.pids(spec.pod) == [live.pid]
    assert 10 << 20 < sandbox.memory_bytes(spec.pod) < LIMIT
    assert limit_of(f"/{node.parent}/{spec.pod}") == LIMIT
    until(lambda: (spec.folder / "stdout.log").read_text() == "ready\n")
    assert spec.folder.stat().st_mode & 0o777 == 0o700


def test_an_agent_that_was_restarted_finds_its_pods(node: Node, port: int):
    live = node.sandbox().start(node.spec(port))
    again = node.sandbox()
    assert list(again.live()) == [live]
    assert list(again.traces()) == [live.pod]
    again.stop(live.pod)
    again.stop(live.pod)
    assert list(again.live()) == []


@with_containerd
def test_a_pod_whose_shim_is_killed_is_gone_and_can_be_asked_about(node: Node, port: int):
    sandbox = node.sandbox()
    live = sandbox.start(node.spec(port))
    shim = Path(f"/proc/{live.pid}/stat").read_text().rpartition(")")[2].split()[1]
    os.kill(int(shim), signal.SIGKILL)
    until(lambda: list(sandbox.live()) == [])
    # containerd ends what its shim has left, in its time.
    until(lambda: list(sandbox.pids(live.pod)) == [])
    sandbox.stop(live.pod)


def test_to_freeze_or_thaw_twice_is_to_do_it_once(node: Node, port: int):
    sandbox = node.sandbox()
    live = sandbox.start(node.spec(port))
    ask(port)
    sandbox.thaw(live.pod)
    ask(port)
    sandbox.freeze(live.pod)
    sandbox.freeze(live.pod)
    with pytest.raises(OSError, match="timed out"):
        parts.ask_once(port, "/", timeout_s=0.2)
    sandbox.thaw(live.pod)
    sandbox.thaw(live.pod)
    ask(port)
    sandbox.stop(live.pod)
    for turn in (sandbox.freeze, sandbox.thaw):
        with pytest.raises(AgentError):
            turn(live.pod)


@with_containerd
def test_a_frozen_pod_is_live_and_can_be_stopped(node: Node, port: int):
    sandbox = node.sandbox()
    live = sandbox.start(node.spec(port))
    ask(port)
    sandbox.freeze(live.pod)
    assert list(sandbox.live()) == [live]
    with pytest.raises(OSError, match="timed out"):
        parts.ask_once(port, "/", timeout_s=0.2)
    sandbox.thaw(live.pod)
    ask(port)
    sandbox.freeze(live.pod)
    sandbox.stop(live.pod)


def test_a_name_that_is_taken_is_refused_and_its_pod_goes_on(node: Node, port: int):
    sandbox = node.sandbox()
    spec = node.spec(port)
    live = sandbox.start(spec)
    before = ask(port)["asked"]
    with pytest.raises(AgentError, match=f"{spec.pod} is there already"):
        sandbox.start(spec)
    assert ask(port)["asked"] == before + 1
    assert list(sandbox.live()) == [live]


def test_a_program_that_is_not_there_is_told_and_leaves_nothing(node: Node, port: int):
    spec = node.spec(port)
    spec = msgspec.structs.replace(
        spec, launch=msgspec.structs.replace(spec.launch, command=("/no/such/program",))
    )
    with pytest.raises(AgentError, match="no such file") as caught:
        node.sandbox().start(spec)
    assert "\n" not in str(caught.value)
    node.check_nothing_left()


@pytest.mark.parametrize(
    ("node", "mb"), [("containerd", 10), ("containerd", 100), ("runc", 10)], indirect=["node"]
)
def test_a_dumped_pod_comes_back_as_it_was(node: Node, port: int, mb: int):
    sandbox = node.sandbox()
    snapshotter = node.snapshotter(sandbox)
    spec = node.spec(port, mb=mb)
    clock = Clock()
    live = sandbox.start(spec)
    clock.lap("start")
    held = ask(port, "/sum")
    clock.lap("first answer")
    ask(port, "/files")
    into = node.folder()
    clock.lap("")
    snapshotter.dump(spec, live, into, leave=True)
    clock.lap("dump")
    assert list(sandbox.live()) == []
    node.check_nothing_left()
    assert into.stat().st_mode & 0o777 == 0o700
    dumped = sum(path.stat().st_size for path in into.iterdir())
    before = {path.name: path.stat().st_mtime_ns for path in into.iterdir()}
    again = node.spec(port, mb=mb)
    clock.lap("")
    back = snapshotter.restore(again, into)
    clock.lap("restore")
    assert ask(port, "/sum") == {"asked": 3, "sum": held["sum"]}
    clock.lap("first answer after")
    assert "asked-2" in ask(port, "/files")["files"]
    assert list(sandbox.live()) == [back]
    assert {path.name: path.stat().st_mtime_ns for path in into.iterdir()} == before
    print(f"\n{node.kind} {mb} MB, dump {dumped >> 20} MiB: {clock}")


@with_containerd
def test_without_leave_a_dumped_pod_goes_on(node: Node, port: int):
    sandbox = node.sandbox()
    snapshotter = node.snapshotter(sandbox)
    spec = node.spec(port)
    live = sandbox.start(spec)
    held = ask(port, "/sum")["sum"]
    first = node.folder()
    snapshotter.dump(spec, live, first, leave=False)
    assert ask(port)["asked"] == 2
    assert list(sandbox.live()) == [live]
    snapshotter.dump(spec, live, node.folder(), leave=True)
    snapshotter.restore(node.spec(port), first)
    assert ask(port, "/sum") == {"asked": 2, "sum": held}


@with_containerd
def test_three_clones_come_from_one_dump_at_once(node: Node):
    sandbox = node.sandbox()
    snapshotter = node.snapshotter(sandbox)
    with ExitStack() as networks:
        spaces = [networks.enter_context(parts.network()) for _ in range(4)]
        spec = node.spec(8000, network=spaces[0])
        live = sandbox.start(spec)
        held = ask(8000, "/sum", namespace=spaces[0])["sum"]
        into = node.folder()
        snapshotter.dump(spec, live, into, leave=True)
        specs = [node.spec(8000, network=space) for space in spaces[1:]]
        with ThreadPoolExecutor() as pool:
            clones = list(pool.map(lambda one: snapshotter.restore(one, into), specs))
        assert sorted(sandbox.live(), key=lambda one: one.pod) == clones
        for clone, one in zip(clones, specs, strict=True):
            cgroup = f"/{node.parent}/{one.pod}"
            assert ask(8000, "/sum", namespace=one.network) == {"asked": 2, "sum": held}
            assert list(cgroup_pids(cgroup)) == [clone.pid]
            assert limit_of(cgroup) == LIMIT
            assert 10 << 20 < cgroup_memory(cgroup) == sandbox.memory_bytes(one.pod) < LIMIT
        # One that wants more than its limit is killed, and no other.
        with pytest.raises(OSError, match=r"closed|reset|without response"):
            ask(8000, "/grow", namespace=specs[0].network, within_s=0)
        until(lambda: sorted(sandbox.live(), key=lambda one: one.pod) == clones[1:])
        assert list(sandbox.traces()) == sorted(one.pod for one in specs)
        assert ask(8000, "/", namespace=specs[1].network)["asked"] == 3
        for one in specs:
            sandbox.stop(one.pod)


@with_containerd
def test_a_lazy_restore_answers_the_same(node: Node, port: int):
    sandbox = node.sandbox()
    snapshotter = node.snapshotter(sandbox)
    spec = node.spec(port, mb=20)
    live = sandbox.start(spec)
    held = ask(port, "/sum")["sum"]
    into = node.folder()
    snapshotter.dump(spec, live, into, leave=True)
    again = node.spec(port)
    snapshotter.restore(again, into, lazy=True)
    assert ask(port)["asked"] == 2
    assert ask(port, "/sum")["sum"] == held
    until(lambda: pages_of(again.folder) == "whole")
    # All its pages are there: it can be dumped again.
    (only,) = sandbox.live()
    snapshotter.dump(again, only, node.folder(), leave=False)


@with_containerd
def test_a_pod_whose_pages_are_lost_is_killed_and_not_given_zeros(node: Node, port: int):
    sandbox = node.sandbox()
    snapshotter = node.snapshotter(sandbox)
    spec = node.spec(port, mb=100)
    live = sandbox.start(spec)
    ask(port)
    into = node.folder()
    snapshotter.dump(spec, live, into, leave=True)
    again = node.spec(port)
    killed: list[int] = []

    def kill_server() -> None:
        until((again.folder / NOTE).exists)
        until((again.folder / "criu/restore/lazy-pages.socket").exists)
        note = json.loads((again.folder / NOTE).read_bytes())
        os.kill(note["server"][0], 9)
        killed.append(note["server"][0])

    killer = threading.Thread(target=kill_server)
    killer.start()
    # It may be noticed by CRIU, while it restores, or after.
    with suppress(AgentError):
        snapshotter.restore(again, into, lazy=True)
    killer.join()
    assert killed
    # Without an agent's help; what is left of it is for the agent to remove.
    until(lambda: list(sandbox.live()) == [] and list(sandbox.pids(again.pod)) == [])
    sandbox.stop(again.pod)
    node.check_nothing_left()


def same_size(path: Path) -> None:
    path.write_bytes(b"x" * path.stat().st_size)


SPOILS: dict[str, Callable[[Path], object]] = {
    "is not a dump": lambda into: (into / "sizes.json").unlink(),
    "has 1048576 bytes": lambda into: os.truncate(into / "pages-1.img", 1 << 20),
    "mm-1.img": lambda into: (into / "mm-1.img").unlink(),
    "cannot be restored: .*": lambda into: same_size(into / "core-1.img"),
    "cannot be restored: .+": lambda into: same_size(into / "pagemap-1.img"),
}


@with_containerd
def test_a_spoiled_dump_is_one_clear_error_and_leaves_nothing(node: Node, port: int):
    sandbox = node.sandbox()
    snapshotter = node.snapshotter(sandbox)
    spec = node.spec(port)
    live = sandbox.start(spec)
    ask(port)
    into = node.folder()
    snapshotter.dump(spec, live, into, leave=True)
    for told, spoil in SPOILS.items():
        spoiled = node.base / "spoiled"
        shutil.copytree(into, spoiled)
        spoil(spoiled)
        with pytest.raises(AgentError, match=told) as caught:
            snapshotter.restore(node.spec(port), spoiled)
        print(f"\n{node.kind}: {caught.value}")
        assert caught.value.phase == "restore"
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 700
        node.check_nothing_left()
        shutil.rmtree(spoiled)


@with_containerd
def test_a_dump_goes_only_into_an_empty_folder_of_a_process_that_is_there(node: Node, port: int):
    sandbox = node.sandbox()
    snapshotter = node.snapshotter(sandbox)
    spec = node.spec(port)
    live = sandbox.start(spec)
    full = node.folder()
    (full / "kept").touch()
    with pytest.raises(AgentError, match="not empty"):
        snapshotter.dump(spec, live, full, leave=True)
    with pytest.raises(AgentError, match="no folder"):
        snapshotter.dump(spec, live, full / "none", leave=True)
    gone = Live(pod=live.pod, pid=live.pid, started=live.started - 1)
    with pytest.raises(AgentError, match="is gone"):
        snapshotter.dump(spec, gone, node.folder(), leave=True)
    assert (full / "kept").exists()
    assert ask(port)["asked"] == 1


def test_what_criu_cannot_dump_is_told_and_the_pod_goes_on(node: Node, port: int):
    # A device that CRIU does not know, open in the pod: as a GPU is before its state is saved.
    rdev = Path("/dev/fuse").stat().st_rdev
    fuse = DeviceNode(path="/dev/fuse", major=os.major(rdev), minor=os.minor(rdev))
    node.edits = OciEdits(devices=(fuse,))
    sandbox = node.sandbox()
    spec = node.spec(port)
    live = sandbox.start(spec)
    assert ask(port, "/open-device")["errno"] == 0
    into = node.folder()
    with pytest.raises(AgentError, match=r"cannot be dumped: .*(type|chr)") as caught:
        node.snapshotter(sandbox).dump(spec, live, into, leave=True)
    print(f"\n{node.kind}: {caught.value}")
    assert caught.value.survived
    assert list(into.iterdir()) == []
    assert ask(port)["asked"] == 2
    assert list(sandbox.live()) == [live]


@with_containerd
def test_a_restored_pod_has_the_device_of_its_new_spec(node: Node, port: int):
    node.edits = OciEdits(devices=(DeviceNode(path="/dev/gpu0", major=1, minor=3),))
    sandbox = node.sandbox()
    snapshotter = node.snapshotter(sandbox)
    spec = node.spec(port)
    live = sandbox.start(spec)
    ask(port)
    into = node.folder()
    snapshotter.dump(spec, live, into, leave=True)
    node.edits = OciEdits(devices=(DeviceNode(path="/dev/gpu0", major=1, minor=5),))
    back = snapshotter.restore(node.spec(port), into)
    found = Path(f"/proc/{back.pid}/root/dev/gpu0").stat()
    assert (os.major(found.st_rdev), os.minor(found.st_rdev)) == (1, 5)
    assert "gpu0" in ask(port, "/files")["dev"]


@with_containerd
def test_an_established_connection_is_kept_where_asked_and_closed_where_not(node: Node):
    sandbox = node.sandbox()
    with parts.network() as space:
        spec = node.spec(8000, network=space)
        live = sandbox.start(spec)
        ask(8000, namespace=space)
        for keep in (True, False):
            snapshotter = node.snapshotter(sandbox)
            with parts.conversation(8000, namespace=space) as talk:
                before = talk()
                into = node.folder()
                snapshotter.dump(spec, live, into, leave=True, keep_connections=keep)
                spec = node.spec(8000, network=space)
                live = snapshotter.restore(spec, into, keep_connections=keep)
                if keep:
                    assert talk() == before + 1
                else:
                    with pytest.raises(OSError, match=r"reset|without response"):
                        talk()
            assert ask(8000, namespace=space)["asked"] == before + (2 if keep else 1)
        # Nor is another pod deaf where one was dumped.
        node.snapshotter(sandbox).dump(spec, live, node.folder(), leave=True)
        spec = node.spec(8000, network=space)
        sandbox.start(spec)
        assert ask(8000, namespace=space)["asked"] == 1
        sandbox.stop(spec.pod)


@pytest.mark.parametrize("action", ["dump", "restore"])
@pytest.mark.parametrize(
    ("node", "how"),
    [
        ("containerd", signal.SIGKILL),
        ("containerd", signal.SIGSTOP),
        ("runc", signal.SIGKILL),
    ],
    ids=["containerd-killed", "containerd-stuck", "runc-killed"],
    indirect=["node"],
)
def test_a_criu_that_does_not_end_leaves_nothing(
    node: Node, port: int, action: str, how: signal.Signals
):
    sandbox = node.sandbox()
    spec = node.spec(port, mb=50)
    live = sandbox.start(spec)
    ask(port)
    into = node.folder()
    if action == "restore":
        node.snapshotter(sandbox).dump(spec, live, into, leave=True)
        spec = node.spec(port)
    hit: list[int] = []

    def hit_criu() -> bool:
        for runc in parts.processes("runc", f"--work-path {spec.folder}/criu/{action}"):
            for pid in parts.children(runc):
                # The one that only tells its version may be gone by now.
                with suppress(ProcessLookupError):
                    os.kill(pid, how)
                    hit.append(pid)
        return bool(hit)

    def interfere() -> None:
        # Well within: its log says that it has begun.
        until(lambda: any((spec.folder / "criu" / action).glob("*.log")))
        until(hit_criu)

    patience_s = 10.0 if how == signal.SIGKILL else 0.7
    hasty = node.snapshotter(node.sandbox(restore_s=patience_s), **node.dump_within(patience_s))
    act = {
        "dump": lambda: hasty.dump(spec, live, into, leave=True),
        "restore": lambda: hasty.restore(spec, into),
    }
    with ThreadPoolExecutor() as pool:
        interference = pool.submit(interfere)
        with pytest.raises(AgentError, match="cannot be") as caught:
            act[action]()
        interference.result()
    print(f"\n{node.kind}: {caught.value}")
    if action == "dump":
        assert list(into.iterdir()) == []
    assert not caught.value.survived
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in hit))
    node.check_nothing_left()


AGENT = """
import sys
from pathlib import Path
import msgspec
from inferx.exec.agent.containers.containerd.client import Client
from inferx.exec.agent.containers.containerd.sandbox import ContainerdSandbox
from inferx.exec.agent.containers.containerd.snapshotter import ContainerdSnapshotter
from inferx.exec.agent.ports import PodSpec
from inferx.exec.agent.containers.runc import RuncSandbox
from inferx.exec.agent.containers.runc_criu import RuncSnapshotter
kind, where, parent, criu, spec, source = sys.argv[1:]
if kind == "runc":
    sandbox = RuncSandbox(Path(where), criu=criu, cgroup_parent=parent)
    snapshotter = RuncSnapshotter(sandbox)
else:
    sandbox = ContainerdSandbox(Client(where, parent), cgroup_parent=parent)
    snapshotter = ContainerdSnapshotter(sandbox)
    sandbox.live()
spec = msgspec.json.decode(spec, type=PodSpec, dec_hook=lambda kind, value: kind(value))
print("restoring", flush=True)
snapshotter.restore(spec, Path(source))
"""


def test_an_agent_that_is_killed_in_a_restore_leaves_what_the_next_can_remove(
    node: Node, port: int
):
    sandbox = node.sandbox()
    spec = node.spec(port)
    live = sandbox.start(spec)
    held = ask(port, "/sum")["sum"]
    into = node.folder()
    node.snapshotter(sandbox).dump(spec, live, into, leave=True)
    where = str(node.base / "state") if node.kind == "runc" else node.socket
    for delay_s in (0.03, 0.1, 0.2):
        again = node.spec(port)
        said = msgspec.json.encode(again, enc_hook=str).decode()
        criu = f"{parts.criu_folder()}/criu"
        agent = subprocess.Popen(
            [sys.executable, "-c", AGENT, node.kind, where, node.parent, criu, said, str(into)],
            stdout=subprocess.PIPE,
        )
        assert agent.stdout is not None
        with agent.stdout as output:
            assert output.readline() == b"restoring\n"
            time.sleep(delay_s)
            agent.kill()
            agent.wait()
        following = node.sandbox()
        for pod in (*following.traces(), *(one.pod for one in following.live())):
            following.stop(pod)
        node.check_nothing_left()
    node.snapshotter(sandbox).restore(node.spec(port), into)
    assert ask(port, "/sum") == {"asked": 2, "sum": held}


class Clock:
    """Tells how long each part took."""

    def __init__(self) -> None:
        self.laps: list[str] = []
        self.since = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        if name:
            self.laps.append(f"{name} {now - self.since:.3f} s")
        self.since = now

    def __str__(self) -> str:
        return ", ".join(self.laps)
