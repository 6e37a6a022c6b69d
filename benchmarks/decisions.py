"""How long each shipped bundle takes to decide: writes docs/results/decisions.md.

    python -m benchmarks.decisions [--only NAME]

Medians over a crowded cluster of 1,024 GPUs and 1,000 functions (see `benchmarks.crowd`), every
call a second after the one before, with its load reported, and with another function. Eight pods
have a free slot where one is to be chosen; a hundred requests wait for a slot, a hundred functions
for room. Packing rules have their own, see docs/results/packing.md.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.crowd import Crowd
from benchmarks.workloads import want
from inferx.core.events import RequestArrived
from inferx.core.protocols import PolicyBundle, Waiting
from inferx.core.rng import stream
from inferx.core.types import FunctionId, PodId, RequestId, Tier, Want
from inferx.load import bundle_names, load_bundle
from inferx.sim.manifest import git_fact

GPUS, FUNCTIONS, CALLS = 1_024, 1_000, 101
ROOT = Path(__file__).parents[1]
DECISIONS = (
    "place",
    "evict",
    "retain",
    "promote",
    "target",
    "targets",
    "route",
    "next_request",
    "next_want",
)
PODS, WAITING = 8, 100
COMMAND = "python -m benchmarks.decisions"


@dataclass(frozen=True, slots=True)
class Leased:
    """A pod with a free slot."""

    id: PodId
    free_slots: int
    inflight: int


@dataclass(frozen=True, slots=True)
class Gateway:
    """What a router shows."""

    now_ns: int

    def queued(self, function: FunctionId) -> int:
        """Return how many wait."""
        return WAITING

    def inflight(self, function: FunctionId) -> int:
        """Return how many are served."""
        return PODS


def calls(bundle: PolicyBundle, crowd: Crowd) -> dict[str, Callable[[int], object]]:
    """Return each decision that the bundle makes as a call with a function's number."""
    view, rng = crowd.view, stream(1, "policy")
    specs = crowd.cluster.functions

    def wanted(f: int) -> Want:
        return want(f, specs[f])

    pods = [Leased(PodId(pod), 4, pod % 3) for pod in range(PODS)]
    gateway = Gateway(crowd.cluster.now_ns)
    requests = [
        RequestArrived(RequestId(i), FunctionId(0), 500, tenant=i % 10, priority=i % 3)
        for i in range(WAITING)
    ]
    queue = [Waiting(request, i, 10**12 - i) for i, request in enumerate(requests)]
    wants = [wanted(f) for f in range(WAITING)]
    turns = bundle.queueing
    if turns is not None:
        for place, request in enumerate(requests):
            getattr(turns, "arrived", lambda *_: None)(request, queue[:place], gateway)
    made: dict[str, Callable[[int], object]] = {
        "route": lambda f: bundle.routing.route(requests[f % WAITING], pods, gateway, rng),
    }
    if turns is not None:
        made["next_request"] = lambda _: turns.next_request(queue, gateway)
        made["next_want"] = lambda _: turns.next_want(wants, view)
    return made | {
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
            crowd.second(bundle)  # Nothing stands still: no answer is kept.
            began = time.perf_counter_ns()
            call(number * 7 % FUNCTIONS)
            took.append(time.perf_counter_ns() - began)
        medians[decision] = round(float(np.median(took)) / 1e3, 1)
    return medians


def document(facts: dict, rows: dict[str, dict[str, float]]) -> str:
    """Return the page."""
    slow = [
        f"`{name}` ({decision})"
        for name, row in rows.items()
        for decision, median in row.items()
        if median > 1_000
    ]
    told = f"Above 1 ms: {', '.join(slow)}." if slow else "None takes more than 1 ms."
    lines = [
        "# How long policies take to decide",
        "",
        f"Written by `{COMMAND}` at commit `{facts['commit'][:12]}`, {facts['date']}, on",
        f"{facts['machine']}, seed {facts['seed']}: medians of {CALLS} calls in microseconds, on a",
        f"crowded cluster of {GPUS:,} GPUs and {FUNCTIONS:,} functions. {told} Those that learn",
        "were shown two minutes of load before, and a second's before each call.",
        "",
        "Here idle pods can make room for one GPU, and every snapshot is on every disk. `ladder`",
        "takes some 30 ms where it must look at busy pods, `serverlessllm-repository` as long to",
        "promote where nothing is on disk, and victims for pods of several GPUs take `knapsack`,",
        "an exact solver, up to 50 ms.",
        "",
        "| policy | " + " | ".join(f"`{decision}`" for decision in DECISIONS) + " |",
        "|---|" + "---:|" * len(DECISIONS),
    ]
    for name, row in rows.items():
        cells = " | ".join(
            f"{row[decision]:,.1f}" if decision in row else "-" for decision in DECISIONS
        )
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
