"""What the agent needs of a node: one protocol for each, and the plain data that pass through.

An adapter says what it can do before it is asked to (`Probed`): what a node lacks is a recorded
reason, not an exception in the middle of a restore. All methods block, are called from worker
threads, and are safe to call from several at once for different pods. They raise `AgentError`, and
leave nothing half done: what a failed call made, it has removed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from inferx.core.errors import InferXError

__all__ = [
    "NO_INDEX",
    "AgentError",
    "Capability",
    "DeviceCheckpointer",
    "DeviceState",
    "Gpu",
    "GpuInventory",
    "GpuProcess",
    "Hook",
    "Launch",
    "Live",
    "Mount",
    "PodSpec",
    "Probed",
    "Sandbox",
    "Share",
    "SliceShape",
    "Snapshotter",
]


class AgentError(InferXError):
    """Something that the node could not do: one line, what and why.

    Attributes:
        phase: The step that failed, from a small closed set, for it labels a metric.
        survived: Whether the pod that it befell is as it was before; else it is gone.
        stays: Whether the pod is there still, of no use: it was to end, and could not be ended.
    """

    def __init__(self, message: str, *, phase: str = "", survived: bool = False) -> None:
        super().__init__(message)
        self.phase = phase
        self.survived = survived
        self.stays = False


class Capability(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a node can do, or why it cannot.

    Attributes:
        name: `port/adapter`, as in `snapshotter/criu`.
        reason: Why not; empty where it is available.
        facts: What else is worth telling: versions, paths, which library answered.
    """

    name: str
    available: bool
    reason: str = ""
    facts: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])


class Probed(Protocol):
    """An adapter that can say whether this node has what it needs."""

    def probe(self) -> Capability:
        """Find out, without leaving anything behind. Never raises."""
        ...


# -- GPUs ---
NO_INDEX = -1


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU, or one MIG device, as NVML tells. Memory in bytes.

    Attributes:
        index: What commands call it. A GPU that is cut has none: its devices have, each its own.
        nvml_index: What NVML and CDI files call it, or the GPU that a MIG device is a part of.
        parent: UUID of the GPU that a MIG device is a part of.
        place: Of a MIG device on its GPU, as NVML counts: there may be gaps.
        mig_profile: Of a MIG device, as in `1g.10gb`.
        mig_enabled: Whether it is cut: only its MIG devices can be used.
    """

    index: int
    nvml_index: int
    uuid: str
    name: str
    memory_total: int
    memory_used: int
    parent: str = ""
    place: int = 0
    mig_profile: str = ""
    mig_enabled: bool = False


class GpuProcess(msgspec.Struct, frozen=True):
    """What one process holds of one GPU; `pid` as the host counts."""

    gpu: str
    pid: int
    memory_used: int


class GpuInventory(Probed, Protocol):
    """What GPUs there are, and who holds how much of them."""

    @property
    def driver(self) -> str:
        """Driver version; empty without one."""
        ...

    def gpus(self) -> Sequence[Gpu]: ...
    def processes(self) -> Sequence[GpuProcess]: ...


class DeviceState(msgspec.Struct, frozen=True):
    """A process as the driver sees it: `none`, `running`, `locked`, `checkpointed` or `failed`."""

    name: str


class DeviceCheckpointer(Probed, Protocol):
    """Moves a process's GPU state to host memory and back.

    The only way is running -lock-> locked -checkpoint-> checkpointed -restore-> locked -unlock->
    running; anything else is an `AgentError`. A call that does not return in time is one, too, and
    its process is then not usable.
    """

    def state(self, pid: int) -> DeviceState:
        """Return the state; `none` for a process without GPU state."""
        ...

    def lock(self, pid: int, *, timeout_s: float) -> None:
        """Let no new work begin. In time or not at all: then the process is as it was."""
        ...

    def checkpoint(self, pid: int, *, timeout_s: float) -> None: ...
    def restore(self, pid: int, *, gpu_map: Mapping[str, str], timeout_s: float) -> None:
        """Bring the state back, onto other GPUs where `gpu_map` (old to new UUID) says so.

        A map names every GPU of the node where the state was made, those that stay included.
        """
        ...

    def unlock(self, pid: int, *, timeout_s: float) -> None: ...


# -- processes ---
class Mount(msgspec.Struct, frozen=True):
    """A folder of the host inside the pod."""

    source: str
    target: str
    read_only: bool = True


class Hook(msgspec.Struct, frozen=True):
    """What the agent posts to a pod: where, and a JSON body."""

    path: str
    body: bytes = b"{}"


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """How a function's process is started, from its file.

    Attributes:
        function: `tenant/namespace/name@version`.
        image: Of containerd; empty is the host's own files, read-only in containers.
        command: Program and arguments.
        image_entrypoint: The program is the image's own; `command` is its arguments.
        env: Environment, beside what shares add.
        port: Where it serves HTTP.
        health: Path that answers 200 when the pod can serve.
        ready_timeout_s: How long a cold start may take.
        quiesce: Posted before a checkpoint, so that the pod gives up what need not be kept.
        wake: Posted after a restore.
        memory_bytes: Limit of host memory, GPU state while suspended included; 0 is no limit.
        cpu_milli: Limit of processor time, in thousandths of a core; 0 is no limit.
    """

    function: str
    command: tuple[str, ...]
    image: str = ""
    image_entrypoint: bool = False
    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    cwd: str = "/"
    port: int = 0
    health: str = "/health"
    ready_timeout_s: float = 600.0
    quiesce: Hook | None = None
    wake: Hook | None = None
    memory_bytes: int = 0
    cpu_milli: int = 0


class SliceShape(msgspec.Struct, frozen=True, kw_only=True):
    """What of a GPU a pod may use."""

    gpu: str
    milli_gpu: int
    hbm_bytes: int


class PodSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One pod to start or restore.

    Attributes:
        pod: Its name on this node: letters, digits and dashes; also of its cgroup and container.
        gpus: How many GPUs its function has; a suspended pod holds none of them.
        network: Path of its network namespace; empty is the host's.
        image_digest: The image that it is made from; empty is what its function's name for it leads
            to by then.
        env: What shares add to the function's own environment.
    """

    pod: str
    launch: Launch
    slices: tuple[SliceShape, ...] = ()
    gpus: int = 0
    network: str = ""
    image_digest: str = ""
    env: tuple[tuple[str, str], ...] = ()
    folder: Path
    """The pod's own folder on the host: logs, and what adapters keep."""


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """A pod that runs.

    Attributes:
        pid: Of its first process, as the host counts.
        started: When that process started, in the kernel's clock ticks: with the pid it says who
            is meant, for pids are used again.
    """

    pod: str
    pid: int
    started: int


class Sandbox(Probed, Protocol):
    """Where a pod's processes live: with a cgroup of their own, and gone as a whole."""

    name: str

    def start(self, spec: PodSpec) -> Live:
        """Start a pod's command. It runs; whether it serves is another question."""
        ...

    def stop(self, pod: str) -> None:
        """Kill all of a pod's processes, and remove what was made for it; not there is fine."""
        ...

    def live(self) -> Sequence[Live]:
        """Return the pods of this agent that run, found again after its own restart included."""
        ...

    def traces(self) -> Sequence[str]:
        """Return the names of all pods that have left something, which `stop` removes."""
        ...

    def pids(self, pod: str) -> Sequence[int]:
        """Return all processes of a pod, as the host counts."""
        ...

    def memory_bytes(self, pod: str) -> int:
        """Return the host memory that a pod is charged, as its cgroup tells."""
        ...

    def image_digest(self, launch: Launch) -> str:
        """Return the digest of the image that a function's pod would be started from now.

        Empty for a function without one.
        """
        ...

    def digest_of(self, pod: str) -> str:
        """Return the digest of the image that a pod was made from; empty without one."""
        ...

    def admit(self, spec: PodSpec) -> None:
        """Let a pod that runs have the devices of its slices, and no others of the node's GPUs."""
        ...

    def freeze(self, pod: str) -> None:
        """Stop a pod where it is; one that is frozen stays so."""
        ...

    def thaw(self, pod: str) -> None:
        """Let a pod go on; one that is not frozen does."""
        ...


class Snapshotter(Probed, Protocol):
    """Writes the host side of a pod to files, and brings it back, in a sandbox of its kind."""

    name: str
    refuses: str
    """Why it can do neither on this node, whatever the pod; empty where it can."""

    def dump(
        self,
        spec: PodSpec,
        live: Live,
        into: Path,
        *,
        leave: bool,
        keep_connections: bool = False,
    ) -> None:
        """Write a pod's processes into an empty folder; with `leave` they have ended after.

        Without, the pod goes on as if nothing had happened. After an error it goes on, too.

        Args:
            spec: The pod.
            live: Which processes.
            into: Where to.
            leave: Whether they end.
            keep_connections: Keep established TCP connections, for one restore in the same network
                namespace; without, they are closed there.
        """
        ...

    def restore(
        self,
        spec: PodSpec,
        source: Path,
        *,
        lazy: bool = False,
        keep_connections: bool = False,
    ) -> Live:
        """Bring a dumped pod back, under another name or in another network namespace if told.

        `source` is not written to: several pods may come from it at once.

        Args:
            spec: The pod.
            source: What `dump` wrote.
            lazy: Let the pod run before its memory is there; pages come when they are touched.
            keep_connections: Go on with connections that the dump has kept.
        """
        ...


# -- fractions ---
class Share(Probed, Protocol):
    """A way to give a pod a part of a GPU, and what it is worth."""

    name: str
    memory_isolated: bool
    compute_isolated: bool
    fault_isolated: bool
    checkpointable: bool

    def env(self, slices: Sequence[SliceShape], gpus: Sequence[Gpu]) -> Mapping[str, str]:
        """Return what a pod's environment must say to have no more than its slices."""
        ...
