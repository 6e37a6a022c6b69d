"""CRIU as a container runtime runs it: its options file, its log, and the server of lazy pages.

runc reads CRIU's options from the file that the annotation `org.criu.config` names, at each dump
and restore; what stands there wins over what the runtime says.

Connections: a snapshot that is cloned must not carry any. Two pods cannot be the same end of one
connection, so by default a dump closes those that are established: clients see a reset, listening
sockets stay. With `keep_connections` they are kept, for a pod that comes back once, under the
address that it had, in a network namespace that nothing else speaks for meanwhile: CRIU locks it
from the dump to the restore, and a pod that is started there in between is not heard.
"""

import contextlib
import logging
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from inferx.exec.agent.containers.leftovers import remove_tree
from inferx.exec.agent.ports import AgentError, Live, PodSpec
from inferx.exec.agent.processes.criu_probe import LEAST
from inferx.exec.agent.processes.procfs import started

__all__ = [
    "CRIU_OPTIONS",
    "PageServer",
    "check_dump",
    "check_empty",
    "clean_work",
    "empty",
    "last_error",
    "make_folder",
    "prepare_dump",
    "program_version",
    "seal_dump",
    "stop_pages",
    "unfit",
    "write_options",
]

CRIU_OPTIONS = "criu.conf"
"""In a pod's folder: CRIU's options, which its container's spec names."""

SIZES = "sizes.json"
"""In a dump: its files and their sizes in bytes."""

LAZY_PID = "lazy-pages.pid"
"""In a pod's folder: who serves its pages, and when that process started."""

GHOST_BYTES = 1 << 30
"""Largest file that is open but has no name, as shared memory of libraries often is."""

SOCKET_WAIT_S = 5.0

ASK_S = 5.0

log = logging.getLogger(__name__)


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
    remove_tree(folder)
    folder.mkdir(mode=0o700, parents=True)
    return folder


def prepare_dump(spec: PodSpec, live: Live, into: Path, *, keep_connections: bool) -> Path:
    """Make all ready for a dump; return the folder where CRIU works.

    Raises:
        AgentError: The folder is not empty, or the pod is gone.
    """
    check_empty(spec.pod, into)
    if started(live.pid) != live.started:
        raise AgentError(f"pod {spec.pod}: process {live.pid} is gone", phase="dump")
    work = clean_work(spec.folder / "criu" / "dump")
    write_options(spec.folder / CRIU_OPTIONS, keep_connections=keep_connections)
    return work


def seal_dump(into: Path) -> None:
    """Write down the size of each of a dump's files, so that one cut short is known as such.

    CRIU does not notice: it reads past the end of a file for ever, and logs each time.

    Raises:
        AgentError: It cannot be written; then nothing of the dump is left.
    """
    try:
        sizes = {path.name: path.stat().st_size for path in sorted(into.iterdir())}
        (into / SIZES).write_bytes(msgspec.json.encode(sizes))
    except OSError as error:
        empty(into)
        raise AgentError(f"{into} is not a whole dump: {error}", phase="dump") from error


def check_dump(pod: str, source: Path) -> None:
    """Refuse what is not a whole dump; what its files say is for a checksum to tell.

    Raises:
        AgentError: It is not there, or a file is missing or has another size than was written.
    """
    try:
        sizes = msgspec.json.decode((source / SIZES).read_bytes(), type=dict[str, int])
    except (OSError, msgspec.DecodeError) as error:
        raise AgentError(f"pod {pod}: {source} is not a dump: {error}", phase="restore") from error
    for name, size in sizes.items():
        try:
            found = (source / name).stat().st_size
        except OSError as error:
            raise AgentError(f"pod {pod}: the dump lacks a file: {error}", phase="restore") from (
                error
            )
        if found != size:
            raise AgentError(
                f"pod {pod}: {source / name} has {found} bytes, and had {size}", phase="restore"
            )


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


def empty(folder: Path) -> None:
    """Remove what is in a folder, and leave the folder."""
    for entry in list(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def last_error(work: Path) -> str:
    """Return what CRIU's log names as the error, in one line; empty without one.

    The first is the cause: those that follow are of steps that it made fail.
    """
    for name in ("dump.log", "restore.log"):
        with contextlib.suppress(OSError):
            for line in (work / name).read_text(errors="replace").splitlines():
                found = re.search(r"Error \(([^)]*)\): (.*)", line)
                # Said on each run where the limit cannot be raised; CRIU goes on.
                if found and "RLIMIT_NOFILE" not in line:
                    return f"{found[2].strip()} ({found[1]})"
    return ""


class PageServer:
    """The process that gives a lazily restored pod its pages. It ends when all are there.

    Should it fail before, the kernel would give the pod zeros in place of what it had: from the
    moment that the pod runs, `watch` must be in force.
    """

    def __init__(self, criu: str, images: Path, work: Path, folder: Path) -> None:
        """Start it, and wait until it listens.

        Args:
            criu: The program.
            images: The dump.
            work: The restore's own work folder, where the socket is.
            folder: The pod's, which remembers the server: `stop_pages` ends it.

        Raises:
            AgentError: It did not start.
        """
        self._record = folder / LAZY_PID
        command = (criu, "lazy-pages", "-D", str(images), "-W", str(work), "-o", "lazy-pages.log")
        try:
            self._server = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise AgentError(f"lazy pages: {criu} cannot be run: {error}", phase="restore") from (
                error
            )
        pid = self._server.pid
        self._who = f"{pid} {started(pid)}\n"
        self._record.write_text(self._who, encoding="ascii")
        end = time.monotonic() + SOCKET_WAIT_S
        while not (work / "lazy-pages.socket").exists():
            if self._server.poll() is not None or time.monotonic() > end:
                self.give_up()
                raise AgentError(
                    f"lazy pages: {criu} did not listen; see {work}/lazy-pages.log", phase="restore"
                )
            time.sleep(0.002)

    def give_up(self) -> None:
        """End it: its pod did not come to be."""
        self._server.kill()
        self._server.wait()
        self._record.unlink(missing_ok=True)

    def watch(self, on_failure: Callable[[], None]) -> None:
        """From now on, tell when it fails; `on_failure`, in a thread of its own, kills the pod."""

        def wait() -> None:
            code = self._server.wait()
            try:
                stopped = self._record.read_text(encoding="ascii") != self._who
            except OSError:
                # With its pod, by whoever removed the record; the next pod's is not ours.
                stopped = True
            if stopped:
                return
            self._record.unlink(missing_ok=True)
            if code != 0:
                log.error("pod_pages_lost record=%s code=%d", self._record, code)
                try:
                    on_failure()
                except AgentError as error:
                    log.error("pod_not_killed record=%s error=%s", self._record, error)  # noqa: TRY400

        threading.Thread(target=wait, name=f"pages-{self._server.pid}", daemon=True).start()


def stop_pages(folder: Path) -> None:
    """End the server of a pod's pages, if it is still there, this agent's or an earlier one's."""
    record = folder / LAZY_PID
    try:
        pid, since = (int(word) for word in record.read_text().split())
    except (OSError, ValueError):
        return
    record.unlink(missing_ok=True)
    if started(pid) == since:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
