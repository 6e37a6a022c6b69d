"""Writes docs/results/control-plane.md from the measurements that there are."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.about import DATA, ROOT, origin, prose
from benchmarks.live.decided import CARRIED_OUT, DEFERRED

__all__ = ["write_document"]

DOCUMENT = ROOT / "docs" / "results" / "control-plane.md"
Run = Mapping[str, Any]

CLAIMED_REQUESTS, CLAIMED_DECISIONS = 1_000, 100
"""What the reference system claims of a gateway and of a scheduler, a second."""


def write_document() -> None:
    """Write the document."""
    lines = ["# The control plane under load", ""]
    for file, section in (("gateway-live.json", _gateway), ("scheduler-rate.json", _scheduler)):
        path = DATA / file
        if path.exists():
            lines += section(json.loads(path.read_text()), file)
    DOCUMENT.write_text("\n".join(lines))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)] + [""]


def _best(runs: Sequence[Run], key: Callable[[Run], float | None]) -> float | None:
    """Return the best of some rounds: noise only ever slows."""
    found = [value for run in runs if (value := key(run)) is not None]
    return max(found) if found else None


# -- gateway ---
def _gateway(found: Mapping[str, Any], file: str) -> list[str]:
    runs, memory = found["runs"], found["memory_mib"]
    lines = [
        "## The gateway, beside nginx and beside no proxy",
        "",
        origin(found, file, found["nginx"].rpartition(": ")[2]),
        "",
        prose(
            """A cluster that is up, with identity, scheduler and object API; the gateway is asked
            with an API key. nginx is one worker as a plain reverse proxy that buffers nothing, to
            the same pod; no proxy is wrk at the pod. The proxy has one core, everything else the
            other, so the rate on one core is requests by CPU second of the proxy, at 64
            connections. Latencies are of 2 connections (JSON) and 4 (streams of 200 tokens, one a
            millisecond), less those of no proxy in the same round; below zero is noise. Every
            figure is the best of its rounds."""
        ),
        "",
    ]
    for kind, title in (("json", "Small JSON"), ("sse", "A stream of 200 tokens")):
        bare = {
            run["round"]: run for run in runs if run["load"] == kind and run["name"] == "no proxy"
        }
        nginx = _rate(runs, kind, "nginx")
        rows = []
        for name in ("nginx", "gateway"):
            of = [run for run in runs if run["load"] == kind and run["name"] == name]
            rate = _rate(runs, kind, name)
            p50, p99 = (
                min(run["calm"][q] - bare[run["round"]]["calm"][q] for run in of) / 1e3
                for q in ("p50_us", "p99_us")
            )
            failed = sum(run["busy"]["failed"] + run["calm"]["failed"] for run in of)
            rows.append(
                (
                    name,
                    f"{rate:,.0f}",
                    f"{rate / nginx:.2f}",
                    f"{p50:.2f}",
                    f"{p99:.2f}",
                    str(failed),
                )
            )
        head = (title, "requests per CPU s", "of nginx", "added p50, ms", "added p99, ms", "failed")
        lines += _table(head, rows)
    rate = _rate(runs, "json", "gateway")
    lines += [
        prose(
            f"""The reference system claims {CLAIMED_REQUESTS:,} requests a second for its gateway;
            this is {rate / CLAIMED_REQUESTS:.1f} times that, on one core."""
        ),
        "",
    ]
    if len(memory) > 60:
        quarter = len(memory) // 4
        first, last = (
            statistics.median(part) for part in (memory[quarter : 2 * quarter], memory[-quarter:])
        )
        lines += [
            prose(
                f"""Memory over {found["memory_minutes"]:g} minutes under load of 16 connections:
            {memory[60]:.1f} MiB after a minute, {first:.1f} in the second quarter (median),
            {last:.1f} in the last, at most {max(memory):.1f}."""
            ),
            "",
        ]
    return lines


def _rate(runs: Sequence[Run], kind: str, name: str) -> float:
    of = [run for run in runs if run["load"] == kind and run["name"] == name]
    return _best(of, lambda run: run["requests_per_cpu_s"]) or 0.0


# -- scheduler ---
def _microseconds(found: Mapping[str, Any]) -> str:
    """Return what each process takes of a start, the least of the rounds."""
    of = [run for run in found["runs"] if run["load"] == "starts"]
    least = {
        name: min(run["cpu_s"][name] / run["requests"] for run in of) for name in of[0]["cpu_s"]
    }
    return "; ".join(f"{name} {1e6 * took:,.0f} µs of CPU a start" for name, took in least.items())


def _scheduler(found: Mapping[str, Any], file: str) -> list[str]:
    lines = [
        "## The scheduler",
        "",
        origin(found, file),
        "",
        prose(
            f"""State service (SQLite, durable) and scheduler are processes of their own;
            {found["nodes"]} nodes of 8 GPUs whose actions take no time, and a gateway without HTTP,
            over their real lines, are one more. {found["at_once"]} requests at once ask for
            functions in turn. *Leases*: every function has a pod; a request is a lease, given back
            at once. *Starts*: four times as many functions as fit; for a request a pod is placed
            where others are evicted, made durable, and started. The policy is `default`, and every
            decision is explained. What the processes take: {_microseconds(found)}. The scheduler
            is what limits the rate by the clock: it decides on one thread, and waits with the next
            step until the last one is durable. By CPU second, its own. Best of the rounds."""
        ),
        "",
    ]
    rows = []
    for kind in ("leases", "starts"):
        of = [run for run in found["runs"] if run["load"] == kind]
        best = max(of, key=lambda run: run["requests"] / run["seconds"])
        rate = best["requests"] / best["seconds"]
        busy = _best(of, lambda run: run["requests"] / run["cpu_s"]["scheduler"]) or 0.0
        rows.append(
            (
                kind,
                str(best["functions"]),
                f"{rate:,.0f}",
                f"{busy:,.0f}",
                f"{best['p50_ms']:.1f}",
                f"{best['p99_ms']:.1f}",
                f"{best['rss_mib']['scheduler']:.0f}",
                str(sum(run["refused"] for run in of)),
            )
        )
    head = (
        "load",
        "functions",
        "per s",
        "per CPU s",
        "p50, ms",
        "p99, ms",
        "MiB",
        "refused",
    )
    return [*lines, *_table(head, rows), *_decisions(found["runs"])]


def _decisions(runs: Sequence[Run]) -> list[str]:
    """Say what was decided, of the rounds that the other table is of."""
    rows = []
    for kind in ("leases", "starts"):
        of = [run for run in runs if run["load"] == kind]
        best = max(of, key=lambda run: run["requests"] / run["seconds"])
        each = [best["decisions"].get(name, 0) / best["seconds"] for name in CARRIED_OUT]
        deferred = best["decisions"].get(DEFERRED, 0) / best["seconds"]
        rates = (*each, sum(each), sum(each) / CLAIMED_DECISIONS, deferred)
        rows.append((kind, *(f"{rate:,.0f}" for rate in rates)))
    head = ("load", *CARRIED_OUT, "together", f"times {CLAIMED_DECISIONS}", DEFERRED)
    return [
        prose(
            f"""A decision is the choice of what is done with one pod: to which gateway it is
            leased, on which GPUs it is started, for whom it leaves, or that it moves though nobody
            asked; to let a function wait is one of no pod, and is not in the sum. The scheduler's
            own counters tell them (`docs/metrics.md`), a second; the reference system claims
            {CLAIMED_DECISIONS} decisions a second for its scheduler."""
        ),
        "",
        *_table(head, rows),
    ]
