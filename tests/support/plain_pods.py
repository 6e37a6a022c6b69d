"""Pods of plain processes to test with: a sandbox that leaves no traces, and a client."""

import contextlib
import ctypes
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferx.exec.agent.ports import AgentError, Launch, PodSpec
from inferx.exec.agent.processes import criu_probe, procfs
from inferx.exec.agent.processes.cgroup import Cgroups
from inferx.exec.agent.processes.process import ProcessSandbox

SERVER = Path(__file__).with_name("memory_server.py")
PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWNET = 0x40000000

needs_root = pytest.mark.skipif(
    not (procfs.may_administer() and Cgroups().version), reason="needs root and cgroups"
)
needs_criu = pytest.mark.skipif(not criu_probe.find_criu(), reason="needs CRIU")


@contextlib.contextmanager
def sandbox_in(folder: Path, *, contained: bool = True) -> Iterator[ProcessSandbox]:
    cgroups = Cgroups(f"inferx-test-{uuid.uuid4().hex[:10]}")
    sandbox = ProcessSandbox(folder / "state", cgroups, contained=contained)
    try:
        yield sandbox
    finally:
        errors = []
        for pod in sandbox.traces():
            try:
                sandbox.stop(pod)
            except AgentError as error:
                errors.append(error)
        drop_parent(cgroups)
        # Orphans of other tests are not for us to collect.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        assert not errors


def drop_parent(cgroups: Cgroups) -> None:
    for base in cgroups._hierarchies():
        if base.is_dir():
            base.rmdir()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def spec_of(
    folder: Path, pod: str, *command: str, env: dict[str, str] | None = None, **launch: object
) -> PodSpec:
    network = str(launch.pop("network", ""))
    return PodSpec(
        pod=pod,
        network=network,
        folder=folder / pod,
        launch=Launch(
            function="t/n/f@1", command=command, env=tuple((env or {}).items()), **launch
        ),
    )


def server_spec(folder: Path, pod: str, mebibytes: int, port: int, **more: object) -> PodSpec:
    command = (sys.executable, str(SERVER), str(mebibytes))
    return spec_of(folder, pod, *command, port=port, **more)


def under(spec: PodSpec, folder: Path, pod: str, network: str = "") -> PodSpec:
    return PodSpec(pod=pod, network=network, folder=folder / pod, launch=spec.launch)


def ask(spec: PodSpec, path: str = "/sum", within_s: float = 10.0) -> dict:
    """One answer, on a connection of its own, from the pod's network namespace."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            with contextlib.closing(connect(spec)) as client:
                return get(client, path)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def connect(spec: PodSpec) -> http.client.HTTPConnection:
    client = http.client.HTTPConnection("127.0.0.1", spec.launch.port, timeout=10)
    if not spec.network:
        client.connect()
        return client
    failed: list[Exception] = []

    def inside() -> None:
        # A socket is of the namespace that it was made in, whoever uses it.
        try:
            with Path(spec.network).open() as file:
                assert ctypes.CDLL(None).setns(file.fileno(), CLONE_NEWNET) == 0
            client.connect()
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return client


def get(client: http.client.HTTPConnection, path: str = "/sum") -> dict:
    client.request("GET", path)
    with client.getresponse() as answer:
        return json.loads(answer.read())


def wait_for(holds, within_s: float = 10.0, what: str = "") -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, what or holds
        time.sleep(0.005)


began_ticks = 0
"""When the present test began, since boot: what earlier ones left may die during it."""


def boot_ticks() -> int:
    """The present instant as the kernel counts the starts of processes."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def zombies() -> list[int]:
    """Ended processes that are still our children, and began with this test."""
    return [
        pid
        for pid in procfs.children(os.getpid())
        if not procfs.started(pid) and procfs.started(pid, zombies=True) >= max(began_ticks, 1)
    ]


@contextlib.contextmanager
def networks(count: int) -> Iterator[list[str]]:
    """Network namespaces with a loopback interface that is up."""
    ip = shutil.which("ip")
    assert ip
    names = [f"inferx-{uuid.uuid4().hex[:10]}" for _ in range(count)]
    try:
        for name in names:
            subprocess.run([ip, "netns", "add", name], check=True)
            subprocess.run([ip, "-n", name, "link", "set", "lo", "up"], check=True)
        yield [f"/run/netns/{name}" for name in names]
    finally:
        for name in names:
            subprocess.run([ip, "netns", "del", name], check=False)
