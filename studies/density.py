"""Does packing plus snapshots fill GPUs? Writes docs/results/density.md and its plots.

    python -m studies.density [--jobs 2]

Many functions of one model class share one node. Each is asked for in spells: a visitor sends a few
requests one after another and leaves. The study sweeps how many functions a GPU has, how long a
spell is, the model's size, the instance type and the start-up mechanism, and looks at busy GPU time
against the time to the first token of requests that had to wait for a start.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl
import msgspec
import numpy as np
from matplotlib import pyplot as plt

from inferx.core.rng import stream
from inferx.core.units import GIB, NS_PER_S
from inferx.load import load_bundle
from inferx.sim.driver import simulate
from inferx.sim.metrics import summarise
from inferx.sim.profile import load_profile
from inferx.sim.workload.trace import Trace, chunks_of, make_trace
from inferx.sim.world import World
from inferx.spec.cluster import load_cluster
from inferx.spec.serving import serving_for
from inferx.spec.template import load_template

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
SPAN_S = 7200.0
WARMUP_S = 3600.0
TOKENS_IN, TOKENS_OUT = 1000, 250
PAUSE_S = 2.0
"""Pause of a visitor between two requests."""
MODELS = ("3b", "8b", "14b", "32b-fp8")
NODES = ("g6e.12xlarge", "p4de.24xlarge", "p5.48xlarge")
SPELLS = (1, 4, 16, 64)
LOADS = (0.2, 0.5, 1.0, 2.0)
MECHANISMS = ("criu-memfd", "criu-pinned", "sleep")
PER_GPU = 12
"""Functions for each GPU in the main sweep."""
FEW_PER_GPU = 4
"""The same on one instance type, less crowded."""


@dataclass(frozen=True)
class Point:
    """One run. `load` is the GPU time that the requests need, alone, over the GPU time there is."""

    node: str
    model: str
    profile: str
    policy: str
    per_gpu: int
    spell: int
    load: float
    seed: int = 1


def workload(point: Point, functions: int, service_s: float, gpus: int) -> Trace:
    """Draw Poisson spells over equally popular functions; requests in a spell follow each other."""
    rng = stream(point.seed, "study.density")
    rate = point.load * gpus / service_s
    spells = rng.poisson(rate * SPAN_S / point.spell)
    start = rng.uniform(0, SPAN_S, spells)
    function = rng.integers(functions, size=spells)
    gap = service_s + rng.exponential(PAUSE_S, (spells, point.spell))
    offset = np.cumsum(gap, axis=1) - gap[:, :1]
    at = (start[:, None] + offset).ravel()
    who = np.repeat(function, point.spell)
    kept = at < SPAN_S
    order = np.argsort(at[kept], kind="stable")
    rows = len(order)
    return make_trace(
        arrival_ns=(at[kept][order] * NS_PER_S).astype(np.int64),
        function=who[kept][order].astype(np.int32),
        input_tokens=np.full(rows, TOKENS_IN, np.int32),
        output_tokens=np.maximum(1, rng.geometric(1 / TOKENS_OUT, rows)).astype(np.int32),
        names=[f"f{i:03d}" for i in range(functions)],
    )


def measure(point: Point) -> dict:
    """Run one point."""
    nodes = load_cluster(f"{point.node}=1")
    gpus = nodes[0].gpus
    shape = next(c for c in load_template("auto").classes if c.name == point.model)
    count = point.per_gpu * gpus
    functions = tuple(
        msgspec.structs.replace(shape, name=f"f{i:03d}", max_replica=gpus) for i in range(count)
    )
    speed = serving_for(functions[0], nodes[0].gpu_type)
    service_s = TOKENS_IN / speed.prefill_tokens_per_s
    service_s += TOKENS_OUT * (speed.decode_base_ns + speed.decode_per_request_ns) / NS_PER_S
    trace = workload(point, count, service_s, gpus)
    world = World(
        nodes=nodes,
        functions=functions,
        profile=load_profile(point.profile),
        prepared="nvme",
    )
    record = simulate(world, chunks_of(trace), load_bundle(point.policy), seed=point.seed)
    row = summarise(record, warmup_ns=int(WARMUP_S * NS_PER_S))
    return asdict(point) | {
        "gpus": gpus,
        "functions": count,
        "service_s": service_s,
        "hbm_gib": shape.hbm_bytes / GIB,
        "device_gib": shape.device_bytes / GIB,
        "fit_in_dram": nodes[0].host_bytes / (shape.device_bytes + shape.host_bytes),
        "requests": row.arrived,
        "refused": row.refused,
        "busy_pct": row.gpu_busy_pct,
        "resident_pct": row.gpu_resident_pct,
        "cold_ratio": row.cold_start_ratio,
        "cold_ttft_p50_s": row.cold_ttft_s.p50,
        "cold_ttft_p99_s": row.cold_ttft_s.p99,
        "ttft_p99_s": row.ttft_s.p99,
        "starts": {k: v for k, v in record.counters.items() if k.startswith("starts_")},
        "pcie_gb": record.link_bytes.get("pcie", 0) / 1e9,
        "nvme_gb": record.link_bytes.get("nvme", 0) / 1e9,
    }


def points() -> list[Point]:
    """Every point of the study."""
    found: list[Point] = []
    for node in NODES:
        for model in MODELS:
            for profile in MECHANISMS:
                found += [
                    Point(node, model, profile, "default", PER_GPU, 16, load) for load in LOADS
                ]
            found.append(Point(node, model, "safetensors", "dedicated", 1, 16, 0.05))
    for profile in MECHANISMS:
        found += [
            Point("p5.48xlarge", model, profile, "default", FEW_PER_GPU, 16, load)
            for model in MODELS
            for load in LOADS
        ]
        found += [
            Point("p5.48xlarge", "8b", profile, "default", PER_GPU, spell, load)
            for spell in SPELLS
            for load in (0.5, 1.0)
            if spell != 16
        ]
        found += [
            Point("p5.48xlarge", "8b", profile, "default", per_gpu, 16, 1.0) for per_gpu in (2, 24)
        ]
    return found


def draw(rows: list[dict]) -> None:
    """Draw busy share against cold TTFT, and busy share against spell length."""
    mpl.rcParams.update({"svg.hashsalt": "inferx", "font.size": 9, "axes.grid": True})
    main = [r for r in rows if r["policy"] == "default" and r["spell"] == 16]
    main = [r for r in main if r["per_gpu"] == PER_GPU]
    figure, axes = plt.subplots(
        len(MECHANISMS), len(NODES), figsize=(11, 8.6), sharex=True, sharey=True
    )
    for column, node in enumerate(NODES):
        for line, profile in enumerate(MECHANISMS):
            ax = axes[line][column]
            ax.axhspan(0.05, 2.0, color="tab:green", alpha=0.08)
            ax.axvspan(80, 100, color="tab:blue", alpha=0.08)
            for model in MODELS:
                path = [
                    r
                    for r in main
                    if (r["node"], r["model"], r["profile"]) == (node, model, profile)
                    and r["cold_ttft_p99_s"] is not None
                ]
                ax.plot(
                    [r["busy_pct"] for r in path],
                    [r["cold_ttft_p99_s"] for r in path],
                    marker="o",
                    markersize=4,
                    label=model,
                )
            ax.set_yscale("log")
            ax.set_xlim(0, 100)
            ax.set_title(f"{node}, {profile}")
            if column == 0:
                ax.set_ylabel("cold TTFT p99, s")
            if line == len(MECHANISMS) - 1:
                ax.set_xlabel("busy GPU time, %")
    axes[0][0].legend(title="model")
    figure.suptitle(
        "The claim lives where green meets blue: 80 % busy at a p99 cold TTFT under 2 s"
    )
    figure.tight_layout()
    figure.savefig(RESULTS / "density.svg", metadata={"Date": None})
    plt.close(figure)

    figure, axes = plt.subplots(1, len(MECHANISMS), figsize=(11, 3.4), sharey=True)
    for ax, profile in zip(axes, MECHANISMS, strict=True):
        for load in (0.5, 1.0):
            path = sorted(
                (
                    r
                    for r in rows
                    if (r["node"], r["model"], r["profile"], r["load"], r["per_gpu"], r["policy"])
                    == ("p5.48xlarge", "8b", profile, load, PER_GPU, "default")
                ),
                key=lambda r: r["spell"],
            )
            ax.plot(
                [r["spell"] for r in path],
                [r["busy_pct"] for r in path],
                marker="o",
                label=f"load {load:g}",
            )
        ax.set_xscale("log", base=2)
        ax.set_ylim(0, 100)
        ax.set_title(f"8b on p5.48xlarge, {profile}")
        ax.set_xlabel("requests a spell")
    axes[0].set_ylabel("busy GPU time, %")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(RESULTS / "density-spells.svg", metadata={"Date": None})
    plt.close(figure)


def _n(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def table(rows: Iterable[dict], columns: dict[str, tuple[str, int]]) -> str:
    """Return a Markdown table; a column is `key: (heading, digits)`, -1 for text."""
    lines = ["| " + " | ".join(heading for heading, _ in columns.values()) + " |"]
    lines.append("|" + "|".join("---" if d < 0 else "---:" for _, d in columns.values()) + "|")
    for row in rows:
        cells = [str(row[k]) if d < 0 else _n(row[k], d) for k, (_, d) in columns.items()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def document(rows: list[dict]) -> str:
    """Return the document, its verdicts computed from the rows."""
    for row in rows:
        row["refused_pct"] = 100 * row["refused"] / row["requests"]
    main = [r for r in rows if r["policy"] == "default"]
    sweep = [r for r in main if r["spell"] == 16]

    def best(node: str, model: str, profile: str, per_gpu: int) -> dict:
        there = [
            r
            for r in sweep
            if (r["node"], r["model"], r["profile"], r["per_gpu"])
            == (node, model, profile, per_gpu)
        ]
        met = [r for r in there if (r["cold_ttft_p99_s"] or 1e9) < 2.0 and r["refused_pct"] < 1]
        usable = [r for r in there if r["refused_pct"] < 1]
        top = max(usable or there, key=lambda r: r["busy_pct"])
        return {
            "node": node,
            "model": model,
            "profile": profile,
            "fit_in_dram": there[0]["fit_in_dram"],
            "functions": there[0]["functions"],
            "met": max((r["busy_pct"] for r in met), default=None),
            "low": min(r["cold_ttft_p99_s"] or 0.0 for r in there),
            "busy": top["busy_pct"],
            "at": top["cold_ttft_p99_s"],
        }

    crowding = (*((node, PER_GPU) for node in NODES), ("p5.48xlarge", FEW_PER_GPU))
    verdicts = [
        best(node, model, profile, per_gpu)
        for profile in MECHANISMS
        for node, per_gpu in crowding
        for model in MODELS
    ]
    dedicated = [r for r in rows if r["policy"] == "dedicated"]
    reached = [v for v in verdicts if v["met"] is not None]
    full = [v for v in reached if v["met"] >= 80]
    claims = (
        f"Of {len(verdicts)} combinations of node, model, crowding and mechanism, {len(reached)} kept the p99 cold TTFT"
        f" under 2 s at any load tried, and {len(full)} did so with GPUs busy 80 % of the time or more."
    )
    spells = sorted(
        (
            r
            for r in main
            if (r["node"], r["model"], r["per_gpu"], r["load"])
            == ("p5.48xlarge", "8b", PER_GPU, 1.0)
        ),
        key=lambda r: (r["profile"], r["spell"]),
    )
    crowd = sorted(
        (
            r
            for r in main
            if (r["node"], r["model"], r["spell"], r["load"]) == ("p5.48xlarge", "8b", 16, 1.0)
        ),
        key=lambda r: (r["profile"], r["per_gpu"]),
    )
    verdict_columns = {
        "profile": ("mechanism", -1),
        "node": ("node", -1),
        "model": ("model", -1),
        "functions": ("functions", 0),
        "fit_in_dram": ("of which fit suspended in host RAM", 0),
        "low": ("lowest p99 cold TTFT, s", 2),
        "met": ("best busy % at p99 < 2 s", 1),
        "busy": ("best busy %", 1),
        "at": ("p99 cold TTFT there, s", 1),
    }
    return TEXT.format(
        claims=claims,
        per_gpu=PER_GPU,
        tokens_in=TOKENS_IN,
        tokens_out=TOKENS_OUT,
        pause=PAUSE_S,
        dedicated=table(
            dedicated,
            {
                "node": ("node", -1),
                "model": ("model", -1),
                "functions": ("functions", 0),
                "busy_pct": ("busy %", 1),
                "ttft_p99_s": ("TTFT p99, s", 2),
            },
        ),
        verdicts=table(verdicts, verdict_columns),
        spells=table(
            spells,
            {
                "profile": ("mechanism", -1),
                "spell": ("requests a spell", 0),
                "busy_pct": ("busy %", 1),
                "cold_ratio": ("cold starts / request", 2),
                "cold_ttft_p50_s": ("cold TTFT p50, s", 1),
                "cold_ttft_p99_s": ("p99, s", 1),
                "refused_pct": ("refused %", 1),
            },
        ),
        crowd=table(
            crowd,
            {
                "profile": ("mechanism", -1),
                "per_gpu": ("functions a GPU", 0),
                "busy_pct": ("busy %", 1),
                "cold_ratio": ("cold starts / request", 2),
                "cold_ttft_p99_s": ("cold TTFT p99, s", 1),
                "nvme_gb": ("read from disk, GB", 0),
                "pcie_gb": ("over PCIe, GB", 0),
            },
        ),
    )


TEXT = """# Does packing plus snapshots fill GPUs?

Written by `python -m studies.density`; simulated, not measured, from the shipped [profiles](../profiles.md), most of
whose constants are published by others and some assumed. The claim at stake: on a many-model sporadic workload,
packing many models on a GPU and restoring idle ones from snapshots lifts the share of time that GPUs are busy from
the 10 to 20 % of a GPU for each model to 80 to 90 %, with a p99 time to first token of cold requests under 2 s.

**What was found.** {claims}

![Busy share against cold TTFT](density.svg)

## The workload
One node, {per_gpu} functions a GPU, all of one model class, equally popular. Visitors come at random, each to one
function, and send 16 requests of {tokens_in} input and about {tokens_out} output tokens, {pause:g} s after each answer
on average. *Load* is the GPU time that the requests need when served one at a time, over the GPU time there is; along
a line of the figure it is 0.2, 0.5, 1.0, 2.0. A GPU is *busy* while at least one request is in service on it. The
first of two hours is left out of the latencies.

## What a GPU for each model does
The same kind of traffic on a node with as many functions as GPUs, at 5 % load: most models are idle most of the time.

{dedicated}

## Where the claim holds and where not
{verdicts}

A dash under "best busy % at p99 < 2 s" says that no load tried kept the p99 under 2 s: even unloaded, a start moves
the model's bytes, at what the mechanism and the links allow. `criu-memfd` restores a whole process and copies GPU
state at about 5 GB/s, `sleep` keeps the engine's process and copies pinned memory; see the profiles for both.

## How often somebody waits, and for how long
Several slices share a GPU: while one is being restored another serves, so GPUs stay busy whatever the length of a
spell. What changes is who waits. With one request a spell nearly every request meets a start; with 64 one in ten to
one in twenty does. The table is the 8b model on one p5.48xlarge at a load of 1.

![Busy share by spell length](density-spells.svg)

{spells}

## Where it breaks
- **Model size against the copy.** A resume moves the GPU state over PCIe: at about 5 GB/s (`criu-memfd`) even an idle
  node needs more than 2 s for 8 GB, and starts on one GPU go one after another. Pinned copies bring the *median* of small
  models to about 2 s and below; the p99 is that of the few starts that still come from disk.
- **Host RAM.** Suspended pods live in host memory, of which the policy leaves 15 % free. Beyond that, starts come from
  disk, or cold where a mechanism cannot restore (`sleep`): compare functions a GPU, bytes read from disk and the p99
  below. This is the cliff of nodes with much GPU memory and little host memory, as g6e.12xlarge.
- **Links.** Starts on one node share its disk and PCIe roots; at high load they slow each other, which bends the lines
  of the figure upwards before the GPUs are full.
- **Load.** Busy shares of 85 % and more appear at a load of 2, where requests of one function are batched, and there
  the p99 of a cold request is a queue's: 10 to 30 s for the smaller models, minutes for the larger.

{crowd}
"""


def main() -> None:
    """Run every point, then write data, plots and document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--redraw", action="store_true", help="use the kept data")
    options = parser.parse_args()
    data = RESULTS / "data" / "density.json"
    if not options.redraw:
        todo = points()
        rows = []
        with ProcessPoolExecutor(options.jobs) as pool:
            for index, row in enumerate(pool.map(measure, todo)):
                rows.append(row)
                print(f"{index + 1}/{len(todo)} {todo[index]}", file=sys.stderr, flush=True)
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip()
        data.parent.mkdir(parents=True, exist_ok=True)
        facts = {
            "command": "python -m studies.density",
            "commit": commit,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()}",
            "seed": 1,
            "rows": rows,
        }
        data.write_text(json.dumps(facts, indent=1) + "\n")
    rows = json.loads(data.read_text())["rows"]
    draw(rows)
    (RESULTS / "density.md").write_text(document(rows))


if __name__ == "__main__":
    main()
