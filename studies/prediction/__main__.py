"""Measures this machine, runs the case live, predicts it, and writes data, plot and page."""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import combinations, product
from pathlib import Path

from benchmarks.about import processor
from inferx.sim.profile import load_profile
from studies.prediction.bed import missing
from studies.prediction.case import Case
from studies.prediction.compare import (
    by_kind,
    columns_of,
    middle,
    numbers_of,
    observed_run,
    same_cause,
    spread,
)
from studies.prediction.document import document
from studies.prediction.plots import draw
from studies.prediction.runs import bench, draws, live, with_path

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
LIVE_RUNS = 3
"""Of the same trace: how far one is from another is the least that a prediction can be off by."""
DRAWS = 20
"""Of simulated runs, by each profile."""
CALIBRATED_SEED = 2
"""Of the trace that the second profile is measured on: not the one that is predicted."""
HINDSIGHT = "hindsight"
"""The profile that is measured on the run itself: what is wrong then is not its times."""


def measure(case: Case, scratch: Path) -> dict:
    """Run everything; return what the document is made from."""
    began = time.monotonic()
    alone = bench(case, scratch)
    calibrated, own = scratch / "calibrated.toml", scratch / f"{HINDSIGHT}.toml"
    other = replace(case, seed=CALIBRATED_SEED, span_s=0.75 * case.span_s)
    base = ("--predict", str(alone))
    _, journals = live(other, scratch, "other", *base, "--calibrate", str(calibrated))
    profiles = {"bench": with_path(alone, calibrated), "calibrated": calibrated, HINDSIGHT: own}
    folders: list[Path] = []
    for number in range(LIVE_RUNS):
        told = () if number else ("--calibrate", str(own))
        folder, replayed = live(case, scratch, f"live-{number}", *base, *told)
        folders.append(folder)
        journals += replayed
    runs = {"live": [observed_run(folder / "run") for folder in folders]}
    for name, path in profiles.items():
        records = draws(folders[0], path, DRAWS)
        runs[f"predicted ({name})"] = [(numbers_of(one), columns_of(one)) for one in records]
    columns = {who: [told for _, told in found] for who, found in runs.items()}
    git = ["git", "rev-parse", "HEAD"]
    return {
        "command": "python -m studies.prediction",
        "commit": subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{processor()}, {os.cpu_count()} CPUs, Linux {platform.release()}",
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[2],
        "nice": os.nice(0),
        "seconds": round(time.monotonic() - began),
        "case": asdict(case),
        "draws": DRAWS,
        "journals": journals,
        "profiles": {name: stages(path) for name, path in profiles.items()},
        "rows": {who: middle([row for row, _ in found]) for who, found in runs.items()},
        "spread": {who: spread([row for row, _ in found]) for who, found in runs.items()},
        "kinds": {who: by_kind(told) for who, told in columns.items()},
        "same": {who: shares(columns["live"], told) for who, told in columns.items()},
        # All of what is real, and one draw of each prediction.
        "requests": {who: told if who == "live" else told[:1] for who, told in columns.items()},
    }


def shares(real: list[dict], told: list[dict]) -> list[float]:
    """Return the least, the usual and the largest share of requests with the same cause.

    Of pairs of a live run and another one: a live one, or a simulated one.
    """
    pairs = combinations(real, 2) if told is real else product(real, told)
    found = sorted(same_cause(one["cause"], two["cause"]) for one, two in pairs)
    return [found[0], found[len(found) // 2], found[-1]]


def stages(path: Path) -> dict[str, list[dict]]:
    """Return a profile's stages as they are told of: fixed part, rate, spread."""
    profile = load_profile(str(path))
    return {
        operation: [
            {
                "from": stage.only_from,
                "fixed_s": stage.fixed_s,
                "bytes_of": stage.bytes_of,
                "bytes_per_s": stage.cap_bytes_per_s,
                "cv": stage.jitter_cv,
                "basis": stage.basis,
                "told": not stage.untold,
            }
            for stage in found
        ]
        for operation, found in profile.operations.items()
    }


def _json(found: dict) -> str:
    """Return the data as JSON, a line for each column."""
    lines = []
    for key, value in found.items():
        if key == "requests":
            runs = [f"{json.dumps(who)}: [{_columns(value[who])}]" for who in value]
            lines.append(f' "{key}": {{\n  ' + ",\n  ".join(runs) + "\n }")
        else:
            lines.append(f' "{key}": {json.dumps(value)}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _columns(runs: list[dict]) -> str:
    return ", ".join(
        "{\n   "
        + ",\n   ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in run.items())
        + "\n  }"
        for run in runs
    )


def main() -> None:
    """Run, or redraw what was kept."""
    parser = argparse.ArgumentParser(prog="python -m studies.prediction")
    parser.add_argument("--redraw", action="store_true", help="use the kept data")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave journals and runs there")
    options = parser.parse_args()
    data = RESULTS / "data" / "prediction.json"
    if not options.redraw:
        if why := missing():
            sys.exit(f"python -m studies.prediction: {why}")
        with tempfile.TemporaryDirectory(prefix="inferx-prediction-") as scratch:
            where = options.keep or Path(scratch)
            where.mkdir(parents=True, exist_ok=True)
            data.write_text(_json(measure(Case(), where)))
    found = json.loads(data.read_text())
    draw(found, RESULTS)
    (RESULTS / "prediction.md").write_text(document(found))


if __name__ == "__main__":
    main()
