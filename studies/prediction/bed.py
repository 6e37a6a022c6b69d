"""A real cluster on this machine: etcd, and `inferx up` over it, both gone with the block."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["INFERX", "etcd", "missing", "up"]

INFERX = (sys.executable, "-m", "inferx")
READY_S = 60.0
END_S = 180.0


def missing() -> str:
    """Return why there can be no such cluster here; empty if there can."""
    if os.geteuid() != 0:
        return "needs root"
    lacking = [program for program in ("etcd", "ip") if not shutil.which(program)]
    if not os.access(os.environ.get("INFERX_CRIU", ""), os.X_OK):
        lacking.append("CRIU")
    return f"needs {', '.join(lacking)}: make parts" if lacking else ""


@contextmanager
def etcd(folder: Path) -> Iterator[str]:
    """Run one member on free ports; yield its endpoint."""
    client, peer = _free_port(), _free_port()
    command = [
        "etcd",
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls=http://127.0.0.1:{client}",
        f"--advertise-client-urls=http://127.0.0.1:{client}",
        f"--listen-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-cluster=default=http://127.0.0.1:{peer}",
        # Without, etcd before 3.4.31 is silent for minutes, and services take that for a loss.
        "--experimental-watch-progress-notify-interval=1s",
        "--logger=zap",
        "--log-level=warn",
    ]
    with (folder / "etcd.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _until(lambda: _answers(client), process, folder / "etcd.log")
        yield f"127.0.0.1:{client}"
    finally:
        process.terminate()
        process.wait(END_S)


@contextmanager
def up(folder: Path, *options: str) -> Iterator[Mapping[str, str]]:
    """Run `inferx up`; yield where its gateway is, its folder, and a client's environment."""
    ready, log = folder / "up.json", folder / "up.log"
    command = (
        *(*INFERX, "up", "--listen", "127.0.0.1:0", "--folder", str(folder / "up")),
        *("--ready-file", str(ready), *options),
    )
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        _until(ready.exists, process, log)
        yield json.loads(ready.read_text())
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(END_S)


def run(command: Sequence[str], env: Mapping[str, str]) -> None:
    """Run a command to its end; what it says is printed.

    Raises:
        CalledProcessError: It failed.
    """
    subprocess.run([*command], check=True, env={**os.environ, **env})


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def _until(so, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while not so():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args[0]} is not up: {log.read_text()[-500:]}")
        time.sleep(0.05)
