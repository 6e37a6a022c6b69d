"""How fast the simulator is, beside its floors, and where its time goes.

    python -m benchmarks.speed [--rounds 5]

Writes benchmarks/results/speed.json and, from it, docs/results/speed.md.

- A warm request: arrival, router, scheduler, serving of tokens and SimPy, at 64 GPUs, with the
  default policy deciding. Floor: two bare SimPy timeouts, in the same process, between the rounds.
- One placement over 4,096 GPUs. Floor: one pass of numpy over the same columns.
- A million requests, 5,000 functions, 4,096 GPUs in a process of its own: time and peak memory.
- Where the time of a warm request and of a large run goes, by sampling, in rounds of their own.
"""

import argparse
import gc
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import simpy

from benchmarks.document import write_document
from benchmarks.spent import spent
from benchmarks.workloads import requests, want, world
from inferx.core.events import NodeJoined
from inferx.core.machine.scheduler import Scheduler
from inferx.core.rng import stream
from inferx.core.types import FunctionId, NodeId
from inferx.load import load_bundle
from inferx.sim.driver import simulate
from inferx.sim.record import RunRecord
from inferx.sim.workload.trace import chunks_of
from inferx.spec.cluster import load_cluster
from inferx.spec.template import auto_functions

RESULT = Path(__file__).parent / "results" / "speed.json"
FLOOR_EVENTS = 200_000
WARM_REQUESTS = 200_000
SAMPLED_REQUESTS = 250_000
MILLION = 1_000_000


def floor_us() -> float:
    """Return what two bare SimPy timeouts cost, in microseconds."""
    env = simpy.Environment()
    left = FLOOR_EVENTS

    def fire(_event: simpy.Event) -> None:
        nonlocal left
        left -= 1
        if left:
            env.timeout(1).callbacks.append(fire)

    env.timeout(1).callbacks.append(fire)
    gc.disable()
    began = time.perf_counter()
    env.run()
    took = time.perf_counter() - began
    gc.enable()
    return 2e6 * took / FLOOR_EVENTS


def warm() -> Callable[[], RunRecord]:
    """Return a run over 64 GPUs whose functions stay warm; starts included."""
    trace = requests(WARM_REQUESTS, 64, 200.0, 0.0)
    around = world(trace, 8, "nvme")
    chunks = list(chunks_of(trace))
    return lambda: simulate(around, chunks, load_bundle("default"), seed=1)


def warm_us() -> float:
    """Return what one request of it costs, in microseconds."""
    run = warm()
    began = time.perf_counter()
    record = run()
    took = time.perf_counter() - began
    assert record.counters["router_finished"] == WARM_REQUESTS
    return 1e6 * took / WARM_REQUESTS


def placement_us(rounds: int = 300) -> tuple[float, float]:
    """Return the median cost of a placement over 4,096 GPUs, and of one numpy pass."""
    nodes = load_cluster("p5.48xlarge=512")
    functions = auto_functions([f"f{i:04d}" for i in range(1000)], seed=1, template="auto:7b")
    bundle = load_bundle("default")
    scheduler = Scheduler(nodes, functions, bundle, stream(1, "policy"))
    scheduler.assume_remote([FunctionId(f) for f in range(len(functions))])
    scheduler.step(0, [NodeJoined(NodeId(n), 0) for n in range(len(nodes))])
    view, rng = scheduler.view, stream(1, "policy")

    def median(call: Callable[[int], object]) -> float:
        took = []
        for index in range(rounds):
            began = time.perf_counter()
            call(index)
            took.append(time.perf_counter() - began)
        return 1e6 * sorted(took)[rounds // 2]

    free, milli = view.gpus.hbm_bytes_free, view.gpus.milli_free
    place = median(lambda f: bundle.placement.place(want(f, functions[f]), view, rng))
    one_pass = median(
        lambda _: np.where(
            (free >= 1 << 30) & (milli >= 100), -free, np.iinfo(np.int64).min
        ).argmax()
    )
    return place, one_pass


def large(count: int) -> Callable[[], RunRecord]:
    """Return a run of `count` requests, 5,000 functions, 4,096 GPUs."""
    trace = requests(count, 5_000, 278.0, 1.0)
    around = world(trace, 512, "nvme")
    return lambda: simulate(around, chunks_of(trace), load_bundle("default"), seed=1)


def million() -> dict[str, float]:
    """Run a million requests here; the caller gives it a process of its own."""
    run = large(MILLION)
    began = time.perf_counter()
    record = run()
    took = time.perf_counter() - began
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    starts = sum(n for name, n in record.counters.items() if name.startswith("starts_"))
    done = record.counters["router_finished"]
    return {"wall_s": took, "peak_rss_mib": peak_mib, "finished": done, "starts": starts}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only-million", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_million:
        print(json.dumps(million()))
        return
    floors, warms = [], []
    for _ in range(options.rounds):
        floors.append(floor_us())
        warms.append(warm_us())
    place, one_pass = placement_us()
    again = [sys.executable, "-m", "benchmarks.speed", "--only-million"]
    answer = subprocess.run(again, capture_output=True, text=True, check=True)
    result: dict[str, object] = {
        "command": "python -m benchmarks.speed",
        "commit": subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()}",
        "python": platform.python_version(),
        "simpy": version("simpy"),
        "numpy": version("numpy"),
        "seed": 1,
        "rounds": options.rounds,
        "warm_request_us": {"min": min(warms), "all": warms},
        "floor_two_timeouts_us": {"min": min(floors), "all": floors},
        "placement_4096_gpus_us": place,
        "floor_one_numpy_pass_us": one_pass,
        "million_requests_5000_functions_4096_gpus": json.loads(answer.stdout),
        "warm_request_spent": spent(warm()),
        "large_run_spent": spent(large(SAMPLED_REQUESTS)),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    write_document(result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
