"""A container's root made of the host's own files: for functions without an image.

The root itself is an empty folder of the pod, with a mount point for each top-level folder of the
host that is bound into it, read-only, and the host's own links (`/bin` to `usr/bin`). What the host
mounts below those folders is not seen, nor are `/proc`, `/sys`, `/dev`, `/run` and `/tmp`, which
each pod has of its own: sockets of the host's services are not reachable through it. It shows the
host's files as they are, root's included: it is for functions that their operator wrote.
"""

from collections.abc import Sequence
from pathlib import Path

from inferx.exec.agent.ports import AgentError, Mount

__all__ = ["OWN", "host_mounts", "lay_out"]

OWN = frozenset({"proc", "sys", "dev", "run", "tmp", "lost+found"})
"""Top-level folders that a pod has of its own, or has no use for."""


def host_mounts(host: Path = Path("/")) -> tuple[Mount, ...]:
    """Return what must be bound into an empty root so that the host's programs run there."""
    return tuple(
        Mount(source=str(folder), target=f"/{folder.name}")
        for folder in sorted(host.iterdir())
        if folder.name not in OWN and folder.is_dir() and not folder.is_symlink()
    )


def lay_out(root: Path, mounts: Sequence[Mount], host: Path = Path("/")) -> None:
    """Make the empty root: mount points, and the links between the host's folders.

    Raises:
        AgentError: The folder cannot be made, or is there already.
    """
    try:
        root.mkdir(mode=0o755, parents=True)
        for name in (*(mount.target.lstrip("/") for mount in mounts), *sorted(OWN)):
            (root / name).mkdir(mode=0o755, parents=True, exist_ok=True)
        for entry in sorted(host.iterdir()):
            if entry.is_symlink() and entry.is_dir():
                (root / entry.name).symlink_to(entry.readlink())
    except OSError as error:
        raise AgentError(f"cannot make a root of the host's files: {error}", phase="start") from (
            error
        )
