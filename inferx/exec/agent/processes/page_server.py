"""Lazy pages: who brings a restored pod its memory while it runs already, and what if they fail.

CRIU's server of pages gives a pod each page when it is touched, and the others in between. Should
it fail before all are there, the kernel would give the pod zeros in place of what it had.

Laws:
1. A pod has a note in its folder from before it runs until all its pages are there.
2. The launcher waits for the server, and is no part of the agent: where the server fails, it
   renames the note and kills the pod, whether an agent runs or not; else it removes the note.
3. Until it has, the launcher holds what the server held of the pod's memory: what is missing is
   waited for, not read as zeros.
4. A note whose launcher and server have both gone means that pages are lost, whatever killed them:
   such a pod is to be killed.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from inferx.core.errors import UNDECODABLE
from inferx.exec.agent.ports import AgentError, Capability
from inferx.exec.agent.processes import launch
from inferx.exec.agent.processes.criu_files import said_in
from inferx.exec.agent.processes.criu_probe import ask
from inferx.exec.agent.processes.procfs import is_running, started
from inferx.exec.agent.store.durable import told
from inferx.exec.files import write_whole

__all__ = ["LOG", "NOTE", "PageServers", "Pages", "pages_of", "serve_pages", "stop_pages"]

Pages = Literal["whole", "coming", "lost"]
"""A pod's memory: all there; being brought; never to be all there."""

NOTE = "lazy-pages.json"
"""In a pod's folder, while its pages come."""
LOST = f"{NOTE}.lost"
"""What its note has become where its pages are lost."""
LOG = "lazy-pages.log"
"""In CRIU's work folder."""
FEATURE = "uffd-noncoop"
"""Of CRIU: pages that are brought stay right when a process forks, unmaps or moves memory."""

LISTEN_S = 10.0
END_S = 2.0
POLL_S = 0.002


class _Note(msgspec.Struct, frozen=True, kw_only=True):
    """Who is at work, each with the instant of its start, for numbers are used again."""

    launcher: tuple[int, int]
    server: tuple[int, int]


class PageServers:
    """Tells whether this node can bring pages lazily.

    Args:
        criu: The program that would; empty where there is none.
    """

    def __init__(self, criu: str) -> None:
        self._criu = criu

    def probe(self) -> Capability:
        """Ask CRIU whether the kernel has what it needs (userfaultfd)."""
        reason = self._why_not() if self._criu else "no CRIU"
        facts = {"criu": self._criu} if self._criu else {}
        return Capability(name="pages/lazy", available=not reason, reason=reason, facts=facts)

    def _why_not(self) -> str:
        code, said = ask(self._criu, "check", "--feature", FEATURE)
        if code is None:
            return f"{self._criu} cannot be asked: {said}"
        if code == 0:
            return ""
        return f"{self._criu} check --feature {FEATURE}: {' '.join(said.split()) or code}"


def pages_of(folder: Path) -> Pages:
    """Return how the memory of the pod with this folder is."""
    path = folder / NOTE
    try:
        note = msgspec.json.decode(path.read_bytes(), type=_Note)
    except FileNotFoundError:
        return "lost" if (folder / LOST).exists() else "whole"
    except (OSError, *UNDECODABLE):
        # It is written whole: whoever changed it, nobody can tell any more.
        return "lost"
    if is_running(*note.launcher) or is_running(*note.server):
        return "coming"
    # The launcher may have ended well between the two looks.
    return "lost" if path.exists() or (folder / LOST).exists() else "whole"


def serve_pages(
    criu: str,
    images: Path,
    work: Path,
    folder: Path,
    *,
    cgroups: Sequence[str] = (),
    guards: int = 0,
    guards_in: Sequence[str] = (),
) -> None:
    """Start who brings a pod's pages, and wait until it listens.

    Args:
        criu: The program.
        images: The dump.
        work: The restore's own work folder, where the socket and the log are.
        folder: The pod's.
        cgroups: Files by which server and launcher join cgroups.
        guards: Process that is killed if the server fails.
        guards_in: Files that list more of these.

    Raises:
        AgentError: It did not start; nothing of it is left.
    """
    note, said = folder / NOTE, str(work / "criu.log")
    plan = launch.Plan(
        command=[
            *(criu, "lazy-pages", "--images-dir", ".", "--work-dir", str(work)),
            *("--log-file", LOG, "-v2"),
        ],
        env={"PATH": launch.PATH},
        cgroups=cgroups,
        files=[(0, "/dev/null", launch.READ), *((n, said, launch.APPEND) for n in (1, 2))],
        folder=str(images),
        wait=True,
        guards=guards,
        guards_in=guards_in,
        note=str(note),
        brings_pages=True,
    )
    process = launch.begin(plan)
    try:
        server = launch.answer(process, what=f"lazy pages: {criu}")
        with told("lazy pages", phase="restore"):
            write_whole(note, _noted(process.pid, server))
        _await_socket(criu, work, process)
    except BaseException as error:
        stop_pages(folder)
        process.wait(launch.START_S)
        if isinstance(error, AgentError):
            error.phase = "restore"
        raise
    # It ends when the server has; somebody has to collect it.
    threading.Thread(target=process.wait, name=f"pages-{process.pid}", daemon=True).start()


def _noted(launcher: int, server: int) -> bytes:
    note = _Note(launcher=(launcher, started(launcher)), server=(server, started(server)))
    return msgspec.json.encode(note)


def _await_socket(criu: str, work: Path, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + LISTEN_S
    while not (work / "lazy-pages.socket").exists():
        if process.poll() is not None or time.monotonic() > until:
            why = said_in(work / LOG) or "it says nothing"
            raise AgentError(f"lazy pages: {criu} does not listen: {why}")
        time.sleep(POLL_S)


def stop_pages(folder: Path) -> None:
    """End who brings a pod's pages, this agent's or an earlier one's; the pod is killed with it."""
    found: list[_Note] = []
    for path in (folder / NOTE, folder / LOST):
        with contextlib.suppress(OSError, *UNDECODABLE):
            found.append(msgspec.json.decode(path.read_bytes(), type=_Note))
        # First, so that nobody takes what ends now for a failure.
        path.unlink(missing_ok=True)
    for note in found:
        _kill(*note.server)
        # It kills what the pod still has. Done before the pod's name can be another's.
        until = time.monotonic() + END_S
        while is_running(*note.launcher) and time.monotonic() < until:
            time.sleep(POLL_S)
        _kill(*note.launcher)


def _kill(pid: int, since: int) -> None:
    if is_running(pid, since):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
