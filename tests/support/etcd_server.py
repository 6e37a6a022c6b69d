"""Real etcd for tests: one member or several, on ports that the kernel chose."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from system_parts import can_connect_tcp, free_port, until

__all__ = ["Member", "cluster", "etcdctl", "missing_etcd"]

TOKEN = "t"
FAST = (
    # The least lease lasts 1.5 elections.
    "--heartbeat-interval=20",
    "--election-timeout=200",
    "--experimental-watch-progress-notify-interval=100ms",
    "--logger=zap",
    "--log-level=warn",
)


def missing_etcd() -> str:
    """Return why tests of a real etcd cannot run here; empty if they can."""
    lacking = [program for program in ("etcd", "etcdctl") if not shutil.which(program)]
    return f"needs {', '.join(lacking)}: run tools/system-parts" if lacking else ""


@dataclass
class Member:
    """A process of etcd, which can be killed and started again on the same ports."""

    command: list[str]
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)

    def await_up(self) -> None:
        def up() -> bool:
            assert self.process
            assert self.process.poll() is None, (self.folder / "log").read_text()
            return can_connect_tcp(self.port)

        until(up, within_s=30.0)

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self.process:
            self.process.send_signal(how)
            self.process.wait(timeout=20)
            self.process = None


@contextmanager
def cluster(
    size: int = 1, *, arguments: Sequence[str] = (), tls: bool = False
) -> Iterator[list[Member]]:
    """Run a cluster, whose files are in memory where they can be."""
    scheme = "https" if tls else "http"
    names = [f"m{number}" for number in range(size)]
    peers = [f"http://127.0.0.1:{free_port()}" for _ in names]
    everybody = ",".join(f"{name}={peer}" for name, peer in zip(names, peers, strict=True))
    shm = Path("/dev/shm")
    with ExitStack() as stack:
        base = shm if os.access(shm, os.W_OK) else None
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=base)))
        members: list[Member] = []
        for name, peer in zip(names, peers, strict=True):
            port = free_port()
            own = folder / name
            own.mkdir()
            command = [
                "etcd",
                f"--name={name}",
                f"--data-dir={own}/data",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster={everybody}",
                f"--initial-cluster-token={folder.name}",
                f"--listen-client-urls={scheme}://127.0.0.1:{port}",
                f"--advertise-client-urls={scheme}://127.0.0.1:{port}",
                *FAST,
                *arguments,
            ]
            members.append(Member(command, own, port))
        for member in members:
            stack.callback(member.stop)
            member.start()
        for member in members:
            member.await_up()
        if not tls:
            until(lambda: healthy(members), within_s=30.0)
        yield members


def healthy(members: list[Member]) -> bool:
    endpoints = ",".join(member.endpoint for member in members)
    ran = subprocess.run(
        ["etcdctl", f"--endpoints={endpoints}", "endpoint", "health"],
        capture_output=True,
        check=False,
        timeout=30,
    )
    return ran.returncode == 0


def etcdctl(member: Member, *words: str) -> str:
    """Run etcd's own command line against a member."""
    ran = subprocess.run(
        ["etcdctl", f"--endpoints={member.endpoint}", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
