"""Runs the launcher: programs inside a pod's cgroup and namespaces, from a process apart."""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from inferx.core.errors import UNDECODABLE
from inferx.exec.agent.ports import AgentError

__all__ = [
    "APPEND",
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWPID",
    "READ",
    "Plan",
    "adopt_orphans",
    "answer",
    "begin",
    "launch",
    "run",
]

CLONE_NEWNS = 0x00020000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
PR_SET_CHILD_SUBREAPER = 36
START_S = 30.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
READ = os.O_RDONLY
APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


class Plan(msgspec.Struct, kw_only=True):
    """What the launcher is to do.

    Attributes:
        command: Program and arguments; none is only allowed with `new`.
        cgroups: Files that it writes itself to before anything else.
        join: Namespaces: file and kind.
        new: Make a pid and a mount namespace with a first process.
        last_pid: With `new`: the next process inside gets the number after.
        files: Number, path and flags of what the program has open; opened inside.
        folder: What the program runs in, as seen from outside; without, `cwd` as seen inside.
        tied: The program is killed if the launcher is.
        lock: The program, and what it starts, can gain no privileges.
        wait: Wait for the program, and end as it does.
        guards: Process that is killed if the program fails, with `wait`.
        guards_in: Lists of processes, as cgroups have them: these are killed as well.
        note: File that is removed if the program does not fail, with `wait`; else its name gets
            `.lost` at the end.
        brings_pages: Whether the program brings a pod's pages: should it end before all are there,
            the pod has no zeros in their place before it is killed.
    """

    command: Sequence[str] = ()
    env: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])
    cgroups: Sequence[str] = ()
    join: Sequence[tuple[str, int]] = ()
    new: bool = False
    last_pid: int = 0
    mounts: Sequence[tuple[str, str, bool]] = ()
    files: Sequence[tuple[int, str, int]] = ()
    folder: str = ""
    cwd: str = "/"
    tied: bool = False
    lock: bool = False
    wait: bool = False
    guards: int = 0
    guards_in: Sequence[str] = ()
    note: str = ""
    brings_pages: bool = False


class _Answer(msgspec.Struct):
    pid: int
    error: str


def adopt_orphans() -> None:
    """Make this process the parent of what its children leave behind, so that it can collect it."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise AgentError(f"cannot adopt orphans: {os.strerror(ctypes.get_errno())}", phase="start")


def begin(plan: Plan) -> "subprocess.Popen[bytes]":
    """Start the launcher and give it its plan; it has not answered yet."""
    command = [sys.executable, "-I", "-S", "-B", str(Path(__file__).with_name("launcher.py"))]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": PATH, "LC_ALL": "C.UTF-8"},
        cwd="/",
        start_new_session=True,
    )
    assert process.stdin is not None
    # One that has ended already is told of by `answer`.
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
        pipe.write(msgspec.json.encode(plan))
    process.stdin = None
    return process


def answer(process: "subprocess.Popen[bytes]", *, what: str) -> int:
    """Return the pid that the launcher made.

    Raises:
        AgentError: It could not; the launcher has ended.
    """
    assert process.stdout is not None
    with process.stdout as pipe:
        waiting = select.poll()
        waiting.register(pipe, select.POLLIN)
        if not waiting.poll(START_S * 1000):
            # It is held up where it was to go. What it has made is in the pod's cgroup.
            process.kill()
            process.wait()
            raise AgentError(f"{what}: nothing began within {START_S:g} s", phase="start")
        line = pipe.readline()
    process.stdout = None
    try:
        told = msgspec.json.decode(line, type=_Answer)
    except UNDECODABLE:
        told = _Answer(0, "the launcher ended without a word")
    if told.error:
        process.wait(START_S)
        raise AgentError(f"{what}: {told.error}", phase="start")
    return told.pid


def launch(plan: Plan, *, what: str) -> int:
    """Start a program, or a pod without one, and return its pid as the host counts.

    Raises:
        AgentError: It could not be started, with the reason; nothing runs then.
    """
    process = begin(plan)
    pid = answer(process, what=what)
    process.wait(START_S)
    return pid


def run(plan: Plan, *, what: str, timeout_s: float) -> int:
    """Run a program with `wait` to its end and return its exit status, 128 and more for a signal.

    Raises:
        AgentError: It could not be started, or took longer; then it has been killed.
    """
    process = begin(plan)
    try:
        pid = answer(process, what=what)
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            # The launcher then ends as it did, and has collected it.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            process.wait(START_S)
            raise AgentError(
                f"{what}: it took longer than {timeout_s:g} s", phase="start"
            ) from error
    finally:
        # A tied program goes with it.
        process.kill()
        process.wait()
