"""Starts one program inside a pod: a small program of its own, run by `process` and `criu`.

Joining namespaces and forking is no work for the agent, which has threads. This reads one JSON
object from its standard input, so that nothing secret is in an argument list, and answers with one
on its standard output: `pid` (of what it made, as the host counts) and `error` (empty, or a line).

With `new`, it makes a pid namespace with a mount namespace in which `/proc` tells of it, and a
first process that does nothing but collect the ended ones: the pod's `init`. A pod's own numbers
are then free of the host's, and can be had again by any number of clones. CRIU runs inside, too,
so that it sees no namespace to save: what it writes is the processes alone.

It uses nothing but the standard library and is run by its path, in a bare interpreter.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import sys
import time

TYPE_CHECKING = False  # Importing `typing`, or `pathlib`, would double the time to start.
if TYPE_CHECKING:
    from typing import TypedDict

    class Plan(TypedDict):
        """What `launch.Plan` describes."""

        command: list[str]
        env: dict[str, str]
        cgroups: list[str]
        join: list[tuple[str, int]]
        new: bool
        last_pid: int
        mounts: list[tuple[str, str, bool]]
        files: list[tuple[int, str, int]]
        folder: str
        cwd: str
        tied: bool
        lock: bool
        wait: bool
        guards: int
        guards_in: list[str]
        note: str
        brings_pages: bool


CLONE_NEWNS = 0x00020000
CLONE_NEWPID = 0x20000000
MS_RDONLY = 1
MS_REMOUNT = 32
MS_NOSUID_NODEV_NOEXEC = 2 | 4 | 8
MS_BIND = 4096
MS_REC = 16384
MS_SLAVE = 1 << 19
PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
KILL_S = 10.0
SYS_PIDFD_GETFD = 438
KEEP_S = 0.005
MEMORY = "anon_inode:[userfaultfd]"

libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> None:
    """Call the C library; raises OSError with the call's name."""
    plain = [each.encode() if isinstance(each, str) else each for each in arguments]
    if getattr(libc, name)(*plain) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def write(path: str, text: str) -> None:
    """Write a setting of the kernel's."""
    number = os.open(path, os.O_WRONLY)
    try:
        os.write(number, text.encode())
    finally:
        os.close(number)


def quiet() -> None:
    """Hold nothing that was given: no files, and a null device of this mount namespace."""
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.close(null)


def become(plan: Plan, folder: int, status: int) -> None:
    """Turn into the program; returns never, but tells `status` what went wrong."""
    try:
        os.setsid()
        for name in ("HUP", "INT", "QUIT", "TERM", "PIPE", "CHLD"):
            signal.signal(getattr(signal, f"SIG{name}"), signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        # Images hold a pod's memory; what a pod writes is its own affair.
        os.umask(0o022 if plan["lock"] else 0o077)
        if plan["tied"]:
            call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if plan["lock"]:
            call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        # Above all that may be asked for, so that none is written over.
        status = _high(status)
        opened: list[tuple[int, int]] = []
        for number, path, flags in plan["files"]:
            opened.append((number, _high(os.open(path, flags, 0o600))))
        if folder >= 0:
            os.fchdir(folder)
        else:
            os.chdir(plan["cwd"])
        os.closerange(3, 100)
        for number, at in opened:
            os.dup2(at, number)
        for _, at in opened:
            os.close(at)
        os.execvpe(plan["command"][0], plan["command"], plan["env"])  # noqa: S606
    except OSError as error:
        os.write(status, str(error).encode())
    os._exit(127)


def _high(number: int) -> int:
    return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 100)


def init(plan: Plan, status: int) -> None:
    """First process of a pod: starts its command, if there is one, and collects what ends."""
    try:
        os.setsid()
        call("mount", "proc", "/proc", "proc", MS_NOSUID_NODEV_NOEXEC, None)
        for source, target, read_only in plan["mounts"]:
            call("mount", source, target, None, MS_BIND | MS_REC, None)
            if read_only:
                call("mount", None, target, None, MS_BIND | MS_REMOUNT | MS_RDONLY, None)
        quiet()
        if plan["last_pid"]:
            write("/proc/sys/kernel/ns_last_pid", str(plan["last_pid"]))
        # Blocked, so that it waits for us in `sigwait` and none is lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        if plan["command"] and os.fork() == 0:
            become(plan, -1, status)
    except OSError as error:
        os.write(status, str(error).encode())
        os._exit(127)
    os.closerange(3, 100)
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            # None yet, or none any more: CRIU may still be at work in here, and would end with us.
            signal.sigwait([signal.SIGCHLD])


def enter(plan: Plan) -> int:
    """Go where the program is to run; return its folder, opened as seen from outside, or -1."""
    # A file system that was mounted later is not seen from inside, but a folder in it may be held.
    folder = os.open(plan["folder"], os.O_PATH | os.O_DIRECTORY) if plan["folder"] else -1
    for path in plan["cgroups"]:
        write(path, "0")
    joined = [(os.open(path, os.O_RDONLY), kind) for path, kind in plan["join"]]
    for number, kind in joined:
        call("setns", number, kind)
        os.close(number)
    if plan["new"]:
        call("unshare", CLONE_NEWNS | CLONE_NEWPID)
        # What the pod mounts is not seen outside. What the host mounts and unmounts later is so
        # inside, too, where its mounts are shared.
        call("mount", None, "/", None, MS_REC | MS_SLAVE, None)
    return folder


def kill(guarded: int, entries: list[str]) -> None:
    """Kill a process, and all that are in these cgroups; what is gone is fine."""
    if guarded >= 0:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(guarded, signal.SIGKILL)
    until = time.monotonic() + KILL_S
    while time.monotonic() < until:
        found: set[int] = set()
        for entry in entries:
            with contextlib.suppress(OSError), open(entry, encoding="ascii") as file:  # noqa: PTH123
                found.update(int(pid) for pid in file.read().split())
        # Of a namespace that is not seen from here the number is 0: that would be our own group.
        for pid in found - {0}:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return
        time.sleep(0.005)


def wait_keeping(pid: int) -> int:
    """Wait as `waitpid` does for who brings a pod's pages, and keep what it holds of the pod.

    Once nobody holds a userfaultfd, the kernel gives the pod zeros for pages that are not there. As
    long as we do, a pod that touches one waits, and is killed as it waits.
    """
    server, kept = os.pidfd_open(pid), dict[str, int]()
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            # What is kept is kept to our own end.
            return status
        with contextlib.suppress(OSError):
            keep(server, f"/proc/{pid}/fd", kept)
        time.sleep(KEEP_S)


def keep(server: int, folder: str, kept: dict[str, int]) -> None:
    """Have what a process has of other processes' memory, and nothing that it has closed."""
    there = {name for name in os.listdir(folder) if os.readlink(f"{folder}/{name}") == MEMORY}  # noqa: PTH115, PTH208
    for name in kept.keys() - there:
        os.close(kept.pop(name))
    for name in there:
        # Each time anew: by now the number may mean another file there.
        number = libc.syscall(SYS_PIDFD_GETFD, server, int(name), 0)
        if number >= 0:
            if name in kept:
                os.close(kept[name])
            kept[name] = number


def answer(pid: int, error: str) -> None:
    """Say how it went."""
    print(json.dumps({"pid": pid, "error": error}), flush=True)


def main() -> int:
    """Do what the plan says; the exit status is that of the program only with `wait`."""
    plan: Plan = json.load(sys.stdin.buffer)
    try:
        guarded = os.pidfd_open(plan["guards"]) if plan["guards"] else -1
        folder = enter(plan)
        told, status = os.pipe()
        pid = os.fork()
        if pid == 0:
            if plan["new"]:
                init(plan, status)
            become(plan, folder, status)
    except (OSError, ValueError) as error:
        answer(0, str(error))
        return 1
    os.close(status)
    with os.fdopen(told, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    if said:
        # It is to be nobody's zombie.
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        answer(0, said)
        return 1
    answer(pid, "")
    if not plan["wait"]:
        return 0
    # Whoever started us need not wait with us.
    quiet()
    status = wait_keeping(pid) if plan["brings_pages"] else os.waitpid(pid, 0)[1]
    code = os.waitstatus_to_exitcode(status)
    with contextlib.suppress(OSError):
        if plan["note"] and code:
            # Before the end of those that are killed is seen: so that it is known why.
            os.rename(plan["note"], f"{plan['note']}.lost")  # noqa: PTH104
        elif plan["note"]:
            os.unlink(plan["note"])  # noqa: PTH108
    if code:
        kill(guarded, plan["guards_in"])
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
