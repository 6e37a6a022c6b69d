"""Runs every point of the study, then writes data, plots and document."""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from inferx.core.types import Tier
from studies.density.document import document
from studies.density.floors import floors
from studies.density.measure import measure, measure_bursts
from studies.density.plots import draw
from studies.density.points import Point, burst_points, points, service_s

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"


def work(point: Point) -> dict:
    """Run one point; of a burst, its rows are under `bursts`."""
    if point.sweep == "burst":
        return asdict(point) | {"bursts": measure_bursts(point)}
    return measure(point)


def run_all(jobs: int, only: Callable[[Point], bool]) -> dict:
    """Return everything that the document is made from."""
    began = time.monotonic()
    lone = floors()
    todo = [p for p in points({k: v[Tier.DRAM] for k, v in lone.items()}) if only(p)]
    todo += [p for p in burst_points() if only(p)]
    # The longest first, so that no worker is left alone with one at the end.
    order = sorted(range(len(todo)), key=lambda i: -todo[i].functions)
    rows: list[dict] = [{} for _ in todo]
    with ProcessPoolExecutor(jobs) as pool:
        for done, (index, row) in enumerate(
            zip(order, pool.map(work, [todo[i] for i in order]), strict=True)
        ):
            rows[index] = row
            print(f"{done + 1}/{len(todo)} {todo[index]}", file=sys.stderr, flush=True)
    git = ["git", "rev-parse", "HEAD"]
    return {
        "command": f"python -m studies.density --jobs {jobs}",
        "commit": subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()}",
        "seconds": round(time.monotonic() - began),
        "seed": 1,
        "floors": [
            {
                "node": node,
                "model": model,
                "profile": profile,
                "dram_s": tiers[Tier.DRAM],
                "nvme_s": tiers[Tier.NVME],
                "service_s": service_s(model, node),
            }
            for (node, model, profile), tiers in lone.items()
        ],
        "rows": rows,
    }


def _json(found: dict) -> str:
    """Return the data as JSON, a line for each row."""
    lines = []
    for key, value in found.items():
        text = json.dumps(value)
        if isinstance(value, list):
            text = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
        lines.append(f' "{key}": {text}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> None:
    """Run, or redraw what was kept."""
    parser = argparse.ArgumentParser(prog="python -m studies.density")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--redraw", action="store_true", help="use the kept data")
    options = parser.parse_args()
    data = RESULTS / "data" / "density.json"
    if not options.redraw:
        data.parent.mkdir(parents=True, exist_ok=True)
        found = run_all(options.jobs, lambda _point: True)
        data.write_text(_json(found))
    found = json.loads(data.read_text())
    draw(found, RESULTS)
    (RESULTS / "density.md").write_text(document(found))


if __name__ == "__main__":
    main()
