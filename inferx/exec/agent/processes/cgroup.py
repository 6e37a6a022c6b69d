"""A cgroup for each pod, under one parent of ours: its limits, what it is charged, and its end.

Version 1 has a hierarchy for each controller, and a pod is in all that we use of them; version 2
has one. A hybrid machine, with controllers in version 1 beside an empty version 2, counts as 1.
"""

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from inferx.exec.agent.ports import AgentError, Capability

__all__ = [
    "CPU_PERIOD_US",
    "PIDS_MAX",
    "Cgroups",
    "charged_bytes",
    "cpu_quota_us",
    "hierarchies",
]

FREEZE_S = 10.0
"""How long a pod may take to freeze: a process in an uninterruptible call cannot."""
KILL_S = 10.0
POLL_S = 0.002
CONTROLLERS = ("memory", "freezer", "pids")
LIMITING = ("memory", "pids", "cpu")
CPU = "cpu"
"""Used where it is there: a pod without a limit of processor time does not need it."""
PIDS_MAX = 8192
"""Processes and threads of one pod: several times what an engine has on the largest nodes, and a
fourth of what a small machine's kernel has numbers for."""
CPU_PERIOD_US = 100_000
CPU_QUOTA_US_MIN = 1_000
"""The kernel takes no less."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")


def hierarchies(
    mountinfo: Path = Path("/proc/self/mountinfo"),
) -> tuple[dict[str, Path], Path | None]:
    """Return where the controllers of version 1 are, and where version 2 is."""
    first: dict[str, Path] = {}
    second = None
    for line in mountinfo.read_text().splitlines():
        left, _, right = line.partition(" - ")
        at = Path(left.split()[4])
        fields = right.split()
        if fields[0] == "cgroup2":
            second = second or at
        elif fields[0] == "cgroup":
            for controller in fields[2].split(","):
                first.setdefault(controller, at)
    return first, second


def charged_bytes(folder: Path, *, version: int) -> int:
    """Return the memory that a cgroup is charged, without page cache that was not used again.

    Cache of files that were read once, as weights at a start, goes at need and by itself.

    Raises:
        OSError: There is no such cgroup.
    """
    first = version == 1
    usage = int((folder / ("memory.usage_in_bytes" if first else "memory.current")).read_text())
    lines = (folder / "memory.stat").read_text().splitlines()
    stat = dict(line.split() for line in lines)
    idle = int(stat.get("total_inactive_file" if first else "inactive_file", "0"))
    return max(0, usage - idle)


def cpu_quota_us(cpu_milli: int) -> int:
    """Return the processor time that a pod may take in each `CPU_PERIOD_US`."""
    return max(CPU_QUOTA_US_MIN, cpu_milli * CPU_PERIOD_US // 1000)


class Cgroups:
    """The cgroups of one agent's pods.

    Args:
        parent: Folder under each hierarchy's root; it stays when the pods have gone.
        version: 1 or 2; without, what the machine has. 0 in the attribute: neither is usable.
    """

    def __init__(self, parent: str = "inferx", *, version: int | None = None) -> None:
        self.parent = parent
        first, second = hierarchies()
        if version is None:
            version = 1 if all(name in first for name in CONTROLLERS) else 2 if second else 0
        self.version = version
        if version == 1:
            used = (*CONTROLLERS, *((CPU,) if CPU in first else ()))
            self._bases = {name: first[name] / parent for name in used}
        elif version == 2 and second is not None:
            self._bases = {str(name): second / parent for name in (*CONTROLLERS, CPU)}
        else:
            self.version = 0
            self._bases = {}

    def probe(self) -> Capability:
        """Make and remove a cgroup of our own."""
        name = "cgroup"
        if not self.version:
            return Capability(name=name, available=False, reason="no cgroup hierarchy is mounted")
        trial = f"probe-{os.getpid()}-{time.monotonic_ns()}"
        try:
            self.create(trial)
            self.remove(trial)
        except AgentError as error:
            return Capability(name=name, available=False, reason=str(error))
        facts = {"version": str(self.version), "parent": self.parent}
        return Capability(name=name, available=True, facts=facts)

    def create(self, pod: str, *, memory_bytes: int = 0, cpu_milli: int = 0) -> None:
        """Make a pod's cgroup; one that is there is used again. 0 is no limit."""
        try:
            for base in self._hierarchies():
                if self.version == 2:
                    self._delegate(base)
                (base / _checked(pod)).mkdir(parents=True, exist_ok=True)
            self._limit_pids(pod)
            if memory_bytes:
                name = "memory.limit_in_bytes" if self.version == 1 else "memory.max"
                self._file(pod, "memory", name).write_text(str(memory_bytes))
            if cpu_milli:
                self._limit_cpu(pod, cpu_quota_us(cpu_milli))
        except OSError as error:
            self.remove(pod)
            raise AgentError(
                f"pod {pod}: cannot make its cgroup: {error}", phase="cgroup"
            ) from error

    def _limit_pids(self, pod: str) -> None:
        limit = self._file(pod, "pids", "pids.max")
        # Of version 2 the controller may be missing: it is in version 1 on a hybrid machine.
        if limit.exists():
            limit.write_text(str(PIDS_MAX))

    def _limit_cpu(self, pod: str, quota_us: int) -> None:
        if self.version == 2:
            self._file(pod, CPU, "cpu.max").write_text(f"{quota_us} {CPU_PERIOD_US}")
            return
        self._file(pod, CPU, "cpu.cfs_period_us").write_text(str(CPU_PERIOD_US))
        self._file(pod, CPU, "cpu.cfs_quota_us").write_text(str(quota_us))

    @staticmethod
    def _delegate(base: Path) -> None:
        """Let children of the root and of our parent have controllers, those that there are."""
        base.mkdir(exist_ok=True)
        for folder in (base.parent, base):
            there = (folder / "cgroup.controllers").read_text().split()
            wanted = [f"+{each}" for each in LIMITING if each in there]
            if wanted:
                (folder / "cgroup.subtree_control").write_text(" ".join(wanted))

    def exists(self, pod: str) -> bool:
        """Whether a pod has a cgroup, or a part of one."""
        return any((base / _checked(pod)).is_dir() for base in self._hierarchies())

    def pods(self) -> list[str]:
        """Return the names of all cgroups under our parent."""
        found: set[str] = set()
        for base in self._hierarchies():
            if base.is_dir():
                found.update(each.name for each in base.iterdir() if each.is_dir())
        return sorted(found)

    def entries(self, pod: str) -> list[Path]:
        """Return the files that a process writes `0` to in order to join."""
        return [base / _checked(pod) / "cgroup.procs" for base in self._hierarchies()]

    def add(self, pod: str, pid: int) -> None:
        """Move a process, as the host counts, into a pod's cgroup."""
        try:
            for entry in self.entries(pod):
                entry.write_text(str(pid))
        except OSError as error:
            raise AgentError(
                f"pod {pod}: cannot put process {pid} into its cgroup: {error}", phase="cgroup"
            ) from error

    def pids(self, pod: str) -> list[int]:
        """Return all processes in a pod's cgroup, zombies excluded; none if there is no cgroup."""
        found: set[int] = set()
        for entry in self.entries(pod):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                found.update(int(each) for each in entry.read_text().split())
        return sorted(found - {0})

    def memory_bytes(self, pod: str) -> int:
        """Memory that is charged; see `charged_bytes`."""
        if "memory" not in self._bases:
            raise AgentError("no cgroup hierarchy is mounted", phase="cgroup")
        try:
            return charged_bytes(self._bases["memory"] / _checked(pod), version=self.version)
        except OSError as error:
            raise AgentError(
                f"pod {pod}: cannot read its cgroup: {error}", phase="cgroup"
            ) from error

    def memory_limit(self, pod: str) -> int:
        """Limit in bytes; 0 is none."""
        text = self._read(
            pod, "memory.limit_in_bytes" if self.version == 1 else "memory.max"
        ).strip()
        # Version 1 says "no limit" with the largest number of whole pages.
        return 0 if text == "max" or int(text) >= 1 << 62 else int(text)

    def freeze(self, pod: str) -> None:
        """Stop all processes of a pod where they are, and wait until it is so."""
        if not self._freeze(pod, FREEZE_S):
            self.thaw(pod)
            raise AgentError(
                f"pod {pod}: did not freeze within {FREEZE_S:g} s; it goes on", phase="freeze"
            )

    def thaw(self, pod: str) -> None:
        """Let a frozen pod go on; one that is not frozen stays as it is."""
        if self.version == 1:
            self._write_freezer(pod, "THAWED")
        else:
            self._write_freezer(pod, "0")
        if not _until(lambda: not self.frozen(pod), FREEZE_S):
            raise AgentError(f"pod {pod}: did not thaw within {FREEZE_S:g} s", phase="thaw")

    def frozen(self, pod: str) -> bool:
        """Whether all of a pod's processes are frozen."""
        if self.version == 1:
            return self._read(pod, "freezer.state", "freezer").strip() == "FROZEN"
        return "frozen 1" in self._read(pod, "cgroup.events", "freezer").splitlines()

    def kill(self, pod: str) -> None:
        """Kill every process of a pod, and wait until they have gone; no cgroup is fine."""
        deadline = time.monotonic() + KILL_S
        while self.pids(pod):
            if time.monotonic() > deadline:
                raise AgentError(
                    f"pod {pod}: processes {self.pids(pod)} did not end within {KILL_S:g} s",
                    phase="kill",
                )
            self._kill_once(pod)
            _until(lambda: not self.pids(pod), 0.2)

    def _kill_once(self, pod: str) -> None:
        if self.version == 2:
            with contextlib.suppress(FileNotFoundError):
                self._file(pod, "pids", "cgroup.kill").write_text("1")
            return
        with contextlib.suppress(AgentError):
            # Frozen, none can start another between our looking and our killing. One that cannot
            # freeze is killed all the same.
            self._freeze(pod, 0.5)
        for pid in self.pids(pod):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(AgentError):
            self._write_freezer(pod, "THAWED")

    def remove(self, pod: str) -> None:
        """Remove a pod's empty cgroup; no cgroup is fine."""
        for base in self._hierarchies():
            folder = base / _checked(pod)
            if not _until(partial(_gone, folder), KILL_S):
                raise AgentError(
                    f"pod {pod}: cannot remove its cgroup {folder}: it is in use", phase="cgroup"
                )

    def drop_parent(self) -> None:
        """Remove the parent of all pods, if none is left."""
        for base in self._hierarchies():
            with contextlib.suppress(OSError):
                base.rmdir()

    def _freeze(self, pod: str, within_s: float) -> bool:
        def ask() -> bool:
            # Version 1 gives up on a process that was busy, and has to be asked again.
            self._write_freezer(pod, "FROZEN" if self.version == 1 else "1")
            return self.frozen(pod)

        return _until(ask, within_s)

    def _write_freezer(self, pod: str, text: str) -> None:
        name = "freezer.state" if self.version == 1 else "cgroup.freeze"
        try:
            self._file(pod, "freezer", name).write_text(text)
        except OSError as error:
            raise AgentError(
                f"pod {pod}: cannot use its freezer: {error}", phase="freeze"
            ) from error

    def _hierarchies(self) -> Sequence[Path]:
        if not self._bases:
            raise AgentError("no cgroup hierarchy is mounted", phase="cgroup")
        return list(dict.fromkeys(self._bases.values()))

    def _file(self, pod: str, controller: str, name: str) -> Path:
        if controller not in self._bases:
            raise AgentError("no cgroup hierarchy is mounted", phase="cgroup")
        return self._bases[controller] / _checked(pod) / name

    def _read(self, pod: str, name: str, controller: str = "memory") -> str:
        try:
            return self._file(pod, controller, name).read_text()
        except OSError as error:
            raise AgentError(
                f"pod {pod}: cannot read its cgroup: {error}", phase="cgroup"
            ) from error


def _checked(pod: str) -> str:
    """Refuse names that would be another folder."""
    if not NAME.fullmatch(pod):
        raise AgentError(f"pod {pod!r}: expected 1 to 63 letters, digits and dashes", phase="name")
    return pod


def _gone(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _until(holds: Callable[[], bool], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
