"""Writes the page of what was measured."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence

from inferx.exec.agent.bench import fit_line
from inferx.exec.agent.bench.plan import size_text

Rows = Iterable[Sequence[str]]

HEAD = """# Dump and restore, beside dd

Written by `{command}` at commit `{commit}`, {date}: {machine}, Linux {kernel}, CRIU {criu}, seed {seed};
medians of {rounds} rounds. GPUs: {gpus}. The measurements: [`data/restore.json`](data/restore.json).

A pod is `inferx worker` with so many bytes of random weights, which it reads from a file at a cold start. It is started,
suspended and resumed, dumped (it has ended then), and restored: from a warm page cache, from a cache without the
snapshot's files, and lazily. Every time is to the first right answer over HTTP, for a dump until the snapshot is durable
and checksummed. In each round the SHA-256 of the weights before the dump and after the restore was the same, and every
answer was that of the cold start; a bench in which one is not ends with an error.

The floor is `dd` of the same snapshot's files (those of 1 MiB and more) with 1 MiB blocks, in the same round and from
the same state of the cache: for a dump to the same tier with `conv=fsync`, for a restore to nowhere. The ratio is how many
times the floor ours takes. Small pods are far from it: a restore has fixed costs (a network namespace, CRIU's own start,
a container) that bytes do not explain. `dram` is tmpfs: it has no cold cache. A cold
cache is this host's own; what lies below it (a hypervisor's cache, the disk's) has met the same bytes before, for dd and for
the restore alike.
"""

COLUMNS = (
    "pod", "tier", "sandbox", "snapshot", "cold start",
    "dump", "dd", "ratio", "restore, warm", "dd", "ratio", "restore, cold", "dd", "ratio", "lazily",
)  # fmt: skip


def medians(rounds: list[dict], kind: str, name: str) -> float | None:
    """Return the median seconds of a step or a floor; None where there is none."""
    found = [one["seconds"] for r in rounds for one in r[kind] if one["name"] == name]
    return statistics.median(found) if found else None


def seconds(value: float | None) -> str:
    """Return seconds with as many digits as tell."""
    if value is None:
        return ""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def grouped(rounds: list[dict], key: Callable[[dict], tuple]) -> dict[tuple, list[dict]]:
    """Return the rounds by key, in order of first sight."""
    found: dict[tuple, list[dict]] = {}
    for one in rounds:
        found.setdefault(key(one), []).append(one)
    return found


def beside(rounds: list[dict], step: str, floor: str) -> list[str]:
    """Return a step, its floor, and the ratio."""
    took, least = medians(rounds, "steps", step), medians(rounds, "floors", floor)
    return [seconds(took), seconds(least), f"{took / least:.1f}" if took and least else ""]


def times(runs: list[dict]) -> Iterator[list[str]]:
    """Yield a row for each size, tier and sandbox."""
    rows: dict[tuple[int, str], list[list[str]]] = {}
    for run in runs:
        paced = [one for one in run["rounds"] if one["engine"] == "paced"]
        for (size, tier), rounds in grouped(
            paced, lambda r: (r["weight_bytes"], r["tier"])
        ).items():
            rows.setdefault((size, tier), []).append(
                [
                    size_text(size),
                    tier,
                    run["about"]["sandbox"],
                    f"{rounds[0]['snapshot_bytes'] / 1e6:,.0f} MB",
                    seconds(medians(rounds, "steps", "cold")),
                    *beside(rounds, "dump", "write"),
                    *beside(rounds, "restore", "read"),
                    *beside(rounds, "restore_cold", "read_cold"),
                    seconds(medians(rounds, "steps", "restore_lazy")),
                ]
            )
    for key in sorted(rows):
        yield from rows[key]


def laws(runs: list[dict]) -> Iterator[list[str]]:
    """Yield the line that is fitted to each sandbox's dumps and restores of a tier."""
    steps = (("dump", "dump"), ("restore", "restore, warm"), ("restore_cold", "restore, cold"))
    for run in runs:
        paced = [one for one in run["rounds"] if one["engine"] == "paced"]
        for (tier,), rounds in grouped(paced, lambda r: (r["tier"],)).items():
            for step, title in steps:
                points = [
                    (r["snapshot_bytes"], s["seconds"])
                    for r in rounds
                    for s in r["steps"]
                    if s["name"] == step
                ]
                if points:
                    line = fit_line(points)
                    rate = f"{line.bytes_per_s / 1e9:.2f} GB/s" if line.bytes_per_s else ""
                    spread = f"{100 * line.spread:.0f} %"
                    yield [
                        run["about"]["sandbox"],
                        tier,
                        title,
                        f"{line.fixed_s:.2f} s",
                        rate,
                        spread,
                    ]


def torch(runs: list[dict]) -> Iterator[list[str]]:
    """Yield the torch worker's cold start beside its restores."""
    for run in runs:
        found = [one for one in run["rounds"] if one["engine"] == "torch"]
        for (tier,), rounds in grouped(found, lambda r: (r["tier"],)).items():
            cold = medians(rounds, "steps", "cold")
            for step, title in (
                ("restore", "warm"),
                ("restore_cold", "cold cache"),
                ("restore_lazy", "lazily"),
            ):
                took = medians(rounds, "steps", step)
                if took and cold:
                    size = f"{rounds[0]['snapshot_bytes'] / 1e6:,.0f} MB"
                    row = [run["about"]["sandbox"], tier, size, title]
                    yield [*row, seconds(cold), seconds(took), f"{cold / took:.1f}"]


def clones(runs: list[dict]) -> Iterator[list[str]]:
    """Yield how long several pods of one snapshot take, restored at once."""
    for run in runs:
        for one in run["clones"]:
            each = ", ".join(seconds(s) for s in sorted(one["each_s"]))
            count = str(len(one["each_s"]))
            row = [run["about"]["sandbox"], one["tier"], size_text(one["weight_bytes"]), count]
            yield [*row, seconds(one["seconds"]), each]


def phases(runs: list[dict]) -> Iterator[list[str]]:
    """Yield where the restores of one size went, by the agent's own steps."""
    for run in runs:
        paced = [one for one in run["rounds"] if one["engine"] == "paced"]
        largest = max(
            (one["weight_bytes"] for one in paced if one["weight_bytes"] <= 10**9), default=0
        )
        chosen = [one for one in paced if one["weight_bytes"] == largest]
        for (tier,), rounds in grouped(chosen, lambda r: (r["tier"],)).items():
            for step in ("dump", "restore"):
                found: dict[str, list[int]] = {}
                for r in rounds:
                    for s in r["steps"]:
                        if s["name"] == step:
                            for phase in s["phases"]:
                                found.setdefault(phase["phase"], []).append(phase["duration_ns"])
                told = ", ".join(f"{k} {statistics.median(v) / 1e6:.0f}" for k, v in found.items())
                yield [run["about"]["sandbox"], tier, size_text(largest), step, told]


def table(columns: Sequence[str], rows: Rows) -> list[str]:
    """Return a table of Markdown."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def document(found: dict) -> str:
    """Return the page."""
    runs = found["runs"]
    about = dict(runs[0]["about"])
    about |= {"command": found["command"], "commit": about["commit"][:12] or "unknown"}
    lines = [HEAD.format(**about), "## By size and tier", "", "Seconds.", ""]
    lines += table(COLUMNS, times(runs))
    lines += [f"Not measured: {name} ({why}).\n" for name, why in found["skipped"].items()]
    lines += [
        "## As a law",
        "",
        "Seconds = fixed + snapshot bytes / rate, least squares of the relative error over all sizes and rounds; the spread is",
        "the standard deviation of measured over fitted. `inferx agent bench --profile F` writes these for the simulator.",
        "",
        *table(("sandbox", "tier", "action", "fixed", "rate", "spread"), laws(runs)),
        "## A torch worker",
        "",
        "A transformer of 134M parameters (512 MiB of weights): its cold start imports torch, reads the weights and makes a",
        "first pass. Same tokens after each restore. The ratio is how many times faster it is back;",
        "`tests/exec/agent/test_torch_restore.py` asserts at least 2.5 for one of 32 MiB, from `dram`.",
        "",
        *table(
            ("sandbox", "tier", "snapshot", "restore", "cold start", "restored", "ratio"),
            torch(runs),
        ),
        "## Clones",
        "",
        "Pods restored at once from one snapshot, each with its own cgroup and network: seconds until the last one answers.",
        "",
        *table(("sandbox", "tier", "pod", "clones", "all", "each"), clones(runs)),
        "## Where it goes",
        "",
        "The agent's own phases, medians in milliseconds; what is left to the times above is the first answer.",
        "",
        *table(("sandbox", "tier", "pod", "action", "phases"), phases(runs)),
    ]
    return "\n".join(lines).rstrip() + "\n"
