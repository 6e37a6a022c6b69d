"""Loads a server with wrk, and says what that cost it."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.gateway.servers import OTHER_CPU, cpu_s, rss_mib

__all__ = ["LOADS", "SCRIPT", "loaded", "wrk"]

SCRIPT = Path(__file__).with_name("load.lua")
LOADS = {
    "json": {"busy": (64, "/v1/chat/completions"), "calm": (2, "/v1/chat/completions")},
    "sse": {"busy": (64, "/v1/chat/completions"), "calm": (4, "/v1/chat/completions?pace_us=1000")},
}
"""Connections and path, for the rate and for the latencies."""


def wrk(host: str, connections: int, path: str, seconds: int) -> dict:
    """Load a server, and return what wrk found."""
    told = subprocess.run(
        [
            *("taskset", "-c", OTHER_CPU, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"),
            *("--timeout", "10s", "--latency", "-s", str(SCRIPT), f"http://{host}{path}"),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return json.loads(re.search(r"^RESULT (.*)$", told, re.MULTILINE)[1])


def loaded(
    host: str, pid: int, load: dict[str, Any], seconds: int, *, prefix: str = ""
) -> dict[str, Any]:
    """Load a server; `pid` is whom it costs, 0 nobody, and `prefix` goes before each path."""
    (many, path), (few, calm_path) = load["busy"], load["calm"]
    wrk(host, 8, prefix + path, 1)
    before = cpu_s(pid) if pid else 0.0
    busy = wrk(host, many, prefix + path, seconds)
    spent = cpu_s(pid) - before if pid else None
    calm = wrk(host, few, prefix + calm_path, seconds)
    return {
        "requests_per_s": busy["requests"] * 1e6 / busy["duration_us"],
        "requests_per_cpu_s": busy["requests"] / spent if spent else None,
        "busy": busy,
        "calm": calm,
        "rss_mib": rss_mib(pid) if pid else None,
    }
