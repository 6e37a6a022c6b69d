"""Writes docs/results/gateway.md from a measurement."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["write_document"]

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "results" / "gateway.md"
NONE = "no proxy"
_HEAD = (
    "| server, client | requests per CPU s | of nginx | added p50, ms | added p99, ms | MiB "
    "| spread |"
)


STREAMS = (
    "Here the rate is no measure of what a proxy could do: the upstream, which has half a core, is",
    "the limit of all that are fast. Who keeps up forwards each token by itself, which costs more",
    "a stream than falling behind and forwarding many at once. Latencies compare; rates do not.",
    "A stream is 200 tokens, one a millisecond where it is calm.",
    "",
)


def write_document(found: Mapping[str, Any]) -> None:
    """Write the document; see `benchmarks.gateway`."""
    versions = ", ".join(f"{name} {one}" for name, one in found["versions"].items())
    lines = [
        "# The gateway's HTTP, beside nginx",
        "",
        f"Written by `{found['command']}` at commit `{found['commit'][:12]}`, {found['date']}:",
        f"{found['machine']}; {versions}. The measurements:",
        "[`data/gateway-http.json`](data/gateway-http.json).",
        "",
        "Each forwards to one upstream, alone on one core; wrk and the upstream have the other.",
        "The rate is requests by CPU second of the proxy (all its processes, user and system) at",
        "64 connections: what a core could do. nginx has one worker, keeps its connections alive",
        "and buffers nothing. Latencies are of 2 connections (JSON) and of 4 (streams), less",
        "those of no proxy in the same round; below zero is noise.",
        "Every figure is the best of its rounds.",
        "",
        f"The machine was not quiet: load average {found['load_average'][0]:.1f} on 2 CPUs,",
        "at the end. The last column is a proxy's least rate by its most. Percentiles beyond the",
        "median tell more of the neighbours than of the proxy.",
        "",
    ]
    for load, title in (("json", "A small JSON answer"), ("sse", "A stream of 200 tokens")):
        runs = [run for run in found["runs"] if run["load"] == load]
        lines += [f"## {title}", "", *(STREAMS if load == "sse" else ()), *_table(runs), ""]
    DOCUMENT.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def _table(runs: list[dict[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(run["name"] for run in runs if run["name"] != NONE))
    floor = {run["round"]: run["calm"] for run in runs if run["name"] == NONE}
    nginx = max(run["requests_per_cpu_s"] for run in runs if run["name"] == "nginx")
    rows = [
        _HEAD,
        "|---|---|---|---|---|---|---|",
    ]
    for name in names:
        own = [run for run in runs if run["name"] == name]
        rates = [run["requests_per_cpu_s"] for run in own]
        added = [
            min(run["calm"][key] - floor[run["round"]][key] for run in own) / 1e3
            for key in ("p50_us", "p99_us")
        ]
        rows.append(
            f"| {name} | {max(rates):,.0f} | {max(rates) / nginx:.2f} | {added[0]:.2f} | "
            f"{added[1]:.2f} | {max(run['rss_mib'] for run in own):.0f} | "
            f"{min(rates) / max(rates):.2f} |"
        )
    return rows
