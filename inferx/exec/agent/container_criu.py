"""CRIU as a container runtime runs it: its options file, its log, and the server of lazy pages.

runc reads CRIU's options from the file that the annotation `org.criu.config` names, at each dump
and restore; what stands there wins over what the runtime says.

Connections: a snapshot that is cloned must not carry any. Two pods cannot be the same end of one
connection, so by default a dump closes those that are established: clients see a reset, listening
sockets stay. With `keep_connections` they are kept, for a pod that comes back once, under the
address that it had, in a network namespace that nothing else speaks for meanwhile.
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

from inferx.exec.agent.kernel_facts import start_ticks
from inferx.exec.agent.ports import AgentError

__all__ = [
    "CRIU_OPTIONS",
    "check_dump",
    "check_empty",
    "clean_work",
    "empty",
    "last_error",
    "serve_pages",
    "stop_pages",
    "unfit",
    "write_options",
]

CRIU_OPTIONS = "criu.conf"
"""In a pod's folder: CRIU's options, which its container's spec names."""

LAZY_PID = "lazy-pages.pid"
"""In a pod's folder: who serves its pages, and when that process started."""

GHOST_BYTES = 1 << 30
"""Largest file that is open but has no name, as shared memory of libraries often is."""

SOCKET_WAIT_S = 5.0

OLDEST = (4, 2)
"""Older ones fail on sockets of newer kernels."""

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
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < OLDEST:
        return f"{facts['criu']} is {version}; needs {'.'.join(map(str, OLDEST))} or newer"
    return ""


def write_options(path: Path, *, keep_connections: bool, lazy: bool = False) -> None:
    """Write CRIU's options for the next dump or restore of one pod."""
    options = [
        "network-lock nftables",
        "tcp-established" if keep_connections else "tcp-close",
        "file-locks",
        f"ghost-limit {GHOST_BYTES}",
        *(["lazy-pages"] if lazy else []),
    ]
    path.write_text("\n".join(options) + "\n", encoding="ascii")
    path.chmod(0o600)


def clean_work(folder: Path) -> Path:
    """Return an empty folder for CRIU's logs and sockets, outside the dump."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    return folder


def check_dump(pod: str, source: Path) -> None:
    """Refuse what cannot be a dump.

    Raises:
        AgentError: It is not there, or lacks what CRIU begins with.
    """
    if not (source / "inventory.img").is_file():
        raise AgentError(f"pod {pod}: {source} is not a dump: no inventory.img", phase="restore")


def check_empty(pod: str, into: Path) -> None:
    """Make sure that a dump has a folder of its own, which others cannot read.

    Raises:
        AgentError: It is not there, or something is in it.
    """
    try:
        full = any(into.iterdir())
        into.chmod(0o700)
    except OSError as error:
        raise AgentError(f"pod {pod}: no folder to dump into: {error}", phase="dump") from error
    if full:
        raise AgentError(f"pod {pod}: {into} is not empty", phase="dump")


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


def serve_pages(
    criu: str, images: Path, work: Path, folder: Path, *, on_failure: Callable[[], None]
) -> None:
    """Start the process that gives a lazily restored pod its pages, and wait until it listens.

    It ends by itself when all pages are there. Should it fail before, the kernel would give the pod
    zeros in place of what it had: `on_failure` must kill the pod.

    Args:
        criu: The program.
        images: The dump.
        work: The restore's own work folder, where the socket is.
        folder: The pod's, which remembers the server.
        on_failure: Called from a thread of its own.

    Raises:
        AgentError: It did not start.
    """
    command = (criu, "lazy-pages", "-D", str(images), "-W", str(work), "-o", "lazy-pages.log")
    try:
        server = subprocess.Popen(  # noqa: S603 - our own command line.
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise AgentError(f"lazy pages: {criu} cannot be run: {error}", phase="restore") from error
    record = folder / LAZY_PID
    record.write_text(f"{server.pid} {start_ticks(server.pid)}\n", encoding="ascii")
    end = time.monotonic() + SOCKET_WAIT_S
    while not (work / "lazy-pages.socket").exists():
        if server.poll() is not None or time.monotonic() > end:
            server.kill()
            server.wait()
            record.unlink(missing_ok=True)
            raise AgentError(
                f"lazy pages: {criu} did not listen; see {work}/lazy-pages.log", phase="restore"
            )
        time.sleep(0.002)

    def watch() -> None:
        code = server.wait()
        # A server that was stopped has no record any more: its pod is gone.
        stopped = not record.exists()
        record.unlink(missing_ok=True)
        if code != 0 and not stopped:
            log.error("pod_pages_lost folder=%s code=%d", folder, code)
            on_failure()

    threading.Thread(target=watch, name=f"pages-{folder.name}", daemon=True).start()


def stop_pages(folder: Path) -> None:
    """End the server of a pod's pages, if it is still there, this agent's or an earlier one's."""
    record = folder / LAZY_PID
    try:
        pid, started = (int(word) for word in record.read_text().split())
    except (OSError, ValueError):
        return
    record.unlink(missing_ok=True)
    if start_ticks(pid) == started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
