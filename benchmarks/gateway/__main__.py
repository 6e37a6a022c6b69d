"""Measures HTTP servers and clients as a streaming reverse proxy on one core.

    python -m pip install -r benchmarks/gateway/requirements.txt    (and nginx, wrk from Debian)
    python -m benchmarks.gateway [--rounds 3] [--seconds 3]

Writes docs/results/data/gateway-http.json and docs/results/gateway.md. All are measured in every
round, in turn, by the same load from wrk. Proxies run alone on one core; load and upstream share
the other. The rate on one core is requests by CPU second of the proxy: other work on the machine
changes it less than it changes requests by the clock.
Latencies are of few connections, without queueing, and told beside those without a proxy.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.about import needs, processor
from benchmarks.gateway.document import write_document
from benchmarks.gateway.load import LOADS, loaded
from benchmarks.gateway.servers import (
    CANDIDATES,
    OTHER_CPU,
    OWN_CPU,
    PYTHON,
    ROOT,
    free_port,
    nginx_answers,
    nginx_proxies,
    running,
)

RESULT = ROOT / "docs" / "results" / "data" / "gateway-http.json"
PACKAGES = (
    "aiohttp",
    "uvloop",
    "httptools",
    "uvicorn",
    "httpx",
    "httpcore",
    "granian",
    "hypercorn",
)


def measure(command: list[str] | None, port: int, upstream: str, load: dict, seconds: int) -> dict:
    """Measure one proxy under one load; None is no proxy."""
    target = upstream if command is None else f"127.0.0.1:{port}"
    about_it = (
        nullcontext(0) if command is None else running(command, port, OWN_CPU, UPSTREAM=upstream)
    )
    with about_it as pid:
        return loaded(target, pid, load, seconds)


def only(commands: dict, names: str) -> dict:
    """Leave what was asked for."""
    return {name: one for name, one in commands.items() if not names or re.search(names, name)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--only", default="", help="a regular expression of names")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    needs("nginx", "wrk")
    rounds: list[dict] = []
    with tempfile.TemporaryDirectory() as scratch:
        ports = {"json": free_port(), "sse": free_port()}
        answering = nginx_answers(ports["json"], Path(scratch) / "answers")
        streaming = [PYTHON, "-m", "benchmarks.gateway.upstream", str(ports["sse"])]
        with (
            running(answering, ports["json"], OTHER_CPU),
            running(streaming, ports["sse"], OTHER_CPU),
        ):
            for number in range(options.rounds):
                for kind, load in LOADS.items():
                    upstream = f"127.0.0.1:{ports[kind]}"
                    port = free_port()
                    folder = Path(scratch) / f"nginx-{number}-{kind}"
                    commands: dict[str, list[str] | None] = {
                        "no proxy": None,
                        "nginx": nginx_proxies(port, upstream, folder),
                    }
                    for name, line in CANDIDATES.items():
                        commands[name] = [PYTHON, *line.format(port=port).split()]
                    for name, command in only(commands, options.only).items():
                        found = measure(command, port, upstream, load, options.seconds)
                        rounds.append({"round": number, "load": kind, "name": name, **found})
                        print(
                            f"{number} {kind} {name}: {found['requests_per_s']:,.0f}/s, "
                            f"{found['requests_per_cpu_s'] or 0:,.0f} per CPU s, calm p50 "
                            f"{found['calm']['p50_us']} p99 {found['calm']['p99_us']} us, "
                            f"{found['rss_mib'] or 0:.0f} MiB, failed "
                            f"{found['busy']['failed'] + found['calm']['failed']}",
                            file=sys.stderr,
                            flush=True,
                        )
    git = ["git", "rev-parse", "HEAD"]
    nginx = subprocess.run(["nginx", "-v"], check=True, capture_output=True, text=True).stderr
    about = {
        "command": " ".join(["python", "-m", "benchmarks.gateway", *sys.argv[1:]]),
        "commit": subprocess.check_output(git, cwd=ROOT, text=True).strip(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{processor()}, {os.cpu_count()} CPUs, Linux {platform.release()}",
        "load_average": os.getloadavg(),
        "seed": None,
        "versions": {
            "python": platform.python_version(),
            "nginx": nginx.strip().rpartition("/")[2],
            **{name: version(name) for name in PACKAGES},
        },
        "loads": LOADS,
    }
    found = {**about, "runs": rounds}
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    if options.out == RESULT:
        write_document(found)


if __name__ == "__main__":
    main()
