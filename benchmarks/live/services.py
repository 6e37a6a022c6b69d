"""Services as processes of their own, and what they cost."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["service"]

START_S = 60.0


@contextmanager
def service(folder: Path, name: str, *arguments: str) -> Iterator[tuple[dict[str, Any], int]]:
    """Run a command of `inferx`; yields what its ready file tells, and its process id."""
    ready = folder / f"{name}.ready"
    command = (sys.executable, "-m", "inferx", *arguments, "--ready-file", str(ready))
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        end = time.monotonic() + START_S
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > end:
                sys.exit(f"{name}: {(folder / f'{name}.log').read_text()}")
            time.sleep(0.05)
        yield json.loads(ready.read_text()), process.pid
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
