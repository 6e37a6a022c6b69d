"""CRIU as a container runtime runs it: its options file, its work folder, its dumps and failures.

runc reads CRIU's options from the file that the annotation `org.criu.config` names, at each dump
and restore; what stands there wins over what the runtime says.

Connections: a snapshot that is cloned must not carry any. Two pods cannot be the same end of one
connection, so by default a dump closes those that are established: clients see a reset, listening
sockets stay. With `keep_connections` they are kept, for a pod that comes back once, under the
address that it had, in a network namespace that nothing else speaks for meanwhile: CRIU locks it
from the dump to the restore, and a pod that is started there in between is not heard.
"""

import contextlib
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from inferx.core.errors import UNDECODABLE
from inferx.exec.agent.containers.kernel_facts import cgroup_entries
from inferx.exec.agent.containers.leftovers import kill_workers, unmount_and_remove
from inferx.exec.agent.ports import AgentError, Live, PodSpec
from inferx.exec.agent.processes.criu_files import (
    check_sizes,
    emptied,
    errors_in,
    said_in,
    sizes_of,
)
from inferx.exec.agent.processes.criu_probe import LEAST
from inferx.exec.agent.processes.page_server import pages_of, serve_pages
from inferx.exec.agent.processes.procfs import started

__all__ = [
    "CRIU_OPTIONS",
    "RESTORE_WORK",
    "check_dump",
    "check_empty",
    "clean_work",
    "failed_dump",
    "failed_restore",
    "last_error",
    "make_folder",
    "prepare_dump",
    "prepare_restore",
    "program_version",
    "seal_dump",
    "unfit",
    "write_options",
]

CRIU_OPTIONS = "criu.conf"
"""In a pod's folder: CRIU's options, which its container's spec names."""

RESTORE_WORK = "criu/restore"
"""In a pod's folder: where CRIU works at a restore."""

SIZES = "sizes.json"
"""In a dump: its files and their sizes in bytes."""

LOGS = ("dump.log", "restore.log")
"""Of CRIU's, in its work folder."""

GHOST_BYTES = 1 << 30
"""Largest file that is open but has no name, as shared memory of libraries often is."""

ASK_S = 5.0


def unfit(facts: Mapping[str, str]) -> str:
    """Return why the CRIU that `shim_programs` told of cannot be used; empty if it can."""
    if "programs" in facts:
        return ""
    if "criu" not in facts:
        return "no criu in the runtime's PATH"
    version = facts.get("criu_version", "")
    if not version:
        return f"{facts['criu']} cannot be run"
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < LEAST:
        return f"{facts['criu']} is {version}; needs {'.'.join(map(str, LEAST))} or newer"
    return ""


def program_version(program: str) -> str:
    """Return the version that a program tells with `--version`; empty if it does not."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run(
            [program, "--version"], capture_output=True, timeout=ASK_S, check=False, text=True
        ).stdout
        if found := re.search(r"\d+(\.\d+)+\S*", told):
            return found[0]
    return ""


def make_folder(spec: PodSpec, phase: str) -> None:
    """Make a pod's folder, if it is not there; none but the agent may look into it.

    Raises:
        AgentError: It cannot be made, or is not named from the root.
    """
    if not spec.folder.is_absolute():
        raise AgentError(f"pod {spec.pod}: {spec.folder} is not an absolute path", phase=phase)
    try:
        spec.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise AgentError(f"pod {spec.pod}: no folder: {error}", phase=phase) from error


def write_options(path: Path, *, keep_connections: bool, lazy: bool = False) -> None:
    """Write CRIU's options for the next dump or restore of one pod."""
    options = [
        # A lock outlives the dump: who starts in that network before a restore would be deaf. It is
        # for connections that are kept, whose other end must meanwhile hear nothing.
        *(
            ("network-lock nftables", "tcp-established")
            if keep_connections
            else ("network-lock skip", "tcp-close")
        ),
        "file-locks",
        f"ghost-limit {GHOST_BYTES}",
        *(["lazy-pages"] if lazy else []),
    ]
    path.write_text("\n".join(options) + "\n", encoding="ascii")
    path.chmod(0o600)


def clean_work(folder: Path) -> Path:
    """Return an empty folder for CRIU's logs and sockets, outside the dump."""
    unmount_and_remove(folder)
    folder.mkdir(mode=0o700, parents=True)
    return folder


def prepare_dump(spec: PodSpec, live: Live, into: Path, *, keep_connections: bool) -> Path:
    """Make all ready for a dump; return the folder where CRIU works.

    Raises:
        AgentError: The folder is not empty, the pod is gone, or its pages are not all there.
    """
    check_empty(spec.pod, into)
    if (pages := pages_of(spec.folder)) != "whole":
        text = f"pod {spec.pod} cannot be dumped: its pages are {pages}"
        raise AgentError(text, phase="dump", survived=True)
    if started(live.pid) != live.started:
        raise AgentError(f"pod {spec.pod}: process {live.pid} is gone", phase="dump")
    work = clean_work(spec.folder / "criu" / "dump")
    write_options(spec.folder / CRIU_OPTIONS, keep_connections=keep_connections)
    return work


def prepare_restore(
    spec: PodSpec,
    source: Path,
    cgroup: str,
    *,
    criu: str,
    lazy: bool,
    keep_connections: bool,
) -> Path:
    """Make all ready for a restore; return the folder where CRIU works.

    Args:
        spec: The pod.
        source: The dump.
        cgroup: The pod's to be.
        criu: Program that brings pages.
        lazy: Whether it is to.
        keep_connections: Whether the dump's go on.

    Raises:
        AgentError: Who is to bring the pages did not start.
    """
    work = clean_work(spec.folder / RESTORE_WORK)
    options = spec.folder / CRIU_OPTIONS
    write_options(options, keep_connections=keep_connections, lazy=lazy)
    if lazy:
        entries = [str(entry) for entry in cgroup_entries(cgroup)]
        serve_pages(criu, source, work, spec.folder, guards_in=entries)
    return work


def seal_dump(into: Path) -> None:
    """Write down the size of each of a dump's files, so that one cut short is known as such.

    Raises:
        AgentError: It cannot be written; then nothing of the dump is left.
    """
    try:
        (into / SIZES).write_bytes(msgspec.json.encode(sizes_of(into, but=SIZES)))
    except OSError as error:
        emptied(into)
        raise AgentError(f"{into} is not a whole dump: {error}", phase="dump") from error


def check_dump(pod: str, source: Path) -> None:
    """Refuse what is not a whole dump; see `check_sizes`.

    Raises:
        AgentError: It is none, or not whole.
    """
    try:
        sizes = msgspec.json.decode((source / SIZES).read_bytes(), type=dict[str, int])
    except (OSError, *UNDECODABLE) as error:
        raise AgentError(f"pod {pod}: {source} is not a dump: {error}", phase="restore") from error
    try:
        check_sizes(source, sizes)
    except AgentError as error:
        raise AgentError(f"pod {pod} cannot be restored: {error}", phase="restore") from error


def check_empty(pod: str, into: Path) -> None:
    """Make sure that a dump has a folder of its own, which others cannot read.

    Raises:
        AgentError: It is not there, or something is in it.
    """
    try:
        full = any(into.iterdir())
        into.chmod(0o700)
    except OSError as error:
        raise AgentError(
            f"pod {pod}: no folder to dump into: {error}", phase="dump", survived=True
        ) from error
    if full:
        raise AgentError(f"pod {pod}: {into} is not empty", phase="dump", survived=True)


def last_error(work: Path) -> str:
    """Return what CRIU's log in its work folder names as the error; empty without one."""
    return next(filter(None, (errors_in(work / name) for name in LOGS)), "")


def _why(error: AgentError, work: Path) -> str:
    """Return CRIU's own words where it left any, else the runtime's and where CRIU was."""
    if told := last_error(work):
        return told
    last = next(filter(None, (said_in(work / name) for name in LOGS)), "")
    return f"{error}; CRIU: {last}" if last else str(error)


def failed_dump(
    error: AgentError,
    spec: PodSpec,
    live: Live,
    into: Path,
    work: Path,
    *,
    stop: Callable[[str], None],
    begun: bool = True,
) -> AgentError:
    """Clean up after a dump that failed, and return what is to be told of it.

    What CRIU itself gives up it has undone, and what was not begun need not be. Was it killed, or
    stuck, or the runtime, then pieces of it may be in the pod's processes: the pod is stopped.
    """
    kill_workers(work)
    emptied(into)
    survived = (bool(last_error(work)) or not begun) and started(live.pid) == live.started
    if not survived:
        stop(spec.pod)
    text = f"pod {spec.pod} cannot be dumped: {_why(error, work)}"
    return AgentError(text, phase="dump", survived=survived)


def failed_restore(error: AgentError, spec: PodSpec, work: Path) -> AgentError:
    """Return what is to be told of a restore that failed."""
    text = f"pod {spec.pod} cannot be restored: {_why(error, work)}"
    return AgentError(text, phase="restore")
