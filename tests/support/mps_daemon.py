"""A process by the name of the MPS control daemon, with its file: it is there, and does nothing."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NAME = "nvidia-cuda-mps-control"


@contextmanager
def mps_daemon(pipes: Path) -> Iterator[None]:
    """Run it; its file stays after it, as that of a daemon that died."""
    program = Path(shutil.copy("/bin/sleep", pipes / _NAME))
    process = subprocess.Popen([str(program), "600"])
    try:
        (pipes / f"{_NAME}.pid").write_text(f"{process.pid}\n")
        yield
    finally:
        process.kill()
        process.wait()
