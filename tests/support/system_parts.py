"""Real containerd, runc, CRIU and network namespaces for tests, and why some lack."""

import ctypes
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

__all__ = [
    "SERVER",
    "ask",
    "can_connect_tcp",
    "cgroup_folders",
    "children",
    "command_of",
    "containerd",
    "conversation",
    "criu_folder",
    "free_port",
    "missing_parts",
    "network",
    "processes",
    "remove_cgroup",
    "remove_runtime_state",
    "until",
]

SERVER = Path(__file__).with_name("container_server.py")

ROOT = Path(__file__).parents[2]

T = TypeVar("T")

CLONE_NEWNET = 0x40000000


def criu_folder() -> Path | None:
    """Return the folder of a CRIU that works here: named, built by tools/system-parts, or none."""
    for path in (os.environ.get("INFERX_CRIU", ""), str(ROOT / "build/criu/criu")):
        if path and os.access(path, os.X_OK):
            return Path(path).parent
    return None


def missing_parts(*programs: str) -> str:
    """Return why tests of real containers cannot run here; empty if they can."""
    if os.geteuid() != 0:
        return "needs root"
    lacking = [program for program in programs if not shutil.which(program)]
    if lacking:
        return f"needs {', '.join(lacking)}: run tools/system-parts"
    return "" if criu_folder() else "needs CRIU 4.2 or newer: run tools/system-parts"


def until(condition: Callable[[], object], *, within_s: float = 10.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, f"not so within {within_s} s"
        time.sleep(0.01)


@contextmanager
def containerd(folder: Path, *, criu: Path | None = None) -> Iterator[tuple[int, str]]:
    """Start a containerd of our own; yields its pid and the path of its socket."""
    folder.mkdir(parents=True, exist_ok=True)
    # A socket's path has 107 characters at most, and a test's folder may be long.
    run = Path(f"/run/t-{secrets.token_hex(4)}")
    run.mkdir(mode=0o700)
    address = run / "c.sock"
    config = folder / "config.toml"
    config.write_text(
        f'version = 2\nroot = "{folder}/root"\nstate = "{run}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\naddress = "{address}"\n[ttrpc]\naddress = "{address}.ttrpc"\n'
    )
    found = criu or criu_folder()
    env = dict(os.environ)
    env["PATH"] = f"{found}:{env['PATH']}"
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(
            ["containerd", "-c", str(config)], env=env, stdout=log, stderr=log
        )
    try:
        until(lambda: daemon.poll() is not None or can_connect(address))
        assert daemon.poll() is None, (folder / "log").read_text()
        yield daemon.pid, str(address)
    finally:
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(timeout=10)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        shutil.rmtree(run)


def can_connect(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as peer:
        return peer.connect_ex(str(path)) == 0


def can_connect_tcp(port: int) -> bool:
    with socket.socket() as peer:
        return peer.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def network() -> Iterator[str]:
    """Make a network namespace with loopback; yields its path."""
    name = f"t-{secrets.token_hex(4)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield f"/run/netns/{name}"
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def inside(namespace: str, action: Callable[[], T]) -> T:
    """Do something in a network namespace; the empty one is ours."""

    def run() -> T:
        if namespace:
            with Path(namespace).open() as file:
                libc = ctypes.CDLL(None, use_errno=True)
                assert libc.setns(file.fileno(), CLONE_NEWNET) == 0
        return action()

    # A network namespace is a thread's: this one ends with its thread.
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(run).result()


def ask(port: int, path: str = "/", *, namespace: str = "", within_s: float = 15.0) -> Any:
    """Ask a pod, in its network namespace, until it answers."""

    def run() -> Any:
        end = time.monotonic() + within_s
        while True:
            try:
                return ask_once(port, path)
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.003)

    return inside(namespace, run)


def ask_once(port: int, path: str, *, timeout_s: float = 10.0) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


@contextmanager
def conversation(port: int, *, namespace: str = "") -> Iterator[Callable[[], int]]:
    """Open one connection; yields what asks over it, and never over another."""
    connection = inside(
        namespace, lambda: socket.create_connection(("127.0.0.1", port), timeout=10)
    )
    try:

        def talk() -> int:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: pod\r\n\r\n")
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            return json.loads(answer.read())["asked"]

        yield talk
    finally:
        connection.close()


def remove_runtime_state(namespace: str) -> None:
    """Remove the empty folder that runc's shims leave for a namespace of containerd."""
    with suppress(FileNotFoundError):
        Path(f"/run/containerd/runc/{namespace}").rmdir()


def remove_cgroup(name: str) -> None:
    """Remove an empty parent of pods' cgroups from every hierarchy."""
    for folder in Path("/sys/fs/cgroup").glob(f"*/{name}"):
        folder.rmdir()
    if (alone := Path("/sys/fs/cgroup") / name).exists():
        alone.rmdir()


def cgroup_folders(cgroup: str) -> list[Path]:
    """Return where a cgroup is there."""
    name = cgroup.strip("/")
    found = [*Path("/sys/fs/cgroup").glob(f"*/{name}"), Path("/sys/fs/cgroup") / name]
    return [folder for folder in found if folder.exists()]


def processes(*words: str) -> list[int]:
    """Return the processes whose command lines hold all of these words."""
    found: list[int] = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        with suppress(OSError):
            line = command_of(int(folder.name))
            if all(word in line for word in words):
                found.append(int(folder.name))
    return found


def command_of(pid: int) -> str:
    """Return a process's command line; empty if it is not there."""
    with suppress(OSError):
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        return line.replace(b"\0", b" ").decode(errors="replace")
    return ""


def children(pid: int) -> list[int]:
    """Return the processes that a process started, as far as they are there."""
    with suppress(OSError):
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return []
