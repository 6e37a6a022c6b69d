"""A process with GPU state, and CRIU: it refuses before a checkpoint, and carries it after.

The order is NVIDIA's: lock and checkpoint, dump, restore, restore and unlock. CRIU is run by itself
here; that adapters keep the order is tested with them.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from standin_gpus import MB, Node, Tenant, ended, enter, tenant, until, uuid

from inferx.exec.agent.gpus.device import CudaCheckpointer, gpu_files
from inferx.exec.agent.gpus.nvml import NvmlInventory

CRIU = os.environ.get("INFERX_CRIU") or shutil.which("criu")
OPTIONS = ("--tcp-close", "--network-lock", "skip")

pytestmark = pytest.mark.skipif(
    CRIU is None or os.geteuid() != 0, reason="needs root and CRIU 4.2 or newer (INFERX_CRIU)"
)


def dump(pid: int, into: Path) -> subprocess.CompletedProcess[str]:
    into.mkdir()
    command = (str(CRIU), "dump", "--tree", str(pid), "--images-dir", str(into), *OPTIONS)
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@contextmanager
def restored(pod: Tenant, source: Path) -> Iterator[Tenant]:
    """Bring a process back, as a child of CRIU's that ends when it does."""
    command = (
        str(CRIU),
        "restore",
        "--images-dir",
        str(source),
        *OPTIONS,
        "--log-file",
        "restore.log",
    )
    with (source / "output").open("w") as output:
        criu = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        until(lambda: criu.poll() is not None or answers(pod))
        assert criu.poll() is None, (source / "restore.log").read_text()[-2000:]
        yield pod
    finally:
        if criu.poll() is None:
            os.kill(pod.pid, 9)
        criu.wait(10)


def answers(pod: Tenant) -> bool:
    try:
        pod.get("/count", 0.5)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("api", ["bindings", "ctypes"])
def test_a_process_with_gpu_state_is_dumped_only_when_checkpointed(tmp_path, monkeypatch, api):
    node = Node.make(tmp_path / "node", gpus=2, memory=64 * MB, context=2 * MB)
    enter(node, monkeypatch)
    device, inventory = CudaCheckpointer(), NvmlInventory()
    with tenant(node, gpu_mb=16, visible="0", extra=("--api", api, "--host-mb", "4")) as pod:
        before = pod.get()

        refused = dump(pod.pid, tmp_path / "refused")
        assert refused.returncode != 0
        assert "Can't dump file" in refused.stderr, refused
        assert pod.get()["gpu_crcs"] == before["gpu_crcs"], "it goes on as if nothing had happened"

        device.lock(pod.pid, timeout_s=5)
        device.checkpoint(pod.pid, timeout_s=5)
        assert gpu_files(pod.pid) == ()
        dumped = dump(pod.pid, tmp_path / "images")
        assert dumped.returncode == 0, dumped
        size = sum(file.stat().st_size for file in (tmp_path / "images").glob("pages-*.img"))
        assert size > 20 * MB, "device memory is in the images"
        until(lambda: ended(pod.pid))
        assert inventory.processes() == ()
        reap(pod.pid)

        with restored(pod, tmp_path / "images"):
            assert device.state(pod.pid).name == "checkpointed"
            assert inventory.gpus()[1].memory_used == 0
            other = {uuid(0): uuid(1), uuid(1): uuid(0)}
            device.restore(pod.pid, gpu_map=other, timeout_s=5)
            device.unlock(pod.pid, timeout_s=5)
            after = pod.get()
            assert inventory.gpus()[1].memory_used == 18 * MB
            assert [held.pid for held in inventory.processes()] == [pod.pid]
            assert (after["gpu_crcs"], after["host_crc"]) == (
                before["gpu_crcs"],
                before["host_crc"],
            )
            assert after["gpus"] == [uuid(1)]
            assert after["counter"] > before["counter"]
    device.close()
    inventory.close()


def reap(pid: int) -> None:
    """Wait for a dumped child, whose number must be free before it can come back."""
    deadline = time.monotonic() + 5
    while os.waitpid(pid, os.WNOHANG)[0] != pid:
        assert time.monotonic() < deadline
        time.sleep(0.005)
