"""The gateway of a cluster that is up, beside nginx and beside no proxy.

    python -m benchmarks.live.gateway [--rounds 3] [--seconds 4] [--memory-minutes 10]

Needs root, nginx and wrk. `inferx up` runs with everything that it runs with: identity, the
scheduler, the object API. Two functions serve, each on a pod of its own by its own command: an
nginx that answers small JSON, and 200 tokens as events. The gateway is asked for them by their
`/funccall` paths with an API key, nginx is a plain reverse proxy to the same pods, and no proxy is
wrk at the pod itself; all in each round, in turn.

The gateway and nginx run on one core, everything else on the other. The rate is requests by CPU
second of the proxy: what one core could do, whatever wrk and the pod leave of the machine. Last,
the gateway is kept busy for some minutes, and its memory is looked at every second.

Writes docs/results/data/gateway-live.json and docs/results/control-plane.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

from benchmarks.about import DATA, ROOT, about, needs
from benchmarks.gateway.load import LOADS, SCRIPT, loaded
from benchmarks.gateway.servers import (
    OTHER_CPU,
    OWN_CPU,
    family,
    free_port,
    nginx_answers,
    nginx_proxies,
    rss_mib,
    running,
)
from benchmarks.live.document import write_document
from benchmarks.live.services import service

RESULT = DATA / "gateway-live.json"
UPSTREAM = ROOT / "benchmarks" / "gateway" / "upstream.py"
PORT = 8000
WAKE_S = 90.0
BUSY = 16
"""Connections while memory is looked at."""


def functions(folder: Path) -> dict[str, list[str]]:
    """Return what serves each load, as the command of a pod."""
    everywhere = "0.0.0.0"
    return {
        "json": nginx_answers(PORT, folder / "answers", host=everywhere),
        "sse": [sys.executable, str(UPSTREAM), str(PORT), everywhere],
    }


def apply(name: str, command: list[str], folder: Path, env: dict[str, str]) -> None:
    """Have a function known."""
    spec = {
        "entrypoint": command[:1],
        "commands": command[1:],
        "resources": {"CPU": 1000, "Mem": 512, "GPU": {"Type": "Any", "Count": 1, "vRam": 1000}},
        "endpoint": {"port": PORT, "schema": "Http", "probe": "/health"},
        "policy": {"Obj": {"parallel": 1024, "min_replica": 1, "queue_len": 1024}},
    }
    told = {
        "type": "function",
        "tenant": "public",
        "namespace": "demo",
        "name": name,
        "object": {"spec": spec},
    }
    file = folder / f"{name}.json"
    file.write_text(json.dumps(told))
    line = [sys.executable, "-m", "inferx", "apply", "-f", str(file)]
    subprocess.run(line, check=True, env={**os.environ, **env}, stdout=subprocess.DEVNULL)


def path_of(name: str, path: str) -> str:
    """Return where a function is asked for a path."""
    return f"/funccall/public/demo/{name}{path}"


def warm(gateway: str, name: str, key: str) -> str:
    """Have a pod started; return its address."""
    head = {"Authorization": f"Bearer {key}"}
    ask = urllib.request.Request(f"{gateway}{path_of(name, '/health')}", headers=head)
    urllib.request.urlopen(ask, timeout=WAKE_S).read()
    view = urllib.request.Request(f"{gateway}/view/", headers=head)
    # A view may be the one that another caller was just given.
    while True:
        for pod in json.load(urllib.request.urlopen(view, timeout=WAKE_S))["pods"]:
            if f"/{name}@" in f"/{pod['function']}":
                return str(pod["address"])
        time.sleep(0.1)


def pin(pid: int, cpu: str) -> None:
    """Keep a process and its descendants on one core."""
    for one in family(pid):
        subprocess.run(
            ["taskset", "-a", "-p", "-c", cpu, str(one)], check=True, stdout=subprocess.DEVNULL
        )


def memory(host: str, path: str, pid: int, minutes: float) -> list[float]:
    """Keep a server busy, and return its resident MiB each second."""
    seconds = int(60 * minutes)
    line = ["taskset", "-c", OTHER_CPU, "wrk", "-t1", f"-c{BUSY}", f"-d{seconds}s"]
    line += ["-s", str(SCRIPT), f"http://{host}{path}"]
    found: list[float] = []
    busy = subprocess.Popen(line, stdout=subprocess.DEVNULL)
    while busy.poll() is None:
        found.append(round(rss_mib(pid), 1))
        time.sleep(1)
    return found


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all of them in turn, over one cluster."""
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        up = ("up", "--gpus", "1x80GiB", "--folder", str(folder / "up"), "--listen", "127.0.0.1:0")
        told, pid = stack.enter_context(service(folder, "up", *up))
        gateway, key = told["gateway"], told["api_key"]
        env = {"INFERX_SERVER": gateway, "INFERX_API_KEY": key}
        os.environ["INFERX_API_KEY"] = key  # For wrk's script: not in argv.
        pods = {}
        for name, command in functions(folder).items():
            apply(name, command, folder, env)
            pods[name] = warm(gateway, name, key)
        pin(pid, OTHER_CPU)
        own = told["processes"]["gateway"]
        pin(own, OWN_CPU)
        at = gateway.removeprefix("http://")
        for number in range(options.rounds):
            for kind, load in LOADS.items():
                port = free_port()
                nginx = nginx_proxies(port, pods[kind], folder / f"nginx-{number}-{kind}")
                targets = {
                    "no proxy": (nullcontext(0), (pods[kind], "")),
                    "nginx": (running(nginx, port, OWN_CPU), (f"127.0.0.1:{port}", "")),
                    "gateway": (nullcontext(own), (at, path_of(kind, ""))),
                }
                for name, (about_it, (host, prefix)) in targets.items():
                    with about_it as costs:
                        found = loaded(host, costs, load, options.seconds, prefix=prefix)
                    runs.append({"round": number, "load": kind, "name": name, **found})
                    print(
                        f"{number} {kind} {name}: {found['requests_per_s']:,.0f}/s, "
                        f"{found['requests_per_cpu_s'] or 0:,.0f} per CPU s, calm p50 "
                        f"{found['calm']['p50_us']} p99 {found['calm']['p99_us']} us, failed "
                        f"{found['busy']['failed'] + found['calm']['failed']}",
                        flush=True,
                    )
        path = path_of("json", LOADS["json"]["busy"][1])
        looked = memory(at, path, own, options.memory_minutes)
    return {"runs": runs, "memory_mib": looked, "memory_minutes": options.memory_minutes}


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live.gateway")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--memory-minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    needs("nginx", "wrk")
    version = subprocess.run(["nginx", "-v"], check=True, capture_output=True, text=True).stderr
    found = measure(options)
    told = {**about("benchmarks.live.gateway", seed=None), "nginx": version.strip(), **found}
    options.out.write_text(json.dumps(told, indent=1) + "\n")
    if options.out == RESULT:
        write_document()


if __name__ == "__main__":
    main()
