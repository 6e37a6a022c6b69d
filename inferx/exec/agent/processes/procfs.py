"""What `/proc` says of a process: who it is, whether it runs, and its numbers in its own namespace.

A process that has ended while it was looked at is no error here: it gives 0, False or nothing.
"""

import os
from pathlib import Path

__all__ = [
    "all_pids",
    "boot",
    "children",
    "inner_zombies",
    "is_running",
    "may_administer",
    "most_pids",
    "namespace",
    "own_numbers",
    "own_pid",
    "resident_bytes",
    "session_of",
    "started",
]

PROC = Path("/proc")


def _stat(pid: int) -> list[str]:
    """Fields of `/proc/PID/stat` from the third on; the second may hold spaces and brackets."""
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def started(pid: int, *, zombies: bool = False) -> int:
    """When a process started, in clock ticks since boot; 0 if there is none, or only its zombie."""
    fields = _stat(pid)
    return int(fields[19]) if fields and (zombies or fields[0] not in "ZX") else 0


def is_running(pid: int, started_ticks: int) -> bool:
    """Whether this very process, and no later one of the same number, runs."""
    return started_ticks > 0 and started(pid) == started_ticks


def session_of(pid: int, *, zombies: bool = False) -> int:
    """Session of a process; 0 if there is no such process, or only its zombie."""
    fields = _stat(pid)
    return int(fields[3]) if fields and (zombies or fields[0] not in "ZX") else 0


def children(pid: int) -> list[int]:
    """Pids of a process's children, as the reader counts."""
    try:
        return [int(each) for each in (PROC / f"{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def namespace(pid: int, kind: str) -> str:
    """Name of a process's namespace of a kind, as `pid` or `net`; empty if there is no process."""
    try:
        return str((PROC / str(pid) / "ns" / kind).readlink())
    except OSError:
        return ""


def _numbers(status: Path) -> dict[str, int]:
    """Return the numbers of `/proc/PID/status` as the task's own namespace counts, by their key."""
    try:
        lines = status.read_text(errors="replace").splitlines()
    except OSError:
        return {}
    return {
        key: int(rest.split()[-1])
        for key, _, rest in (line.partition(":") for line in lines)
        if key in {"NSpid", "NSpgid", "NSsid"}
    }


def own_pid(pid: int) -> int:
    """Pid of a process as its own namespace counts; 0 if it is gone."""
    return _numbers(PROC / str(pid) / "status").get("NSpid", 0)


def own_numbers(pid: int) -> list[int]:
    """Return all that a process uses as its own namespace counts: threads, group and session."""
    try:
        tasks = list((PROC / str(pid) / "task").iterdir())
    except OSError:
        return []
    found = {each for task in tasks for each in _numbers(task / "status").values()}
    return sorted(found - {0})


def resident_bytes(pid: int) -> int:
    """Share of memory that a process keeps resident, shared pages divided by their users."""
    try:
        text = (PROC / str(pid) / "smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("Pss:"))


def inner_zombies() -> list[int]:
    """Return the ended children of this process that lived in a pid namespace below its own."""
    found: list[int] = []
    for pid in all_pids():
        fields = _stat(pid)
        if fields and fields[0] == "Z" and int(fields[1]) == os.getpid() and _depth(pid) > 1:
            found.append(pid)
    return found


def _depth(pid: int) -> int:
    """Return how many namespaces, from the reader's inwards, number a process."""
    try:
        lines = (PROC / str(pid) / "status").read_text(errors="replace").splitlines()
    except OSError:
        return 0
    return next((len(line.split()) - 1 for line in lines if line.startswith("NSpid:")), 0)


def all_pids() -> list[int]:
    """Pids of all processes that the reader sees."""
    return [int(each.name) for each in PROC.iterdir() if each.name.isdecimal()]


def boot() -> str:
    """Name of this boot of the machine: start times of another one mean nothing."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def may_administer() -> bool:
    """Whether this process may make namespaces: root alone is not enough inside of containers."""
    for line in (PROC / "self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> 21 & 1)
    return False


def most_pids() -> int:
    """Largest number that a process may get."""
    return int((PROC / "sys/kernel/pid_max").read_text()) - 1
