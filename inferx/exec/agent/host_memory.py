"""How much memory the host has, as the kernel tells it."""

from pathlib import Path

from inferx.exec.agent.ports import AgentError

__all__ = ["available_bytes", "total_bytes"]

MEMINFO = Path("/proc/meminfo")


def total_bytes() -> int:
    """Return the host's memory.

    Raises:
        AgentError: The kernel does not tell.
    """
    return _told("MemTotal")


def available_bytes() -> int:
    """Return what could be had without swapping, caches that can be dropped included.

    Raises:
        AgentError: The kernel does not tell.
    """
    return _told("MemAvailable")


def _told(field: str) -> int:
    try:
        for line in MEMINFO.read_text("ascii").splitlines():
            name, _, rest = line.partition(":")
            if name == field:
                return int(rest.split()[0]) * 1024
    except (OSError, ValueError, IndexError) as error:
        raise AgentError(f"{MEMINFO}: {field} cannot be read: {error}") from error
    raise AgentError(f"{MEMINFO} tells no {field}")
