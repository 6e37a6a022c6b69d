"""Removes what a container runtime leaves behind when it, or its CRIU, is killed in the middle.

A restore that is cut short leaves mounts: of the root, in the runtime's state, and of every cgroup
hierarchy, in CRIU's work folder. To remove files below those would be to remove cgroups of others:
`unmount_and_remove` unmounts first, and goes no further if it cannot.
"""

import contextlib
import ctypes
import os
import re
import signal
import time
from itertools import pairwise
from pathlib import Path

from inferx.exec.agent.containers.kernel_facts import cgroup_folders, cgroup_pids
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.processes.procfs import PROC, all_pids
from inferx.exec.agent.store.durable import remove_tree, told

__all__ = [
    "clear_cgroup",
    "kill_shim",
    "kill_workers",
    "runtime_state",
    "unescaped",
    "unmount_and_remove",
    "unmount_below",
]

MNT_DETACH = 2


def kill_workers(folder: Path) -> None:
    """Kill what works in a folder of CRIU's: a dump or a restore that did not end in time.

    It is not always in its pod's cgroup, and its command line does not name the pod.
    """
    top = str(folder.resolve())
    for pid in all_pids():
        with contextlib.suppress(OSError):
            cwd = str((PROC / str(pid) / "cwd").readlink())
            if cwd == top or cwd.startswith(f"{top}/"):
                os.kill(pid, signal.SIGKILL)


def kill_shim(namespace: str, pod: str) -> None:
    """Kill containerd's shim of a pod, where containerd has no task of it and so never ends it."""
    wanted = {(b"-namespace", namespace.encode()), (b"-id", pod.encode())}
    for pid in all_pids():
        with contextlib.suppress(OSError):
            program, *words = (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
            if b"containerd-shim" in program and wanted.issubset(pairwise(words)):
                os.kill(pid, signal.SIGKILL)


def unmount_below(folder: Path) -> None:
    """Unmount all that is mounted at or below a folder.

    Raises:
        AgentError: Something is still mounted there.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    # What was mounted last comes first off.
    for path in reversed(_mounts_below(folder)):
        libc.umount2(os.fsencode(path), MNT_DETACH)
    if left := _mounts_below(folder):
        raise AgentError(f"{left[0]} cannot be unmounted", phase="stop")


def unmount_and_remove(folder: Path) -> None:
    """Remove a folder and what is in it, but nothing of what is mounted there. Not there is fine.

    Raises:
        AgentError: Something is still mounted there, and nothing was removed; or it cannot be.
    """
    unmount_below(folder)
    with told(f"{folder} cannot be removed", phase="stop"):
        remove_tree(folder)


def runtime_state(namespace: str, pod: str) -> list[Path]:
    """Return the folders of runc's state for a pod of containerd that still hold a mounted root."""
    end = f"/{namespace}/{pod}/criu-root"
    return [Path(path).parent for path in _mounts() if path.endswith(end)]


def unescaped(path: str) -> str:
    """Return a path as it is, from how the kernel writes it: blanks and the like in octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)


def _mounts_below(folder: Path) -> list[str]:
    top = str(folder.resolve())
    return [path for path in _mounts() if path == top or path.startswith(f"{top}/")]


def _mounts() -> list[str]:
    """Return all mount points, oldest first."""
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    return [unescaped(line.split(" ")[4]) for line in lines]


def clear_cgroup(cgroup: str, *, within_s: float) -> None:
    """Kill what is in a cgroup, and remove it: for what a runtime that died left behind.

    Raises:
        AgentError: Something in it did not die in time.
    """
    end = time.monotonic() + within_s
    while folders := cgroup_folders(cgroup):
        for folder in folders:
            for control, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
                # Opened without creating: only one of them is there, and only in some trees.
                with contextlib.suppress(OSError), (folder / control).open("r+") as file:
                    file.write(word)
        for pid in cgroup_pids(cgroup):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for folder in folders:
            for at, _, _ in os.walk(folder, topdown=False):
                with contextlib.suppress(OSError):
                    Path(at).rmdir()
        if not cgroup_folders(cgroup):
            return
        if time.monotonic() > end:
            left = ", ".join(map(str, cgroup_pids(cgroup))) or "none"
            raise AgentError(
                f"cgroup {cgroup} was not cleared in {within_s:g} s; processes left: {left}",
                phase="stop",
            )
        time.sleep(0.01)
