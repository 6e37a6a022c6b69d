"""A container's root made of the host's own files: for functions without an image.

The root itself is an empty folder of the pod. Bound into it, read-only, is what the host's programs
need to run, and nothing else:

- the folders of programs and libraries (`/usr`, `/opt`, and `/bin` and the like where they are no
  links into `/usr`);
- of `/etc` the files that libraries read: names of users, of hosts and of services, certificates,
  the linker's cache. No keys, no password hashes;
- what this agent itself is installed in, for `inferx worker` runs there.

So `/root`, `/home`, `/var`, `/srv`, `/boot` and the rest of `/etc` are not seen, nor is what the
host mounts below the folders above, nor `/proc`, `/sys`, `/dev`, `/run` and `/tmp`, which each pod
has of its own (an agent that is installed below one of them is seen there, and nothing beside it).
What else a function needs, its `mounts` name.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec.structs import replace

import inferx
from inferx.exec.agent.containers.oci import OciEdits
from inferx.exec.agent.ports import AgentError, Mount

__all__ = ["host_mounts", "lay_out", "without_what_is_there"]

OWN = frozenset({"proc", "sys", "dev", "run", "tmp"})
"""Top-level folders that a pod has of its own."""

PROGRAMS = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt")

OF_ETC = (
    *("alternatives", "ca-certificates", "ca-certificates.conf", "gai.conf", "group", "host.conf"),
    *("hosts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "mime.types"),
    *("nsswitch.conf", "os-release", "passwd", "pki/ca-trust", "pki/tls/certs", "protocols"),
    *("services", "ssl/certs", "ssl/openssl.cnf", "timezone"),
)
"""Files and folders that everybody may read, and that name nobody's secrets."""


def host_mounts(
    host: Path = Path("/"), *, installed: Sequence[Path] | None = None
) -> tuple[Mount, ...]:
    """Return what must be bound into an empty root so that the host's programs run there.

    Args:
        host: The host's root.
        installed: Folders of this agent's own; by default, where it runs from.
    """
    found = [
        Mount(str(host / name), f"/{name}")
        for name in PROGRAMS
        if (host / name).is_dir() and not (host / name).is_symlink()
    ]
    seen = [Path(mount.source) for mount in found]
    found += [
        Mount(str(folder), str(folder))
        for folder in (_installed() if installed is None else installed)
        if not any(_shows(above, folder) for above in seen)
    ]
    found += [Mount(str(host / "etc" / n), f"/etc/{n}") for n in OF_ETC if _there(host, n)]
    # What is mounted below another comes after it.
    return tuple(sorted(found, key=lambda mount: mount.target))


def _installed() -> list[Path]:
    """Return the folders of this agent's interpreter, of its environment and of its package."""
    package = Path(inferx.__file__).parent
    named = (Path(sys.base_prefix), Path(sys.prefix), package)
    folders = sorted({*named, *(folder.resolve() for folder in named)})
    return [one for one in folders if not any(above in folders for above in one.parents)]


def _shows(above: Path, folder: Path) -> bool:
    """Whether a folder is seen where one above it is bound: not if something is mounted between."""
    return folder.is_relative_to(above) and folder.stat().st_dev == above.stat().st_dev


def _there(host: Path, name: str) -> bool:
    try:
        return (host / "etc" / name).exists()
    except OSError:
        return False


def without_what_is_there(edits: OciEdits, roots: Sequence[Mount]) -> OciEdits:
    """Return a device's edits without the mounts of files that the host's folders show already.

    Raises:
        AgentError: One would have to be made in a folder of the host.
    """
    return replace(edits, mounts=tuple(_needed(edits.mounts, roots)))


def _needed(mounts: Sequence[Mount], roots: Sequence[Mount]) -> Iterator[Mount]:
    for mount in mounts:
        target = Path(mount.target).parent.resolve() / Path(mount.target).name
        if not any(target.is_relative_to(root.target) for root in roots):
            yield mount
        elif not target.exists():
            raise AgentError(
                f"{mount.target} is to be {mount.source}, and the host has nothing there to mount"
                " it on: a function without an image needs the driver where the host has it",
                phase="devices",
            )
        elif not target.samefile(mount.source):
            yield mount


def lay_out(root: Path, mounts: Sequence[Mount], host: Path = Path("/")) -> None:
    """Make the empty root: mount points, and the links between the host's folders.

    Raises:
        AgentError: The folder cannot be made, or is there already.
    """
    try:
        root.mkdir(mode=0o755, parents=True)
        for name in sorted(OWN):
            (root / name).mkdir(mode=0o755)
        for name in PROGRAMS:
            if (host / name).is_symlink():
                (root / name).symlink_to((host / name).readlink())
        for mount in mounts:
            at = root / mount.target.lstrip("/")
            folder = Path(mount.source).is_dir()
            (at if folder else at.parent).mkdir(mode=0o755, parents=True, exist_ok=True)
            if not folder:
                at.touch(mode=0o644)
    except OSError as error:
        raise AgentError(f"cannot make a root of the host's files: {error}", phase="start") from (
            error
        )
