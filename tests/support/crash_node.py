"""Kill an agent at a step of an action, again and again, and have another find what it left.

Each agent is a process of its own, forked from one that holds nothing. It recovers, says what it
found, what of the node's pods is left and what is in their memory; makes what the action begins
with; and is killed in it. Run as a program; see `main`.
"""

import ctypes
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import system_parts as parts
from agent_node import FUNCTION, AgentNode, agent_node, gpu, memory, pod, promised, traces, used
from container_node import IMAGE, container_node, import_image, tenant, write_cdi
from standin_gpus import Node as Gpus
from standin_gpus import libraries

from inferx.core.commands import Stop
from inferx.core.types import GpuId, NodeId
from inferx.exec.agent.executor import Executor
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.store.checksum import Watch
from inferx.exec.agent.store.config import FolderConfig

PR_SET_CHILD_SUBREAPER = 36
GPU0: tuple[GpuId, ...] = gpu(0)
RESTORES = {"restore", "lazily", "waiting", "fetched"}
MAKES_ONE = RESTORES | {"create"}
"""Actions that begin without a pod."""
SUSPENDED = {"resume", "kept"}
"""Actions on a pod that is suspended."""


class Deadly(Phases):
    """Kills its process at one end of a step, counted from 0: 2 at the end of the second."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._left = at

    @contextmanager
    def step(self, name: str, moved_bytes: int = 0) -> Generator[None]:
        self._reach(f"{name} begins")
        with super().step(name, moved_bytes):
            yield
            self._reach(f"{name} has ended")

    def _reach(self, where: str) -> None:
        self._left -= 1
        if self._left < 0:
            os.write(1, f"{where}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)


class Late(Phases):
    """Kills its process so many milliseconds after a certain step has begun, if it still runs."""

    def __init__(self, name: str, after_ms: int) -> None:
        super().__init__()
        self._name, self._after_ms = name, after_ms

    @contextmanager
    def step(self, name: str, moved_bytes: int = 0) -> Generator[None]:
        timer = threading.Timer(self._after_ms / 1000, self._kill)
        with super().step(name, moved_bytes):
            if name == self._name:
                timer.start()
            yield
            timer.cancel()

    def _kill(self) -> None:
        os.write(1, f"{self._name} for {self._after_ms} ms\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)


def act(agent: Executor, action: str, phases: Phases) -> None:
    freezing = agent.freezing
    match action:
        case "create":
            agent.pods.create(pod(1), FUNCTION, GPU0, phases)
        case "suspend":
            agent.pods.suspend(pod(1), phases)
        case "resume":
            agent.pods.resume(pod(1), gpu(1), phases)
        case "restore":
            freezing.restore(pod(1), FUNCTION, gpu(1), phases)
        case "lazily":
            freezing.restore(pod(1), FUNCTION, gpu(1), phases, lazy=True)
        case "waiting":
            freezing.restore(pod(1), FUNCTION, (), phases)
        case "fetched":
            freezing.restore(pod(1), FUNCTION, gpu(1), phases, coldest="shared", keep=True)
        case "stop":
            agent.perform(Stop(NodeId(0), 1, 1, pod(1), FUNCTION, GPU0), phases)
        case _:
            freezing.snapshot(pod(1), phases, leave=action == "leave")


def prepare(agent: Executor, action: str) -> None:
    """Have what an action begins with: a pod that serves, one that is suspended, or a snapshot."""
    pods, there = agent.pods, {one.record.pod: one for one in agent.pods.all()}
    store = pods.node.store
    if action in MAKES_ONE:
        if 1 in there:
            pods.stop(pod(1))
        if action in RESTORES and not store.everything():
            pods.create(pod(1), FUNCTION, GPU0, Phases())
            agent.freezing.snapshot(pod(1), Phases(), leave=True)
        for one in store.everything() if action == "fetched" else ():
            if "nvme" in one.tiers:
                store.sink(one.manifest.id, "shared", keep=False)
        return
    if 1 not in there:
        pods.create(pod(1), FUNCTION, GPU0, Phases())
    if action in SUSPENDED and pods.get(pod(1)).record.state == "ready":
        pods.suspend(pod(1), Phases())


def found(node: AgentNode, agent: Executor) -> dict[str, Any]:
    """Recover, and tell how everything is; a pod that is suspended is resumed to be asked."""
    recovered = agent.recover()
    pods = agent.pods
    state = pods.all()[0].record.state if pods.all() else ""
    if state == "standby":
        pods.resume(pod(1), GPU0, Phases())
    told = {
        "state": state,
        "killed": list(recovered.killed),
        "memory": memory(pods.get(pod(1))) if state else None,
        "used": used(pods.node),
        "promised": promised(pods),
        "traces": traces(node, pods=[1] if state else []) + containers(node, one=state != ""),
        "snapshots": 0,
    }
    for one in pods.node.store.everything():
        told["snapshots"] += 1
        for name in one.tiers:
            assert not pods.node.store.tier(name).verify(one.manifest.id, Watch())
    return told


def containers(node: AgentNode, *, one: bool) -> list[str]:
    """Return what containerd has of a node's pods beside those of one pod, as its own client tells.

    Another part of them than what our sandbox finds: it would not find what it does not know.
    """
    if node.config.sandbox != "containerd":
        return []
    found: list[str] = []
    for what in ("tasks", "containers", "snapshots"):
        lines = parts.ctr(node.config.containerd, node.config.name, what, "ls").splitlines()[1:]
        # What an image is unpacked to is committed, and stays.
        there = [line for line in lines if "Committed" not in line]
        found += there[1:] if one else there

    def shims() -> list[int]:
        return parts.processes("containerd-shim", f"-namespace {node.config.name}")[int(one) :]

    # One ends by itself, a moment after its pod.
    with suppress(AssertionError):
        parts.until(lambda: not shims())
    return found + [f"shim {pid}" for pid in shims()]


def processes_of(node: AgentNode) -> list[str]:
    """Return all that runs for a node beside this program: CRIU, page servers, CUDA helpers."""
    place, gpus = str(node.folder).encode(), f"STANDIN_GPUS={node.gpus.folder}".encode()
    found: list[str] = []
    for path in Path("/proc").iterdir():
        if not path.name.isdecimal() or int(path.name) == os.getpid():
            continue
        with suppress(OSError):
            command = (path / "cmdline").read_bytes()
            if b"containerd" in command.partition(b"\0")[0] and b"-shim" not in command:
                continue
            if place in command or gpus in (path / "environ").read_bytes().split(b"\0"):
                found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


def left_of(node: AgentNode) -> list[str]:
    """Return what there is of a node whose agents have ended, once the kernel had its moment."""
    with suppress(AssertionError):
        parts.until(lambda: not processes_of(node) and not containers(node, one=False))
    return traces(node) + containers(node, one=False) + processes_of(node)


def in_agent(node: AgentNode, work: Callable[[Executor, Callable[[Any], None]], None]) -> list[Any]:
    """Do something in an agent's own process; return what it said until it ended or was killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            with node.agent() as agent:
                work(agent, lambda told: say(writer, told))
        except BaseException:  # noqa: BLE001 it is said
            say(writer, traceback.format_exc())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        told = [json.loads(line) for line in stream]
    with suppress(ChildProcessError):
        os.waitpid(child, 0)
    errors = [one for one in told if isinstance(one, str)]
    assert not errors, errors[0]
    return told


def say(pipe: int, told: object) -> None:
    os.write(pipe, json.dumps(told).encode() + b"\n")


@contextmanager
def collecting() -> Iterator[None]:
    """Be the parent of what dead agents leave, and collect it at once, as a first process does."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def rounds(
    node: AgentNode, action: str, first_at: int, every: int, within: str
) -> list[dict[str, Any]]:
    """Kill at every step's beginning and end, or at every so many of these; until none is left.

    `within` a step it is milliseconds that are counted, until it ends before.
    """
    results: list[dict[str, Any]] = []
    for at in range(first_at, 1000, every):

        def once(agent: Executor, say: Callable[[Any], None], at: int = at) -> None:
            """Find what the one before left, and be the next."""
            say(found(node, agent))
            prepare(agent, action)
            act(agent, action, Late(within, at) if within else Deadly(at))
            say(True)

        first, *survived = in_agent(node, once)
        results.append(first)
        if survived:
            results += in_agent(node, lambda agent, say: say(found(node, agent)))
            return results[1:]
    raise AssertionError


@contextmanager
def of_kind(folder: Path, gpus: Gpus, kind: str) -> Iterator[AgentNode]:
    """Make a node whose pods live in a sandbox of this kind, and which has two tiers."""
    tiers = tuple(
        FolderConfig(tier=name, folder=folder / name, budget_bytes=1 << 30)
        for name in ("nvme", "shared")
    )
    if kind == "process":
        with agent_node(folder, gpus, tiers=tiers) as node:
            yield node
        return
    with ExitStack() as undo:
        socket = ""
        if kind == "containerd":
            _, socket = undo.enter_context(parts.containerd(folder / "containerd"))
        one = tenant(gpus, image=IMAGE if socket else "")
        cdi = write_cdi(folder / "described", gpus, count=2)
        made = container_node(folder, gpus, kind, one, socket=socket, cdi=(cdi,), tiers=tiers)
        node = undo.enter_context(made)
        if socket:
            import_image(node, folder / "image.tar")
        yield node


def main() -> None:
    """Arguments: an empty folder, the kind of sandbox, the action, the first point, how many on.

    And in which step or "". Prints where each was killed, a line each, and a JSON object.
    """
    root, kind, action, first_at, every, within = sys.argv[1:]
    folder = Path(root)
    gpus = Gpus.make(folder / "gpus")
    os.environ |= gpus.env
    ctypes.CDLL(str(libraries() / "libnvidia-ml.so.1"))
    with collecting(), of_kind(folder, gpus, kind) as node:
        told = rounds(node, action, int(first_at), int(every), within)

        def last(agent: Executor, say: Callable[[Any], None]) -> None:
            agent.recover()
            agent.pods.stop(pod(1))
            say(True)

        in_agent(node, last)
        left = left_of(node)
    print(json.dumps({"rounds": told, "left": left}))


if __name__ == "__main__":
    main()
