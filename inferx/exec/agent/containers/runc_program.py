"""Runs the runc program: with a state folder, a deadline, and errors in one line."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path

from inferx.exec.agent.ports import AgentError

__all__ = ["RuncProgram"]

ERROR_CHARACTERS = 400


class RuncProgram:
    """runc, as one agent uses it."""

    def __init__(self, state: Path, *, name: str, criu: str, within_s: float) -> None:
        """Say where it keeps its state, which programs to use, and how long it may take."""
        self._state = state
        self._name = name
        self._criu = criu
        self._within_s = within_s

    def run(self, verb: str, *words: str, phase: str, output: int = subprocess.DEVNULL) -> str:
        """Run runc and return what it told.

        Args:
            verb: Its command.
            words: Arguments of the command.
            phase: For errors.
            output: Where a container's output goes: it gets runc's own.

        Raises:
            AgentError: runc cannot be run, did not end in time, or refused.
        """
        # Its log is a file: a detached container holds runc's output open.
        log = self._state / f"log-{verb}-{words[-1]}-{os.getpid()}-{threading.get_ident()}"
        env = dict(os.environ)
        if criu := shutil.which(self._criu):
            env["PATH"] = f"{Path(criu).parent}:{env.get('PATH', '')}"
        command = [
            self._name,
            "--root",
            str(self._state / "runc"),
            "--log",
            str(log),
            "--log-format",
            "json",
        ]
        told = subprocess.PIPE if verb == "state" else output
        try:
            ended = subprocess.run(
                [*command, verb, *words],
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=output,
                timeout=self._within_s,
                check=False,
                env=env,
            )
            if ended.returncode != 0:
                why = _last_message(log) or f"code {ended.returncode}"
                raise AgentError(f"runc {verb} {words[-1]}: {why}", phase=phase)
        except subprocess.TimeoutExpired as error:
            raise AgentError(f"runc {verb} {words[-1]} did not end in time", phase=phase) from error
        except OSError as error:
            raise AgentError(f"{self._name} cannot be run: {error}", phase=phase) from error
        finally:
            log.unlink(missing_ok=True)
        return (ended.stdout or b"").decode()

    def end(self, pod: str) -> None:
        """Kill what an agent that is gone, or another thread, still has runc do with a pod."""
        mine = {"--root", str(self._state / "runc"), pod}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                    if mine <= set(words) and int(entry.name) != os.getpid():
                        os.kill(int(entry.name), signal.SIGKILL)


def _last_message(log: Path) -> str:
    """Return what runc wrote last into its log: the error that it ended with."""
    with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
        message = str(json.loads(log.read_text().splitlines()[-1])["msg"])
        return " ".join(message.split())[-ERROR_CHARACTERS:]
    return ""
