"""CRIU dumps and restores our workers as they are: nothing in them is in its way."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from worker_process import LIMIT_S, worker

# Not the distribution's, which may be too old: what `tools/system-parts` unpacked.
CRIU = shutil.which(
    os.environ.get("INFERX_CRIU") or Path(__file__).parents[3] / "build" / "criu" / "criu"
)
FLAGS = ("--tcp-close", "--network-lock", "nftables", "-v2")


def criu(what, folder, *more):
    done = subprocess.run(
        [CRIU, what, "-D", folder, "-o", f"{what}.log", *FLAGS, *map(str, more)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, (folder / f"{what}.log").read_text()[-2000:]


@pytest.mark.skipif(os.geteuid() != 0, reason="CRIU needs root")
@pytest.mark.skipif(not CRIU, reason="no CRIU: neither INFERX_CRIU nor build/criu/criu")
@pytest.mark.parametrize(
    "options",
    [
        ("--weights=16MiB", "--kv=16MiB", "--seed=3"),
        ("--engine=torch", "--weights=8MiB", "--kv=16MiB", "--slots=2"),
    ],
    ids=["paced", "torch"],
)
def test_a_restored_worker_is_the_same_worker(tmp_path, options):
    images = tmp_path / "images"
    images.mkdir()
    with worker(*options, output=tmp_path / "out") as one:
        pid = one.process.pid
        text, weights = one.complete(), one.get("/checksum")
        held = one.post("/inferx/quiesce")
        criu("dump", images, "-t", pid)
        assert one.process.wait(LIMIT_S) == -signal.SIGKILL
        try:
            criu("restore", images, "-d", "--pidfile", tmp_path / "pid")
            assert int((tmp_path / "pid").read_text()) == pid
            assert one.ask("GET", "/health") == (503, {"status": "quiesced"})
            woken = one.post("/inferx/wake")
            assert one.complete() == text
            assert one.get("/checksum") == weights
            # It goes on counting where it was.
            assert woken["requests"] == held["requests"] == 1
            os.kill(pid, signal.SIGTERM)
            end = time.monotonic() + LIMIT_S
            while running(pid):
                assert time.monotonic() < end
                time.sleep(0.01)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def running(pid):
    """Whether there is such a process; one that nobody reaped yet is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
