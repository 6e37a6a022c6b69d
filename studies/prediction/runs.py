"""What is run: the bench, a trace on a real cluster, and the same in the simulator."""

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from inferx.cli.live_journals import Journals, read_journals
from inferx.cli.live_records import predicted, world_of
from inferx.cli.profile_lines import serving_lines, stage_lines
from inferx.load import load_bundle
from inferx.sim.link import LinkModel
from inferx.sim.profile import load_profile
from inferx.sim.record import RunRecord
from inferx.sim.workload.read import read_trace
from studies.prediction.bed import INFERX, etcd, run, up
from studies.prediction.case import PLACE, Case, functions

__all__ = ["bench", "draws", "live", "with_path"]


def bench(case: Case, scratch: Path) -> Path:
    """Measure starts with nothing else running; return the profile, at the declared pace."""
    profile = scratch / "bench.toml"
    sizes = ",".join(f"{size}MiB" for size in case.sizes_mib)
    command = ["agent", "bench", "--sizes", sizes, "--tiers", "nvme", "--rounds", "4"]
    command += ["--sandbox", "process", "--of-workers", "--profile", str(profile)]
    run((*INFERX, *command), {})
    with profile.open("a") as file:
        file.write(case.serving_text())
    return profile


def with_path(bench: Path, calibrated: Path) -> Path:
    """Return the bench's profile with what a bench has not: a cluster's orders, and its pace.

    Operations keep the bench's times. What it costs to order one, and to ask a pod by way of a
    gateway, is the other profile's.
    """
    path = bench.with_name("bench-and-path.toml")
    own, other = load_profile(str(bench)), load_profile(str(calibrated))
    told = {"source": f"As in {other.name}", "date": "see there", "basis": "measured"}
    lines = ['name = "bench"', 'summary = "a bench, and a path"', f"inherits = {str(bench)!r}"]
    for operation, stages in own.operations.items():
        orders = [stage for stage in other.operations.get(operation, ()) if stage.untold]
        for stage in (*orders, *stages):
            lines += stage_lines(operation, stage)
    for name, speed in other.speeds.items():
        lines += serving_lines(name, speed, **told)
    path.write_text("\n".join(lines) + "\n")
    return path


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
    return folder, _replayed(folder / "up" / "journals")


def draws(folder: Path, profile: Path, count: int) -> Iterator[RunRecord]:
    """Yield what the simulator says of a live run, by a profile, again and again.

    Each time other device times are drawn, and the first request comes at another instant of the
    scheduler's control period: nobody knows either of a run before it.
    """
    told = read_journals(folder / "up" / "journals")
    trace = read_trace(folder / "trace.parquet", seed=1)
    world = world_of(told, load_profile(str(profile)), LinkModel())
    period_ns = _period_ns(told)
    for seed in range(1, count + 1):
        later_ns = int(np.random.default_rng(seed).integers(period_ns))
        shifted = replace(trace, arrival_ns=trace.arrival_ns + later_ns)
        yield predicted(shifted, told, world, seed=seed)


def _period_ns(told: Journals) -> int:
    return load_bundle(told.policy, told.settings).control_period_ns


def _replayed(journals: Path) -> list[dict]:
    """Hold every journal to its machine (L0); return what came of it."""
    command = (*INFERX, "replay-journal", "--json", str(journals))
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    return [
        {key: one[key] for key in ("machine", "steps", "truncated")}
        | {"same": one["divergence"] is None}
        for one in told
    ]
