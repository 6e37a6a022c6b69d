"""Child processes that make one cluster on one machine: started in order, watched, ended in order.

Laws:
1. A child that ends by itself is started again, after a pause that grows while it does not last; a
   child that never got ready is not.
2. Children end in the reverse of the order in which they were started, each within a bound; then
   nothing of them is left, and neither of what they started: they are groups of their own.
3. Where the supervisor itself is killed, the kernel ends its children, if util-linux is there.
"""

import asyncio
import json
import logging
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from shutil import which
from typing import Any

from inferx.core.errors import InferXError

__all__ = ["Child", "SupervisionError", "supervised"]

READY_S = 60.0
"""For a child to serve."""
END_S = 20.0
"""For a child to end after it was told; then it is killed."""
LOOK_S = 0.05
PAUSE_S = (0.2, 5.0)
"""Before an ended child is started again: first, and at most."""
LASTS_S = 10.0
"""A child that ran for so long ended by chance."""

ENDS_WITH_US = (setpriv, "--pdeathsig", "TERM", "--") if (setpriv := which("setpriv")) else ()
"""What the kernel is to do with a child whose supervisor is gone."""

_log = logging.getLogger(__name__)


class SupervisionError(InferXError):
    """A child could not be started."""


class Child:
    """One process, again and again.

    Args:
        name: What it is called.
        command: Program and arguments, `--listen` among them; `--ready-file` is added.
        folder: Where its ready file and its log are.
        env: Its environment; None is ours.
    """

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._ready = folder / f"{name}.ready"
        self._command = (*command, "--ready-file", str(self._ready))
        self.log = folder / f"{name}.log"
        self._env = dict(os.environ if env is None else env)
        self._process: asyncio.subprocess.Process | None = None
        self._ending = False
        self.starts = 0

    @property
    def pid(self) -> int | None:
        """The present process; None between two."""
        return None if self._process is None else self._process.pid

    async def start(self) -> Mapping[str, Any]:
        """Start it and wait until it serves; return what it says of itself.

        Raises:
            SupervisionError: It ended, or did not serve in time; with the last line of its log.
        """
        self._ready.unlink(missing_ok=True)
        self.starts += 1
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *ENDS_WITH_US,
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
                start_new_session=True,
            )
        ended = asyncio.ensure_future(self._process.wait())
        try:
            async with asyncio.timeout(READY_S):
                while not self._ready.exists():
                    if ended.done():
                        raise SupervisionError(f"{self.name} ended: {self._last_line()}")
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            await self.end()
            text = f"{self.name} does not serve after {READY_S:.0f} s: {self._last_line()}"
            raise SupervisionError(text) from None
        finally:
            ended.cancel()
        told: Mapping[str, Any] = json.loads(self._ready.read_bytes())
        # Started again it is where the others look for it.
        self._command = _at(self._command, "--listen", str(told["address"]))
        if told.get("metrics"):
            self._command = _at(self._command, "--metrics-listen", str(told["metrics"]))
        return told

    async def keep(self) -> None:
        """Start it again whenever it ends, until it is to end."""
        first_s, most_s = PAUSE_S
        pause_s = first_s
        loop = asyncio.get_running_loop()
        while self._process is not None:
            began = loop.time()
            status = await self._process.wait()
            if self._ending:
                return
            pause_s = first_s if loop.time() - began > LASTS_S else min(2 * pause_s, most_s)
            _log.warning("%s ended with %d; started again in %.1f s", self.name, status, pause_s)
            await asyncio.sleep(pause_s)
            try:
                await self.start()
            except SupervisionError as error:
                _log.error("%s", error)

    async def end(self) -> None:
        """Tell it to end, and its group; kill what has not ended in time."""
        self._ending = True
        process = self._process
        if process is None:
            return
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(END_S):
                await process.wait()
        except TimeoutError:
            _log.warning("%s did not end in %.0f s; killed", self.name, END_S)
        self._signal(signal.SIGKILL)
        await process.wait()
        self._ready.unlink(missing_ok=True)

    def _signal(self, number: signal.Signals) -> None:
        """Signal the leader of its group, or on SIGKILL all that is left of it."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            if number is signal.SIGKILL:
                os.killpg(self._process.pid, number)
            elif self._process.returncode is None:
                self._process.send_signal(number)

    def _last_line(self) -> str:
        try:
            lines = self.log.read_text("utf-8", "replace").strip().splitlines()
        except OSError:
            return f"see {self.log}"
        return lines[-1].removeprefix("inferx: ") if lines else "without a word"


async def supervised(children: Sequence[Child]) -> None:
    """Keep children that were started, until cancelled; then end them, the last one first."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for child in children:
                tasks.create_task(child.keep(), name=child.name)
    finally:
        for child in reversed(children):
            await child.end()


def _at(command: Sequence[str], option: str, address: str) -> tuple[str, ...]:
    """Return a command with an option of it at an address."""
    at = list(command)
    at[at.index(option) + 1] = address
    return tuple(at)
