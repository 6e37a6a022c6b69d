"""A whole node to test with: the agent over stand-in GPUs, plain processes, CRIU and a bridge.

`container_node` has the same with containers.

All of it is real but the two libraries of the driver. `agent` opens what one agent's process would;
a second one may follow it over the same state, as after a restart.
"""

import ipaddress
import os
import secrets
import shutil
import sys
import time
import urllib.request
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from json import loads
from pathlib import Path

import pytest
from msgspec.structs import replace
from plain_pods import drop_parent
from standin_gpus import MB, TENANT
from standin_gpus import Node as Gpus

from inferx.core.types import FunctionId, FunctionSpec, GpuId, PodId
from inferx.exec.agent.config import AgentConfig
from inferx.exec.agent.containers.containerd.client import Client
from inferx.exec.agent.containers.containerd.sandbox import ContainerdSandbox
from inferx.exec.agent.containers.runc import RuncSandbox
from inferx.exec.agent.deployed import Deployed
from inferx.exec.agent.executor import Executor
from inferx.exec.agent.network import BridgedNetwork
from inferx.exec.agent.node import Node, assemble
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.pod import Pod
from inferx.exec.agent.pods import Pods
from inferx.exec.agent.ports import Hook, Launch, Sandbox
from inferx.exec.agent.processes import criu_probe, procfs
from inferx.exec.agent.processes.cgroup import Cgroups
from inferx.exec.agent.processes.process import ProcessSandbox
from inferx.exec.agent.store.config import FolderConfig

GPU_MB, HOST_MB, CONTEXT_MB = 8, 2, 2
HELD = (GPU_MB + CONTEXT_MB) * MB
"""What the driver says that a tenant holds: what it allocated, and its context."""
PORT = 8000
FUNCTION = FunctionId(0)

needs_node = pytest.mark.skipif(
    not (procfs.may_administer() and Cgroups().version and criu_probe.find_criu()),
    reason="needs root, cgroups and CRIU",
)


def function(
    gpus: Gpus,
    /,
    *,
    number: int = 0,
    gpu_mb: int = GPU_MB,
    port: int = PORT,
    extra: Sequence[str] = (),
    launch: Mapping[str, object] | None = None,
    **spec: object,
) -> Deployed:
    """Return a function whose pods hold GPU memory and answer what is in it."""
    options = ("--port", str(port), "--bind", "0.0.0.0", "--host-mb", str(HOST_MB))
    more = ("--gpu-mb", str(gpu_mb), "--api", "ctypes", *extra)
    told = {
        "gpus": 1,
        "milli_gpu": 250,
        "hbm_bytes": 64 * MB,
        "device_bytes": gpu_mb * MB,
        "host_bytes": 32 * MB,
        "weight_bytes": gpu_mb * MB,
    } | spec
    return Deployed(
        id=FunctionId(number),
        spec=FunctionSpec(name=f"tenant{number}", **told),
        launch=Launch(
            **{
                "function": f"t/n/tenant{number}@1",
                "command": (sys.executable, str(TENANT), *options, *more),
                "env": tuple(gpus.env.items()),
                "port": port,
                "quiesce": Hook("/quiesce"),
                "wake": Hook("/wake"),
                "ready_timeout_s": 20.0,
            }
            | dict(launch or {})
        ),
    )


@dataclass
class AgentNode:
    """A node's folder and configuration, which outlive each agent."""

    folder: Path
    gpus: Gpus
    config: AgentConfig
    functions: Mapping[FunctionId, Deployed]

    @contextmanager
    def agent(self, *, wait_s: float = 0.0, **config: object) -> Iterator[Executor]:
        """Open what an agent has while it runs; its pods stay."""
        node = assemble(replace(self.config, **config), wait_s=wait_s)
        pods = None
        try:
            pods = Pods(node, self.functions)
            yield Executor(pods)
        finally:
            if pods is not None:
                pods.close()
            node.close()

    def sandbox(self) -> Sandbox:
        """Return the sandbox of this node's pods, whether an agent works with it or not."""
        config = self.config
        match config.sandbox:
            case "runc":
                return RuncSandbox(config.runc, cgroup_parent=config.name)
            case "containerd":
                client = Client(config.containerd, config.name)
                return ContainerdSandbox(client, owner=config.name, cgroup_parent=config.name)
            case _:
                return ProcessSandbox(config.state / "processes", Cgroups(config.name))

    def clean(self) -> None:
        """Remove whatever there is of pods and of the bridge."""
        cgroups = Cgroups(self.config.name)
        sandbox = self.sandbox()
        for name in sandbox.traces():
            sandbox.stop(name)
        if isinstance(sandbox, ContainerdSandbox):
            sandbox.close()
        network = BridgedNetwork(self.config.name, self.config.subnet)
        network.recover(frozenset())
        network.close()
        shutil.rmtree(self.config.state / "pods", ignore_errors=True)
        drop_parent(cgroups)


@contextmanager
def agent_node(
    folder: Path,
    gpus: Gpus,
    /,
    *functions: Deployed,
    budget_bytes: int = 1 << 30,
    store: Path | None = None,
    **config: object,
) -> Iterator[AgentNode]:
    """Make a node's folder; nothing of the node is left after."""
    number = secrets.randbelow(1 << 14)
    subnet = f"10.{128 + (number >> 10)}.{number >> 2 & 255}.{(number & 3) << 6}/26"
    tier = FolderConfig(tier="nvme", folder=store or folder / "nvme", budget_bytes=budget_bytes)
    state = folder / "state"
    state.mkdir(mode=0o700)
    settings = AgentConfig(
        name=f"x{secrets.token_hex(3)}",
        state=state,
        socket=state / "agent.sock",
        transient=folder / "transient",
        sandbox="process",
        containerd=str(folder / "no-containerd.sock"),
        network="bridge",
        subnet=ipaddress.IPv4Network(subnet),
        tiers=(tier,),
    )
    found = functions or (function(gpus),)
    node = AgentNode(folder, gpus, replace(settings, **config), {one.id: one for one in found})
    try:
        yield node
    finally:
        node.clean()


def empty_again(node: AgentNode, agent: Executor) -> None:
    """Remove pods, snapshots and injected failures, so that a test finds the node as made."""
    for file in (node.gpus.folder / "inject").iterdir():
        file.unlink()
    for one in agent.pods.all():
        agent.pods.stop(PodId(one.record.pod))
    store = agent.pods.node.store
    for found in store.everything():
        store.delete(found.manifest.id)
    assert not traces(node)


# -- what a pod tells ---
def ask(pod: Pod, path: str = "/state", *, post: bool = False) -> dict[str, object]:
    """Ask a pod at its own address."""
    url = f"http://{pod.record.address}{path}"
    with urllib.request.urlopen(url, b"" if post else None, timeout=10) as answer:
        return dict(loads(answer.read()))


def memory(pod: Pod) -> tuple[object, object]:
    """Return checksums of what a pod holds on its GPUs and in host memory."""
    told = ask(pod)
    return told["gpu_crcs"], told["host_crc"]


def names(phases: Phases) -> list[str]:
    return [one.phase for one in phases.timings]


def used(node: Node) -> list[int]:
    """Return the memory of each GPU that is used, as the driver tells."""
    return [gpu.memory_used for gpu in sorted(node.inventory.gpus(), key=lambda gpu: gpu.index)]


def promised(pods: Pods) -> dict[int, list[str]]:
    """Return which pods have been promised a part of which GPUs."""
    return {pod: [one.gpu for one in held] for pod, held in pods.room.held().items()}


def gpu(*indexes: int) -> tuple[GpuId, ...]:
    return tuple(GpuId(index) for index in indexes)


def pod(number: int) -> PodId:
    return PodId(number)


# -- what is left ---
def traces(node: AgentNode, *, pods: Sequence[int] = ()) -> list[str]:
    """Return what there is on this machine of a node's pods, other than these.

    A namespace's links go a moment after it, in the kernel's own time; other things need not wait.
    """
    deadline = time.monotonic() + 20
    while (found := _traces(node, pods)) and time.monotonic() < deadline:
        if any(not one.startswith("links") for one in found):
            break
        time.sleep(0.01)
    return found


def _traces(node: AgentNode, pods: Sequence[int]) -> list[str]:
    kept = frozenset(f"pod-{one}" for one in pods)
    name, state = node.config.name, node.config.state
    found: list[str] = []
    found += [
        f"cgroup {path}"
        for path in Path("/sys/fs/cgroup").glob(f"*/{name}/*")
        if path.is_dir() and path.name not in kept
    ]
    found += [
        f"namespace {path.name}"
        for path in Path("/run/netns").glob(f"{name}-*")
        if path.name.removeprefix(f"{name}-") not in kept
    ]
    links = [path.name for path in Path("/sys/class/net").glob(f"{name}?*")]
    if len(links) > len(kept):
        found.append(f"links {links}")
    found += [
        f"record {path}"
        for folder in (state / "pods", state / "processes", node.config.runc / "pods")
        for path in folder.glob("*")
        if path.name.partition(".")[0] not in kept
    ]
    for tier in node.config.tiers:
        if not isinstance(tier, FolderConfig):
            continue
        for part in ("staging", "deleted"):
            found += [f"snapshot {path}" for path in (tier.folder / part).glob("*")]
    mounts = [path for path in _mounts(node.folder) if kept.isdisjoint(Path(path).parts)]
    found += [f"mount {path}" for path in mounts]
    found += [f"process {pid}" for pid in _tenants(node, kept)]
    return found


def _mounts(folder: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in lines if str(folder) in line]


def _tenants(node: AgentNode, kept: frozenset[str]) -> list[int]:
    """Return the processes that work with this node's GPUs, in none of these pods' cgroups."""
    wanted = f"STANDIN_GPUS={node.gpus.folder}".encode()
    found = []
    for path in Path("/proc").iterdir():
        if not path.name.isdecimal() or int(path.name) == os.getpid():
            continue
        try:
            environment = (path / "environ").read_bytes().split(b"\0")
            cgroups = (path / "cgroup").read_text()
            command = (path / "cmdline").read_bytes()
        except OSError:
            continue
        mine = any(f"/{node.config.name}/{one}" in cgroups for one in kept)
        if wanted in environment and str(TENANT).encode() in command and not mine:
            found.append(int(path.name))
    return found


class Meanwhile(Phases):
    """Does something as a certain step begins, as if it came from outside in that moment."""

    def __init__(self, name: str, then: Callable[[], object]) -> None:
        super().__init__()
        self._name, self._then = name, then

    @contextmanager
    def step(self, name: str, moved_bytes: int = 0) -> Generator[None]:
        with super().step(name, moved_bytes):
            if name == self._name:
                self._then()
            yield
