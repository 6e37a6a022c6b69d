"""A node with pretended GPUs: the stand-in libraries, built, and the folder that they share.

In other processes the libraries answer where `Node.env` is in their environment. In this one, after
`enter`: a library that is loaded once is found by its name from then on, whoever asks.

In a container: mount `libraries()` read-only and the node's folder writable, both at any place, and
let STANDIN_GPUS and LD_LIBRARY_PATH name those. What a tenant holds open is `nvidiaN` of the folder
that STANDIN_DEV names; without, `dev/nvidiaN` of the node's folder where the container's device
cgroup allows `c 10:229`, and some other file that CRIU cannot dump where it does not. A dumped
tenant may come back with another pid and other mounts, as long as these two are where they were.
"""

import ctypes
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

STANDIN = Path(__file__).resolve().parent.parent / "standin"
TENANT = STANDIN / "tenant.py"
MB = 1 << 20
NAME = "NVIDIA H100 80GB HBM3"
_FUSE = os.makedev(10, 229)


def uuid(index: int) -> str:
    return f"GPU-0a1b2c3d-0000-4000-8000-{index:012x}"


def mig_uuid(index: int) -> str:
    return f"MIG-0a1b2c3d-1000-4000-8000-{index:012x}"


@functools.cache
def libraries() -> Path:
    """Return a folder with both libraries, compiled at most once for a state of their sources."""
    sources = sorted(STANDIN.glob("*.[ch]"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    folder = STANDIN.parent.parent / "build" / "standin" / digest[:16]
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent))
    flags = ("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC", "-pthread")
    for source, name in (("cuda.c", "libcuda.so.1"), ("nvml.c", "libnvidia-ml.so.1")):
        target = ("-Wl,-soname," + name, "-o", str(fresh / name))
        subprocess.run(("gcc", *flags, str(STANDIN / source), *target), check=True)
    fresh.chmod(0o755)
    try:
        fresh.rename(folder)
    except OSError:  # Another process was faster.
        shutil.rmtree(fresh)
    return folder


@dataclass(frozen=True)
class Node:
    """A folder that says which GPUs there are, and holds their memory."""

    folder: Path
    env: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def make(
        cls,
        folder: Path,
        *,
        gpus: int = 2,
        memory: int = 1024 * MB,
        context: int = 2 * MB,
        cuda: int = 13000,
        driver: str = "580.159.04",
        names: Sequence[str] = (),
        mig: Mapping[int, Sequence[tuple[str, int]]] = {},
    ) -> "Node":
        """Describe a node.

        Args:
            folder: Where; made anew.
            gpus: How many, all of one kind unless `names` says otherwise.
            memory: Of each GPU, in bytes.
            context: What a process takes of each GPU that it uses, beside what it allocates.
            cuda: The driver's CUDA version, as 1000 * major + 10 * minor.
            driver: Its own version.
            names: Names of the GPUs.
            mig: Which GPUs are in MIG mode, and profile and bytes of their devices.
        """
        for part in ("memory", "inject", "calls", "dev"):
            (folder / part).mkdir(parents=True)
        lines = [f"driver {driver} {cuda} {context}"]
        devices = 0
        for index in range(gpus):
            name = names[index] if names else NAME
            lines.append(f"gpu {uuid(index)} {memory} {int(index in mig)} {name}")
            for profile, size in mig.get(index, ()):
                lines.append(f"mig {mig_uuid(devices)} {size} {profile}")
                devices += 1
            with suppress(PermissionError):  # Not root: the tenant holds another file.
                os.mknod(folder / "dev" / f"nvidia{index}", 0o20666, _FUSE)
        (folder / "gpus").write_text("\n".join(lines) + "\n")
        path = os.environ.get("LD_LIBRARY_PATH", "")
        found = f"{libraries()}:{path}" if path else str(libraries())
        return cls(folder, {"STANDIN_GPUS": str(folder), "LD_LIBRARY_PATH": found})

    def become_another(
        self, *, gpus: int = 2, memory: int = 1024 * MB, name: str = NAME
    ) -> list[str]:
        """Be another machine at the same place: other GPUs, nothing on them; return their UUIDs."""
        uuids = [f"GPU-feedf00d-0000-4000-8000-{index:012x}" for index in range(gpus)]
        file = self.folder / "gpus"
        head = file.read_text().partition("\n")[0]
        rows = [f"gpu {one} {memory} 0 {name}" for one in uuids]
        fresh = file.with_name(".gpus")
        fresh.write_text("\n".join([head, *rows]) + "\n")
        fresh.rename(file)
        return uuids

    def inject(self, operation: str, *, pid: int = 0, delay_ms: int = 0, error: int = 0) -> Path:
        """Let an operation (of one process) wait or fail, until the returned file is removed."""
        file = self.folder / "inject" / (f"{operation}.{pid}" if pid else operation)
        begun(file).unlink(missing_ok=True)
        fresh = file.with_name(f".{file.name}")
        fresh.write_text(f"{delay_ms} {error}\n")
        fresh.rename(file)
        return file


def enter(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process's NVML be the stand-in, and its children's libraries, and tell of a node."""
    for name, value in node.env.items():
        monkeypatch.setenv(name, value)
    ctypes.CDLL(str(libraries() / "libnvidia-ml.so.1"))


@dataclass(frozen=True)
class Tenant:
    """A running `tenant.py`, or one that CRIU brought back."""

    pid: int
    port: int

    def get(self, path: str = "/state", timeout_s: float = 10.0) -> dict[str, object]:
        return self._ask(path, None, timeout_s)

    def post(self, path: str, timeout_s: float = 10.0) -> dict[str, object]:
        return self._ask(path, b"", timeout_s)

    def _ask(self, path: str, body: bytes | None, timeout_s: float) -> dict[str, object]:
        url = f"http://127.0.0.1:{self.port}{path}"
        try:
            with urllib.request.urlopen(url, body, timeout=timeout_s) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return json.loads(error.read()) | {"status": error.code}

    def rss(self) -> int:
        """Return its resident private memory, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("RssAnon:")[2].split()[0]) * 1024


@contextmanager
def tenant(
    node: Node,
    *,
    gpu_mb: int = 8,
    visible: str | None = None,
    extra: Sequence[str] = (),
    within: Sequence[str] = (),
) -> Iterator[Tenant]:
    """Start a tenant in a session of its own, and end it. Its output is a file, as CRIU likes.

    Args:
        node: Whose GPUs it sees.
        gpu_mb: What it holds of each of them.
        visible: CUDA_VISIBLE_DEVICES; None is all.
        extra: Further arguments of `tenant.py`.
        within: A command that runs it, whose pid is then told, and that ends it when it is killed.
    """
    env = os.environ | dict(node.env)
    env.pop("CUDA_VISIBLE_DEVICES", None)
    if visible is not None:
        env["CUDA_VISIBLE_DEVICES"] = visible
    script = (sys.executable, str(TENANT), "--port", "0", "--gpu-mb", str(gpu_mb), *extra)
    command = (*within, *script)
    handle, name = tempfile.mkstemp(dir=node.folder, prefix="tenant-", suffix=".out")
    with os.fdopen(handle, "r+") as output:
        process = subprocess.Popen(
            command,
            env=env,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            until(lambda: process.poll() is not None or "\n" in Path(name).read_text())
            assert process.poll() is None, f"the tenant ended: {Path(name).read_text()}"
            yield Tenant(process.pid, int(Path(name).read_text().partition("\n")[0]))
        finally:
            process.kill()
            process.wait(timeout=10)


def begun(injected: Path) -> Path:
    """Return the file that is there once an operation waits as it was told to."""
    return injected.with_name(f"{injected.name}.begun")


def until(condition: Callable[[], bool], *, timeout_s: float = 10.0) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def ended(pid: int) -> bool:
    """Whether a process is gone, or is only waited for by a parent that is not this one."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"
