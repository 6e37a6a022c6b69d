"""Which GPU files a process has open: none, before its memory can be dumped."""

import re
from pathlib import Path

from inferx.exec.agent.ports import AgentError

__all__ = ["gpu_files"]

_GPU_FILE = re.compile(r"nvidia(\d+|ctl|-.*)")


def gpu_files(pid: int) -> tuple[str, ...]:
    """Return the device files of GPUs that a process has open or mapped, sorted.

    A checkpoint that did nothing is told by them: the dump that follows would fail, or be small.
    A process that is gone has none.

    Raises:
        AgentError: Phase `device-files`: they may not be read.
    """
    found = set[str]()
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                found.add(str(entry.readlink()))
            except FileNotFoundError:  # Closed since.
                continue
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            fields = line.split(None, 5)
            if len(fields) > 5:
                found.add(fields[5])
    except (FileNotFoundError, ProcessLookupError):
        return ()
    except PermissionError as error:
        raise AgentError(
            f"open files of process {pid}: {error.strerror}; the agent must be root",
            phase="device-files",
        ) from error
    return tuple(
        sorted(path for path in found if "/dev/" in path and _GPU_FILE.fullmatch(Path(path).name))
    )
