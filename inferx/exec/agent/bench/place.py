"""A node's configuration for one bench: folders and names of its own, gone afterwards."""

import ipaddress
import secrets
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from inferx.core.units import GIB
from inferx.exec.agent.config import AgentConfig
from inferx.exec.agent.processes.criu_probe import find_criu
from inferx.exec.agent.store import FolderConfig

__all__ = ["temporary_config"]

_MEMORY = Path("/dev/shm")  # noqa: S108 - the host's tmpfs is what is measured; folders are ours.
_DISK = Path("/var/tmp")  # noqa: S108 - containers have a /tmp of their own, and would not see it.
_BUDGET = 1024 * GIB
"""No limit of ours: what the host has is one."""


@contextmanager
def temporary_config(*, sandbox: str = "auto") -> Generator[AgentConfig]:
    """Yield a configuration that shares nothing with an agent of this node."""
    name = f"b{secrets.token_hex(3)}"
    disk = Path(tempfile.mkdtemp(prefix="inferx-bench-", dir=_DISK))
    memory = Path(tempfile.mkdtemp(prefix="inferx-bench-", dir=_MEMORY))
    try:
        yield AgentConfig(
            name=name,
            state=disk / "state",
            socket=disk / "agent.sock",
            sandbox=sandbox,
            subnet=ipaddress.IPv4Network((f"10.202.{secrets.randbelow(256)}.0", 24)),
            criu=find_criu(),
            tiers=(
                FolderConfig(tier="dram", folder=memory / "dram", budget_bytes=_BUDGET),
                FolderConfig(tier="nvme", folder=disk / "nvme", budget_bytes=_BUDGET),
            ),
        )
    finally:
        shutil.rmtree(disk, ignore_errors=True)
        shutil.rmtree(memory, ignore_errors=True)
        _remove_parents(name)


def _remove_parents(name: str) -> None:
    """Remove the empty folders that pods' cgroups and shims were made in."""
    groups = Path("/sys/fs/cgroup")
    shims = Path("/run/containerd/runc") / name
    shutil.rmtree(AgentConfig(name=name).runc.parent, ignore_errors=True)
    for folder in (*groups.glob(f"*/{name}"), groups / name, shims):
        with suppress(OSError):
            folder.rmdir()
