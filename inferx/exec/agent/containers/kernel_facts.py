"""What the kernel says of a container's processes and cgroup, whatever runtime made them.

Both cgroup layouts are known: one folder per controller (v1, and beside it the unified tree of a
hybrid machine), or one tree for all (v2).
"""

import contextlib
import os
import stat
from collections.abc import Generator, Sequence
from pathlib import Path

from inferx.exec.agent.containers.oci import OciEdits
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.processes.cgroup import charged_bytes, hierarchies

__all__ = ["cgroup_entries", "cgroup_folders", "cgroup_memory", "cgroup_pids", "give_devices"]


def cgroup_folders(cgroup: str, *, mountinfo: Path = Path("/proc/self/mountinfo")) -> list[Path]:
    """Return where a cgroup is there: in each hierarchy that has processes of it."""
    entries = cgroup_entries(cgroup, mountinfo=mountinfo)
    return [entry.parent for entry in entries if entry.exists()]


def cgroup_entries(cgroup: str, *, mountinfo: Path = Path("/proc/self/mountinfo")) -> list[Path]:
    """Return the files that list a cgroup's processes, in each hierarchy; it need not be there."""
    name = cgroup.strip("/")
    assert name, "the root cgroup is not a pod's"
    first, second = hierarchies(mountinfo)
    trees = dict.fromkeys((*first.values(), *((second,) if second else ())))
    return [tree / name / "cgroup.procs" for tree in trees]


def cgroup_memory(cgroup: str) -> int:
    """Return the bytes of memory that a cgroup is charged; see `charged_bytes`.

    Raises:
        AgentError: There is no such cgroup.
    """
    name = cgroup.strip("/")
    first, second = hierarchies()
    for tree, version in ((first.get("memory"), 1), (second, 2)):
        if tree is not None:
            with contextlib.suppress(OSError):
                return charged_bytes(tree / name, version=version)
    raise AgentError(f"cgroup {cgroup}: its memory cannot be read", phase="inspect")


def cgroup_pids(cgroup: str) -> Sequence[int]:
    """Return the processes of a cgroup and of those below; empty if it is not there."""
    found: set[int] = set()
    for folder in cgroup_folders(cgroup):
        for at, _, _ in os.walk(folder):
            with contextlib.suppress(OSError):
                found.update(int(pid) for pid in (Path(at) / "cgroup.procs").read_text().split())
    return sorted(found)


def give_devices(pid: int, edits: OciEdits) -> None:
    """Make the device nodes of a process's `/dev` what its edits say: those, and none withheld.

    The nodes of a restored container come with its dumped `/dev`, for the GPU that it had then; and
    a suspended one may be resumed on another.

    Raises:
        AgentError: A node cannot be made or removed.
    """
    for device in edits.withheld:
        with _at(pid, device.path) as (folder, name), contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
    for device in edits.devices:
        wanted = os.makedev(device.major, device.minor)
        with _at(pid, device.path) as (folder, name):
            with contextlib.suppress(FileNotFoundError):
                there = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISCHR(there.st_mode) and there.st_rdev == wanted:
                    continue
                os.unlink(name, dir_fd=folder)
            os.mknod(name, device.mode | stat.S_IFCHR, wanted, dir_fd=folder)
            # Again, for the mask of new files took its part.
            node = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            try:
                Path(f"/proc/self/fd/{node}").chmod(device.mode)
            finally:
                os.close(node)


@contextlib.contextmanager
def _at(pid: int, path: str) -> Generator[tuple[int, str]]:
    """Open the folder of a path as a process sees it, made if need be, and yield the name there.

    Step by step and following nothing: the pod may have put links there, and from here they would
    lead through the host's root.
    """
    *folders, name = path.strip("/").split("/")
    try:
        with contextlib.ExitStack() as opened:
            at = _open(opened, f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY)
            for folder in folders:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(folder, 0o755, dir_fd=at)
                at = _open(opened, folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, at)
            yield at, name
    except OSError as error:
        raise AgentError(f"device {path} of process {pid}: {error}", phase="devices") from error


def _open(opened: contextlib.ExitStack, path: str, flags: int, at: int | None = None) -> int:
    found = os.open(path, flags | os.O_CLOEXEC, dir_fd=at)
    opened.callback(os.close, found)
    return found
