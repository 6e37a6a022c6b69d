"""Measures this machine, runs the case live twice, predicts it, and writes data, plot and page."""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.about import processor
from inferx.cli.live_journals import read_journals
from inferx.cli.live_records import predicted, world_of
from inferx.sim.link import LinkModel
from inferx.sim.metrics import summarise
from inferx.sim.output import read_summary
from inferx.sim.profile import load_profile
from inferx.sim.record import RunRecord
from inferx.sim.workload.read import read_trace
from studies.prediction.bed import INFERX, etcd, missing, run, up
from studies.prediction.case import PLACE, Case, functions
from studies.prediction.compare import columns_of, numbers, request_columns
from studies.prediction.document import document
from studies.prediction.plots import draw

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
SEEDS = range(1, 21)
"""Of simulated runs, for how far the prediction itself spreads."""
CALIBRATED_SEED = 2
"""Of the trace that the second profile is measured on: not the one that is predicted."""
HINDSIGHT = "hindsight"
"""The profile that is measured on the run itself: what is wrong then is not its times."""


def bench(case: Case, scratch: Path) -> Path:
    """Measure starts with nothing else running; return the profile, at the declared pace."""
    profile = scratch / "bench.toml"
    sizes = ",".join(f"{size}MiB" for size in case.sizes_mib)
    command = ["agent", "bench", "--sizes", sizes, "--tiers", "nvme", "--rounds", "2"]
    command += ["--sandbox", "process", "--of-workers", "--profile", str(profile)]
    run((*INFERX, *command), {})
    with profile.open("a") as file:
        file.write(case.serving_text())
    return profile


def live(case: Case, scratch: Path, name: str, *options: str) -> tuple[Path, list[dict]]:
    """Run a case on a cluster of its own; return the folder, and how its journals replay."""
    folder = scratch / name
    folder.mkdir()
    trace = folder / "trace.parquet"
    case.write_trace(trace)
    (folder / "functions.json").write_text(json.dumps(functions(case, folder)))
    with (
        etcd(folder) as endpoint,
        up(
            folder,
            *("--store", f"etcd://{endpoint}", "--gpus", case.gpus, "--host", case.host),
            *("--policy", case.policy, "--journal"),
        ) as told,
    ):
        env = {"INFERX_SERVER": told["gateway"], "INFERX_API_KEY": told["api_key"]}
        run((*INFERX, "apply", "-f", str(folder / "functions.json")), env)
        # Where functions are called from must have heard of them, and the scheduler of its node.
        time.sleep(2)
        journals = folder / "up" / "journals"
        command = ("drive", str(trace), "--in", PLACE, "--journals", str(journals))
        run((*INFERX, *command, "--out", str(folder / "run"), *options), env)
    return folder, replayed(folder / "up" / "journals")


def replayed(journals: Path) -> list[dict]:
    """Hold every journal to its machine (L0); return what came of it."""
    command = (*INFERX, "replay-journal", "--json", str(journals))
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    return [
        {key: one[key] for key in ("machine", "steps", "truncated")}
        | {"same": one["divergence"] is None}
        for one in told
    ]


def simulated(folder: Path, profile: Path, seed: int | None = None) -> RunRecord:
    """Return what the simulator says of a live run, by a profile."""
    told = read_journals(folder / "up" / "journals")
    trace = read_trace(folder / "trace.parquet", seed=1)
    world = world_of(told, load_profile(str(profile)), LinkModel())
    return predicted(trace, told, world, seed=seed)


def spread(folder: Path, profile: Path) -> dict[str, list[float]]:
    """Return each number's least and largest over `SEEDS` of the same prediction."""
    rows = [numbers(summarise(simulated(folder, profile, seed))) for seed in SEEDS]
    return {key: [min(row[key] for row in rows), max(row[key] for row in rows)] for key in rows[0]}


def measure(case: Case, scratch: Path) -> dict:
    """Run everything; return what the document is made from."""
    began = time.monotonic()
    profiles = {"bench": bench(case, scratch)}
    other = replace(case, seed=CALIBRATED_SEED, span_s=0.75 * case.span_s)
    profiles["calibrated"] = scratch / "calibrated.toml"
    options = ("--predict", str(profiles["bench"]), "--calibrate", str(profiles["calibrated"]))
    _, first = live(other, scratch, "first", *options)
    options = tuple(word for one in profiles.values() for word in ("--predict", str(one)))
    own = scratch / f"{HINDSIGHT}.toml"
    folder, second = live(case, scratch, "second", *options, "--calibrate", str(own))
    profiles[HINDSIGHT] = own
    git = ["git", "rev-parse", "HEAD"]
    rows = {row.policy: numbers(row) for row in read_summary(folder / "run").rows}
    requests = request_columns(folder / "run")
    record = simulated(folder, own)
    rows[record.policy], requests[record.policy] = numbers(summarise(record)), columns_of(record)
    return {
        "command": shlex.join(["python", "-m", "studies.prediction", *sys.argv[1:]]),
        "commit": subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{processor()}, {os.cpu_count()} CPUs, Linux {platform.release()}",
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[2],
        "seconds": round(time.monotonic() - began),
        "case": asdict(case),
        "journals": [*first, *second],
        "profiles": {name: stages(path) for name, path in profiles.items()},
        "rows": rows,
        "spread": {name: spread(folder, path) for name, path in profiles.items()},
        "requests": requests,
    }


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
            runs = [
                f"{json.dumps(who)}: {{\n   "
                + ",\n   ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in columns.items())
                + "\n  }"
                for who, columns in value.items()
            ]
            lines.append(f' "{key}": {{\n  ' + ",\n  ".join(runs) + "\n }")
        else:
            lines.append(f' "{key}": {json.dumps(value)}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> None:
    """Run, or redraw what was kept."""
    parser = argparse.ArgumentParser(prog="python -m studies.prediction")
    parser.add_argument("--redraw", action="store_true", help="use the kept data")
    options = parser.parse_args()
    data = RESULTS / "data" / "prediction.json"
    if not options.redraw:
        if why := missing():
            sys.exit(f"python -m studies.prediction: {why}")
        with tempfile.TemporaryDirectory(prefix="inferx-prediction-") as scratch:
            data.write_text(_json(measure(Case(), Path(scratch))))
    found = json.loads(data.read_text())
    draw(found, RESULTS)
    (RESULTS / "prediction.md").write_text(document(found))


if __name__ == "__main__":
    main()
