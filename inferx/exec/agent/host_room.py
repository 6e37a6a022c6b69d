"""Whether host memory has room: for a pod's GPU state before it is moved there, for a restored pod.

The driver moves it into the process's own memory: it is charged to the pod's cgroup, and where that
or the host is too small, the kernel would kill the pod in the middle.
"""

from pathlib import Path

from inferx.exec.agent.ports import AgentError, Launch, PodSpec, Sandbox

__all__ = ["available_bytes", "require_host_room", "require_room_to_start"]

MARGIN_BYTES = 256 << 20
"""Of the host's memory, left to everybody else."""


def available_bytes() -> int:
    """Return what the kernel says could be had without swapping."""
    for line in Path("/proc/meminfo").read_text("ascii").splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    raise AgentError("/proc/meminfo tells no MemAvailable")


def require_host_room(sandbox: Sandbox, spec: PodSpec, size_bytes: int) -> None:
    """Refuse where so much GPU state would not fit.

    Raises:
        AgentError: The host, or the pod's limit, is too small.
    """
    if not size_bytes:
        return
    free = available_bytes() - MARGIN_BYTES
    if free < size_bytes:
        text = f"{spec.pod}: {size_bytes} bytes of GPU state; the host has {max(0, free)} to spare"
        raise AgentError(text, phase="host-memory")
    limit = spec.launch.memory_bytes
    if limit:
        left = limit - sandbox.memory_bytes(spec.pod)
        if left < size_bytes:
            text = f"{spec.pod}: {size_bytes} bytes of GPU state; its memory limit leaves {left}"
            raise AgentError(text, phase="host-memory")


def require_room_to_start(launch: Launch, size_bytes: int) -> None:
    """Refuse where a snapshot's memory, GPU state included, would not fit.

    Raises:
        AgentError: The host, or the function's limit, is too small.
    """
    free = available_bytes() - MARGIN_BYTES
    if free < size_bytes:
        text = f"{size_bytes} bytes to restore; the host has {max(0, free)} to spare"
        raise AgentError(text, phase="host-memory")
    if launch.memory_bytes and launch.memory_bytes < size_bytes:
        text = f"{size_bytes} bytes to restore; the function's limit is {launch.memory_bytes}"
        raise AgentError(text, phase="host-memory")
