"""A containerd of the study's own: its state, socket and containers are nobody else's."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_S = 20.0
STOP_S = 20.0


@contextmanager
def containerd() -> Iterator[str]:
    """Start one; yield the path of its socket.

    Raises:
        RuntimeError: It does not listen in time.
    """
    # Below /run, where the host's root file system is not: its name must be short, too.
    home = Path(tempfile.mkdtemp(prefix="restore-", dir="/run"))
    disk = Path(tempfile.mkdtemp(prefix="restore-", dir="/var/tmp"))
    address = home / "c.sock"
    config = home / "config.toml"
    config.write_text(
        f'version = 2\nroot = "{disk}"\nstate = "{home}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\naddress = "{address}"\n[ttrpc]\naddress = "{address}.ttrpc"\n'
    )
    env = dict(os.environ)
    if criu := env.get("INFERX_CRIU"):
        # Its shims look for CRIU where it does.
        env["PATH"] = f"{Path(criu).parent}:{env['PATH']}"
    log = home / "log"
    with log.open("wb") as out:
        daemon = subprocess.Popen(
            ["containerd", "-c", str(config)], env=env, stdout=out, stderr=out
        )
    try:
        until = time.monotonic() + START_S
        while not listens(address):
            if daemon.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"containerd does not listen: {log.read_text()[-400:]}")
            time.sleep(0.02)
        yield str(address)
    finally:
        daemon.terminate()
        try:
            daemon.wait(STOP_S)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        shutil.rmtree(home)
        shutil.rmtree(disk)


def listens(address: Path) -> bool:
    """Say whether somebody answers there."""
    with socket.socket(socket.AF_UNIX) as peer:
        return peer.connect_ex(str(address)) == 0
