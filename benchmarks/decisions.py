"""How long each shipped bundle takes to decide: writes docs/results/decisions.md.

    python -m benchmarks.decisions [--only NAME]

Medians over a crowded cluster of 1,024 GPUs and 1,000 functions (see `benchmarks.crowd`), every
call with another function. Placement rules have their own, see docs/results/packing.md.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.crowd import Crowd
from benchmarks.workloads import want
from inferx.core.protocols import PolicyBundle
from inferx.core.rng import stream
from inferx.core.types import FunctionId, Tier
from inferx.load import bundle_names, load_bundle
from inferx.sim.manifest import git_fact

GPUS, FUNCTIONS, CALLS = 1_024, 1_000, 101
ROOT = Path(__file__).parents[1]
DECISIONS = ("place", "evict", "retain", "promote", "target", "targets")
COMMAND = "python -m benchmarks.decisions"


def calls(bundle: PolicyBundle, crowd: Crowd) -> dict[str, Callable[[int], object]]:
    """Return each decision as a call with a function's number."""
    view, rng = crowd.view, stream(1, "policy")
    specs = crowd.cluster.functions

    def wanted(f: int):
        return want(f, specs[f])

    return {
        "place": lambda f: bundle.placement.place(wanted(f), view, rng),
        "evict": lambda f: bundle.eviction.evict(wanted(f), view, rng),
        "retain": lambda f: bundle.keep_alive.retain(FunctionId(f), Tier.HBM, view),
        "promote": lambda _: bundle.prewarm.promote(view, rng),
        "target": lambda f: bundle.scaling.target(FunctionId(f), view),
        "targets": lambda _: bundle.scaling.targets(view),
    }


def medians_us(name: str) -> dict[str, float]:
    """Return the median time of each decision of one bundle, in microseconds."""
    bundle = load_bundle(name)
    crowd = Crowd(GPUS, FUNCTIONS, snapshots=bundle.snapshots)
    crowd.teach(bundle)
    medians: dict[str, float] = {}
    for decision, call in calls(bundle, crowd).items():
        took: list[int] = []
        for number in range(CALLS):
            crowd.cluster.now_ns += 2_000_000_000  # Nothing stands still: no answer is kept.
            began = time.perf_counter_ns()
            call(number * 7 % FUNCTIONS)
            took.append(time.perf_counter_ns() - began)
        medians[decision] = round(float(np.median(took)) / 1e3, 1)
    return medians


def document(facts: dict, rows: dict[str, dict[str, float]]) -> str:
    """Return the page."""
    slow = [name for name, row in rows.items() if max(row.values()) > 1_000]
    told = f"Above 1 ms: {', '.join(slow)}." if slow else "None takes more than 1 ms."
    lines = [
        "# How long policies take to decide",
        "",
        f"Written by `{COMMAND}` at commit `{facts['commit'][:12]}`, {facts['date']}, on",
        f"{facts['machine']}, seed {facts['seed']}: medians of {CALLS} calls in microseconds, on a",
        f"crowded cluster of {GPUS:,} GPUs and {FUNCTIONS:,} functions. {told} Those that learn",
        "were shown two minutes of load before.",
        "",
        "| policy | " + " | ".join(f"`{decision}`" for decision in DECISIONS) + " |",
        "|---|" + "---:|" * len(DECISIONS),
    ]
    for name, row in rows.items():
        cells = " | ".join(f"{row[decision]:,.1f}" for decision in DECISIONS)
        lines.append(f"| `{name}` | {cells} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Time every bundle, then write the document and its data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append")
    options = parser.parse_args()
    rows: dict[str, dict[str, float]] = {}
    for name in options.only or bundle_names():
        rows[name] = medians_us(name)
        print(name, rows[name], flush=True)
    if options.only:
        return
    git = git_fact()
    facts = {
        "command": COMMAND,
        "commit": git.commit if git is not None else "unknown",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()}",
        "seed": 1,
    }
    kept = ROOT / "benchmarks" / "results" / "decisions.json"
    kept.write_text(json.dumps(facts | {"median_us": rows}, indent=1) + "\n")
    (ROOT / "docs" / "results" / "decisions.md").write_text(document(facts, rows))


if __name__ == "__main__":
    main()
