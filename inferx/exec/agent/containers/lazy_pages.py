"""The server of lazy pages: a process of CRIU's that gives a restored container its memory."""

import contextlib
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.processes.procfs import started

__all__ = ["PageServer", "stop_pages"]

LAZY_PID = "lazy-pages.pid"
"""In a pod's folder: who serves its pages, and when that process started."""

SOCKET_WAIT_S = 5.0

log = logging.getLogger(__name__)


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
