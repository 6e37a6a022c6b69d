"""Ways to give a pod a part of a GPU, and what each is worth.

The names are the enforcement levels of a function's file. What they hold a pod to differs widely,
and so does whether its GPU state can be moved to host memory:

    name       memory        compute        a fault of one     checkpoint
    none       not held      time slices    stays its own      yes
    env        asked for     time slices    stays its own      yes
    hook       by a library  throttled      stays its own      not known: refused
    mps        by the driver a limit        ends all on it     no
    mig        in hardware   in hardware    stays its own      no
    exclusive  a whole GPU   a whole GPU    stays its own      yes

All of them show a pod its own GPUs only, by UUID: an index means another GPU after a reboot.
`INFERX_GPU_MEMORY_FRACTION` and `INFERX_GPU_MEMORY_BYTES` tell an engine what it may take of each
GPU it sees: as vLLM's `--gpu-memory-utilization`, or torch's `set_per_process_memory_fraction`.

Sources: NVIDIA's documentation of MPS (memory limits and thread percentage of a client) and of MIG;
the CUDA checkpoint plugin of CRIU, which excludes MPS; cuda-checkpoint, which excludes MIG.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from inferx.core.units import MILLI_PER_GPU
from inferx.exec.agent.gpus.slices import held_gpus, hint_env, percentage, visible_env, whole_gpus
from inferx.exec.agent.ports import AgentError, Capability, Gpu, GpuInventory, Share, SliceShape

__all__ = [
    "MPS_PIPES",
    "CapShare",
    "ExclusiveShare",
    "HookShare",
    "MigShare",
    "MpsShare",
    "TimeSliceShare",
    "check_checkpointable",
    "require_share",
    "shares",
]

_MIB = 1 << 20
MPS_PIPES = Path("/tmp/nvidia-mps")  # noqa: S108  NVIDIA's default
_MPS_PID = "nvidia-cuda-mps-control.pid"
_MPS_NAME = "nvidia-cuda-mps"
"""What the kernel keeps of the daemon's name: its first 15 letters."""


class TimeSliceShare:
    """The driver's own way: whole GPUs for each in turn, and memory for who comes first."""

    name = "none"
    memory_isolated = False
    compute_isolated = False
    fault_isolated = True
    checkpointable = True

    def __init__(self, inventory: GpuInventory) -> None:
        self._inventory = inventory

    def probe(self) -> Capability:
        """Look for a GPU that is not cut."""
        return _probe_whole(self.name, self._inventory)

    def env(self, slices: Sequence[SliceShape], gpus: Sequence[Gpu]) -> Mapping[str, str]:
        """Return what shows the pod its GPUs."""
        return visible_env(slices, whole_gpus(slices, gpus, self.name))


class CapShare:
    """A part that the engine keeps to by itself, and that NVML is asked about."""

    name = "env"
    memory_isolated = False
    compute_isolated = False
    fault_isolated = True
    checkpointable = True

    def __init__(self, inventory: GpuInventory) -> None:
        self._inventory = inventory

    def probe(self) -> Capability:
        """Look for a GPU that is not cut."""
        return _probe_whole(self.name, self._inventory)

    def env(self, slices: Sequence[SliceShape], gpus: Sequence[Gpu]) -> Mapping[str, str]:
        """Return the pod's GPUs, and how much of each the engine may take."""
        held = whole_gpus(slices, gpus, self.name)
        return visible_env(slices, held) | hint_env(slices, held)


class HookShare:
    """A library between the engine and the driver that refuses what is too much: HAMi-core's.

    It is the operator's: none is shipped. Nobody has told whether a process with it can be
    checkpointed, so that it counts as no.
    """

    name = "hook"
    memory_isolated = True
    compute_isolated = False
    fault_isolated = True
    checkpointable = False

    def __init__(self, inventory: GpuInventory, library: Path | None = None) -> None:
        self._inventory = inventory
        self._library = library

    def probe(self) -> Capability:
        """Look for the library, and for a GPU that is not cut."""
        if self._library is None:
            return _absent(self.name, "no library is configured")
        if not self._library.is_file():
            return _absent(self.name, f"{self._library} is not there")
        return _probe_whole(self.name, self._inventory)

    def env(self, slices: Sequence[SliceShape], gpus: Sequence[Gpu]) -> Mapping[str, str]:
        """Return the library and its limits, which are the same for all GPUs of a pod."""
        if self._library is None:
            raise AgentError("share hook: no library is configured", phase="share")
        held = whole_gpus(slices, gpus, self.name)
        if not slices:
            return visible_env(slices, held)
        smallest = min(part.hbm_bytes for part in slices) // _MIB
        limits = {
            "LD_PRELOAD": str(self._library),
            "CUDA_DEVICE_MEMORY_LIMIT": f"{smallest}m",
            "CUDA_DEVICE_SM_LIMIT": str(percentage(slices)),
        }
        return visible_env(slices, held) | hint_env(slices, held) | limits


class MpsShare:
    """Processes run on a GPU at once, under limits that the MPS server holds them to.

    A fault of one ends all that share the server: for functions of one owner that are always warm.
    """

    name = "mps"
    memory_isolated = True
    compute_isolated = True
    fault_isolated = False
    checkpointable = False

    def __init__(self, inventory: GpuInventory, pipes: Path = MPS_PIPES) -> None:
        self._inventory = inventory
        self._pipes = pipes

    def probe(self) -> Capability:
        """Look for a control daemon, which the operator starts, and for a GPU that is not cut."""
        if not _mps_runs(self._pipes / _MPS_PID):
            installed = shutil.which("nvidia-cuda-mps-control") is not None
            why = "it is installed" if installed else "nvidia-cuda-mps-control is not installed"
            return _absent(self.name, f"no MPS control daemon at {self._pipes}: {why}")
        return _probe_whole(self.name, self._inventory)

    def env(self, slices: Sequence[SliceShape], gpus: Sequence[Gpu]) -> Mapping[str, str]:
        """Return the server's folder, memory of each GPU as the pod counts them, and SM share."""
        held = whole_gpus(slices, gpus, self.name)
        limits = (f"{row}={part.hbm_bytes // _MIB}M" for row, part in enumerate(slices))
        server = {
            "CUDA_MPS_PIPE_DIRECTORY": str(self._pipes),
            "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": ",".join(limits),
            "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": str(percentage(slices)),
        }
        return visible_env(slices, held) | hint_env(slices, held) | server


class MigShare:
    """A part that the chip itself keeps apart. A process can use one, of one GPU."""

    name = "mig"
    memory_isolated = True
    compute_isolated = True
    fault_isolated = True
    checkpointable = False

    def __init__(self, inventory: GpuInventory) -> None:
        self._inventory = inventory

    def probe(self) -> Capability:
        """Look for a MIG device."""
        return _probe(self.name, self._inventory, part=True)

    def env(self, slices: Sequence[SliceShape], gpus: Sequence[Gpu]) -> Mapping[str, str]:
        """Return the MIG device."""
        held = held_gpus(slices, gpus, self.name)
        if len(slices) != 1:
            raise AgentError(
                f"share mig: a process can use 1 MIG device, not {len(slices)}", phase="share"
            )
        if not held[0].parent:
            raise AgentError(
                f"share mig: {held[0].uuid} is a whole GPU, not a MIG device", phase="share"
            )
        return visible_env(slices, held) | hint_env(slices, held)


class ExclusiveShare:
    """Whole GPUs."""

    name = "exclusive"
    memory_isolated = True
    compute_isolated = True
    fault_isolated = True
    checkpointable = True

    def __init__(self, inventory: GpuInventory) -> None:
        self._inventory = inventory

    def probe(self) -> Capability:
        """Look for a GPU that is not cut."""
        return _probe_whole(self.name, self._inventory)

    def env(self, slices: Sequence[SliceShape], gpus: Sequence[Gpu]) -> Mapping[str, str]:
        """Return the GPUs; each slice must be a whole one."""
        held = whole_gpus(slices, gpus, self.name)
        for part in slices:
            if part.milli_gpu != MILLI_PER_GPU:
                raise AgentError(
                    f"share exclusive: a slice of {part.gpu} has {part.milli_gpu} of"
                    f" {MILLI_PER_GPU} milli, not all",
                    phase="share",
                )
        return visible_env(slices, held)


def shares(
    inventory: GpuInventory, *, hook: Path | None = None, mps_pipes: Path = MPS_PIPES
) -> Mapping[str, Share]:
    """Return every share by the enforcement level that it is the answer to."""
    every: tuple[Share, ...] = (
        TimeSliceShare(inventory),
        CapShare(inventory),
        HookShare(inventory, hook),
        MpsShare(inventory, mps_pipes),
        MigShare(inventory),
        ExclusiveShare(inventory),
    )
    return {share.name: share for share in every}


def check_checkpointable(share: Share, function: str) -> None:
    """Refuse a snapshot of a pod whose share has no way to move its GPU state.

    Raises:
        AgentError: Phase `share`.
    """
    if not share.checkpointable:
        raise AgentError(
            f"no snapshot of {function}: the GPU state of a pod with enforcement {share.name!r}"
            " cannot be checkpointed",
            phase="share",
        )


def require_share(share: Share) -> None:
    """Refuse a pod whose share cannot hold it now, whatever it could when the agent started.

    Raises:
        AgentError: Phase `share`.
    """
    told = share.probe()
    if not told.available:
        raise AgentError(f"share {share.name}: {told.reason}", phase="share")


def _mps_runs(pid_file: Path) -> bool:
    """Whether the process that a daemon's file names is one: the file outlives a dead daemon."""
    try:
        pid = int(pid_file.read_text())
        status = Path(f"/proc/{pid}/stat").read_text()
    except (OSError, ValueError):
        return False
    name, _, rest = status.partition("(")[2].rpartition(")")
    return name == _MPS_NAME and rest.split()[0] not in {"Z", "X"}


def _absent(name: str, reason: str) -> Capability:
    return Capability(name=f"share/{name}", available=False, reason=reason)


def _probe_whole(name: str, inventory: GpuInventory) -> Capability:
    return _probe(name, inventory, part=False)


def _probe(name: str, inventory: GpuInventory, *, part: bool) -> Capability:
    try:
        gpus = inventory.gpus()
    except AgentError as error:
        return _absent(name, str(error))
    if not gpus:
        return _absent(name, "no GPU")
    usable = [gpu for gpu in gpus if bool(gpu.parent) == part and not gpu.mig_enabled]
    if not usable:
        return _absent(name, "no MIG device" if part else "every GPU is in MIG mode")
    return Capability(name=f"share/{name}", available=True, facts={"devices": str(len(usable))})
