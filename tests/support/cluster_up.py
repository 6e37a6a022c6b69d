"""`inferx up` as a process of its own, and what a client does with it."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster_objects import namespace, tenant

from inferx.exec.clock import WallClock
from inferx.exec.state.objects.actor import ADMIN
from inferx.exec.state.objects.envelope import DataObject
from inferx.exec.state.objects.objects import Objects
from inferx.exec.state.opening import open_store

__all__ = ["Up", "function", "up"]

READY_S = 60.0


def function(name: str, **inferx: Any) -> DataObject:
    """Return a function of 12 GB of GPU memory, served by a stand-in."""
    spec = {
        "image": "vllm/vllm-openai:v0.9.0",
        "commands": ["--model", name],
        "resources": {
            "CPU": 1000,
            "Mem": 24_000,
            "GPU": {"Type": "Any", "Count": 1, "vRam": 12_000},
        },
        "endpoint": {"port": 8000, "schema": "Http", "probe": "/health"},
        "policy": {"Obj": {"queue_timeout": 60.0, "parallel": 8}},
        "inferx": {"milli_gpu": 150} | inferx,
    }
    return DataObject(
        type="function", tenant="public", namespace="demo", name=name, object={"spec": spec}
    )


class Up:
    """A cluster that is up."""

    def __init__(self, process: subprocess.Popen[bytes], told: Mapping[str, Any]) -> None:
        self.process = process
        self.gateway: str = told["gateway"]
        self.key: str = told["api_key"]
        self.state: str = told["state"]
        self.folder = Path(told["folder"])
        self.processes: dict[str, int] = told["processes"]
        self.metrics: dict[str, str] = told["metrics"]

    async def apply(self, *functions: DataObject) -> None:
        """Apply functions, as the object API would."""
        store = await open_store(self.state, WallClock())
        objects = Objects(store)
        try:
            room = {"max_funccount": 100, "max_replica": 4, "max_queue_len": 1000}
            await objects.apply(tenant("public", **room), who=ADMIN)
            await objects.apply(namespace("public", "demo"), who=ADMIN)
            for one in functions:
                await objects.apply(one, who=ADMIN)
        finally:
            await store.close()

    def ask(self, name: str, *, tokens: int = 4, timeout_s: float = 90) -> tuple[int, Any]:
        """Ask a function for a completion; return the status and what was answered."""
        request = urllib.request.Request(
            f"{self.gateway}/funccall/public/demo/{name}/v1/completions",
            json.dumps({"model": name, "prompt": "hi", "max_tokens": tokens}).encode(),
            {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"{}")

    def pid(self, name: str) -> int:
        """Return a child's present process, by its log folder's command line."""
        wanted = f"{self.folder}/{name}.ready".encode()
        for path in Path("/proc").iterdir():
            if path.name.isdecimal():
                try:
                    words = (path / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if wanted in words:
                    return int(path.name)
        raise AssertionError(f"no {name}")

    @contextmanager
    def another(self, service: str, *options: str) -> Iterator[None]:
        """Run another service of a kind beside the cluster's own."""
        ready = self.folder / f"another-{service}.ready"
        command = (
            *(sys.executable, "-m", "inferx", service, "--state", self.state),
            *("--listen", "127.0.0.1:0", "--ready-file", str(ready), *options),
        )
        with (self.folder / f"another-{service}.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + READY_S
            while not ready.exists():
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(30)

    def kill(self, name: str) -> None:
        """Kill a child, as the kernel's out-of-memory killer would."""
        os.kill(self.pid(name), signal.SIGKILL)

    def until_ready(self, name: str, within_s: float) -> None:
        """Wait until a child that was killed serves again."""
        deadline = time.monotonic() + within_s
        ready = self.folder / f"{name}.ready"
        killed_ns = ready.stat().st_mtime_ns
        while not ready.exists() or ready.stat().st_mtime_ns == killed_ns:
            assert time.monotonic() < deadline, f"{name} is not started again"
            time.sleep(0.05)

    def until_answers(self, name: str, within_s: float) -> float:
        """Ask until it is answered well; return how long that took."""
        began = time.monotonic()
        while True:
            try:
                status, _ = self.ask(name, timeout_s=within_s)
            except OSError:
                status = 0
            took = time.monotonic() - began
            if status == 200:
                return took
            assert took < within_s, f"{name} is not answered after {took:.1f} s: {status}"
            time.sleep(0.1)


@contextmanager
def up(folder: Path, *options: str, gpus: str = "2x80GiB") -> Iterator[Up]:
    """Run `inferx up`, and interrupt it at the end."""
    ready = folder / "up.json"
    command = (
        *(sys.executable, "-m", "inferx", "up", "--listen", "127.0.0.1:0", "--gpus", gpus),
        *("--stand-in-workers", "--folder", str(folder / "up"), "--ready-file", str(ready)),
        *options,
    )
    log = folder / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + READY_S
        while not ready.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield Up(process, json.loads(ready.read_text()))
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    # A test may have killed it.
    assert process.returncode in {0, -signal.SIGKILL}, log.read_text()
