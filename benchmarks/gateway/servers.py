"""Starts what is measured, each on one core, and reads what it costs."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sys.executable
OWN_CPU, OTHER_CPU = "0", "1"
"""Where the proxy runs, and where load generator and upstream do."""
START_S = 20.0
TICKS = os.sysconf("SC_CLK_TCK")

_ASGI = "benchmarks.gateway.asgi"
_UVICORN = f"-m uvicorn --http httptools --loop uvloop --no-access-log --log-level error {_ASGI}"
_GRANIAN = f"-m granian --interface asgi --loop uvloop --workers 1 --log-level error {_ASGI}"
_HYPERCORN = f"-m hypercorn -k uvloop --log-level error {_ASGI}"
CANDIDATES = {
    "aiohttp, aiohttp": "-m benchmarks.gateway.aiohttp_pair {port}",
    "uvicorn, aiohttp": _UVICORN + ":aiohttp_app --port {port}",
    "uvicorn, httpx": _UVICORN + ":httpx_app --port {port}",
    "uvicorn, httpcore": _UVICORN + ":httpcore_app --port {port}",
    "granian, aiohttp": _GRANIAN + ":aiohttp_app --port {port}",
    "hypercorn, aiohttp": _HYPERCORN + ":aiohttp_app --bind 127.0.0.1:{port}",
    "protocols, httptools, asyncio": "-m benchmarks.gateway.bare {port} --asyncio",
    "protocols, httptools, uvloop": "-m benchmarks.gateway.bare {port}",
    "this gateway": "-m benchmarks.gateway.whole {port}",
}

_NGINX = """
worker_processes 1; daemon off; pid {folder}/pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000;
  client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  {body}
}}
"""
_ANSWER = (
    '{"id":"chatcmpl-0","object":"chat.completion","model":"tiny","choices":[{"index":0,'
    '"message":{"role":"assistant","content":"Good day."},"finish_reason":"stop"}],'
    '"usage":{"prompt_tokens":12,"completion_tokens":3}}'
)
_ANSWERING = """
  server {{ listen {host}:{port} backlog=1024;
    location / {{ default_type application/json;
      return 200 '{answer}'; }} }}
"""
_PROXYING = """
  upstream pod {{ server {upstream}; keepalive 256; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{port} backlog=1024;
    location / {{ proxy_pass http://pod; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_request_buffering off; }} }}
"""


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def running(command: list[str], port: int, cpu: str, **env: str) -> Iterator[int]:
    """Run a server until left; yields its process id once it listens."""
    process = subprocess.Popen(
        ["taskset", "-c", cpu, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        # Those who are cut off when a load ends complain at length; failures are counted by wrk.
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, command
                assert time.monotonic() < end, command
                time.sleep(0.02)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def nginx_answers(port: int, folder: Path, *, host: str = "127.0.0.1") -> list[str]:
    """Return the command of an nginx that answers small JSON."""
    return _nginx(folder, _ANSWERING.format(host=host, port=port, answer=_ANSWER))


def nginx_proxies(port: int, upstream: str, folder: Path) -> list[str]:
    """Return the command of an nginx that forwards, without buffering."""
    return _nginx(folder, _PROXYING.format(port=port, upstream=upstream))


def _nginx(folder: Path, body: str) -> list[str]:
    folder.mkdir()
    file = folder / "nginx.conf"
    file.write_text(_NGINX.format(folder=folder, body=body))
    return ["nginx", "-c", str(file), "-p", str(folder), "-e", "stderr"]


def family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def cpu_s(pid: int) -> float:
    """Return what a process and its descendants have computed, in seconds."""
    ticks = 0
    for one in family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process and its descendants."""
    pages = sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in family(pid))
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
