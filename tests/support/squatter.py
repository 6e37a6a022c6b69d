"""A process that keeps a pod from being ended."""

import subprocess
from pathlib import Path

__all__ = ["Squatter"]


class Squatter:
    """A process in a cgroup below a pod's: the kernel does not let the pod's go."""

    def __init__(self, name: str, number: int) -> None:
        self.folders = [
            path / "squatter"
            for path in Path("/sys/fs/cgroup").glob(f"*/{name}/pod-{number}")
            if path.is_dir()
        ]
        self.process = subprocess.Popen(["/bin/sleep", "600"])
        for folder in self.folders:
            folder.mkdir()
            (folder / "cgroup.procs").write_text(str(self.process.pid))

    def leave(self) -> None:
        self.process.kill()
        self.process.wait()
        for folder in self.folders:
            if folder.exists():
                folder.rmdir()
