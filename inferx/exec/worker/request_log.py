"""Which requests a worker began to serve: a line each, in a file that several workers may share.

The file is open for no longer than it takes to write a line: a snapshot of the worker holds none of
it, and what is restored elsewhere writes there.
"""

import json
import os
from pathlib import Path
from time import time_ns
from typing import Final

from inferx.exec.worker.engine import WorkerError

__all__ = ["RequestLog"]

ID_LIMIT: Final = 128
"""Characters of a request's id that are written."""


class RequestLog:
    """Appends to one file."""

    def __init__(self, path: Path) -> None:
        """Look whether it can be written.

        Raises:
            WorkerError: It cannot.
        """
        self._path = path.absolute()
        try:
            os.close(self._open())
        except OSError as error:
            raise WorkerError(f"{path}: {error.strerror}") from error

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def begun(self, model: str, request: str) -> None:
        """Write down that a request is served from now on, by its `X-Request-Id`."""
        told = {"at_ns": time_ns(), "model": model, "request": request[:ID_LIMIT]}
        line = json.dumps(told).encode() + b"\n"
        file = self._open()
        try:
            # One write that appends: lines of several workers do not mix.
            os.write(file, line)
        finally:
            os.close(file)
