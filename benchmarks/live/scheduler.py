"""How many decisions a second a scheduler makes and has carried out.

    python -m benchmarks.live.scheduler [--seconds 10] [--rounds 3]

State service (SQLite, durable) and scheduler are processes of their own, as `inferx up` runs them.
The gateways' and the nodes' side is one more process: real machines and lines, no HTTP, and actions
that take no time, to write down what a function is among them (`idle_nodes.py`). Two loads:

- *leases*: no more functions than fit, all ready; each request is one lease, given back at once;
- *starts*: four times as many, asked for in turn: each request needs a pod started where others
  are evicted, which is made durable before its node is told.

What it decided, its own counters tell: they are read before and after, as Prometheus would.

Writes docs/results/data/scheduler-rate.json and docs/results/control-plane.md.
"""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.about import DATA, about
from benchmarks.gateway.servers import cpu_s, rss_mib
from benchmarks.live.caller import Caller
from benchmarks.live.decided import decided
from benchmarks.live.document import write_document
from benchmarks.live.idle_nodes import GPUS, IdleNode
from benchmarks.live.services import service
from inferx.exec.clock import WallClock
from inferx.exec.state.objects.actor import ADMIN
from inferx.exec.state.objects.envelope import DataObject
from inferx.exec.state.objects.objects import Objects
from inferx.exec.state.opening import open_store

NODES, PER_GPU, CROWD = 8, 3, 4
AT_ONCE = 64
"""Requests under way."""
FIT = NODES * GPUS * PER_GPU
LOADS = {"leases": 5 * FIT // 6, "starts": CROWD * FIT}
"""Functions of each load. Of fewer than twice as many as requests under way some would be asked for
again before their lease went back: that is no lease more."""
OWN = "callers and nodes"
"""What this process stands for."""
RESULT = DATA / "scheduler-rate.json"


def system(kind: str, tenant: str, name: str, body: dict[str, Any]) -> DataObject:
    """Return an object that functions need."""
    return DataObject(type=kind, tenant=tenant, namespace="system", name=name, object=body)


def function(number: int) -> DataObject:
    """Return a function of a third of a GPU, whose lease comes back at once."""
    spec = {
        "image": "vllm/vllm-openai:v0.9.0",
        "commands": ["--model", f"f{number}"],
        "resources": {"CPU": 100, "Mem": 500, "GPU": {"Type": "Any", "Count": 1, "vRam": 20_000}},
        "endpoint": {"port": 8000, "schema": "Http", "probe": "/health"},
        "policy": {"Obj": {"parallel": 1, "max_replica": 1, "scalein_timeout": 0.0}},
        "inferx": {"milli_gpu": 1000 // PER_GPU},
    }
    return DataObject(
        type="function", tenant="t", namespace="n", name=f"f{number}", object={"spec": spec}
    )


def _each(figure: Callable[[int], float], pids: dict[str, int]) -> dict[str, float]:
    """Return a figure of each process, this one's without the services, which it has started."""
    found = {name: figure(pid) for name, pid in pids.items()}
    found[OWN] -= sum(of for name, of in found.items() if name != OWN)
    return found


async def load(
    kind: str,
    state: str,
    scheduler: str,
    metrics: str,
    pids: dict[str, int],
    folder: Path,
    seconds: float,
) -> dict[str, Any]:
    """Ask for functions in turn, `AT_ONCE` at a time, and return what that cost."""
    clock = WallClock()
    store = await open_store(state, clock)
    objects = Objects(store)
    limit = {"max_funccount": 100_000, "max_replica": 4}
    for one in (
        system("tenant", "system", "t", {"spec": {"limit": limit}, "status": {}}),
        system("namespace", "t", "n", {"spec": {}, "status": {"disable": False}}),
    ):
        await objects.create(one, who=ADMIN)
    for number in range(LOADS[kind]):
        await objects.create(function(number), who=ADMIN)
    nodes = [IdleNode(f"n{number}", folder, store, clock) for number in range(NODES)]
    caller = Caller(objects, scheduler, clock)
    latencies: list[float] = []
    refused = 0
    turn = itertools.cycle(f"f{number}" for number in range(LOADS[kind]))
    ends = 0.0

    async def ask_on() -> None:
        nonlocal refused
        while time.monotonic() < ends:
            begun = time.perf_counter()
            if await caller.ask(next(turn)):
                latencies.append(time.perf_counter() - begun)
            else:
                refused += 1

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(node.serve()) for node in nodes]
        running.append(tasks.create_task(caller.run()))
        await caller.knows(LOADS[kind])
        # Once through all of them, so that nothing is met for the first time.
        ends = time.monotonic() + seconds
        await asyncio.gather(*(ask_on() for _ in range(AT_ONCE)))
        latencies.clear()
        decided_before = await asyncio.to_thread(decided, metrics)
        before = _each(cpu_s, pids)
        started, begun = sum(node.started for node in nodes), time.monotonic()
        leased = caller.leased
        ends = begun + seconds
        await asyncio.gather(*(ask_on() for _ in range(AT_ONCE)))
        took = time.monotonic() - begun
        spent = {name: took_s - before[name] for name, took_s in _each(cpu_s, pids).items()}
        started = sum(node.started for node in nodes) - started
        leased = caller.leased - leased
        decisions = await asyncio.to_thread(decided, metrics) - decided_before
        memory = _each(rss_mib, pids)
        for task in running:
            task.cancel()
    await store.close()
    ordered = sorted(latencies)
    return {
        "load": kind,
        "functions": LOADS[kind],
        "requests": len(ordered),
        "refused": refused,
        "leases": leased,
        "starts": started,
        "decisions": dict(decisions),
        "seconds": took,
        "cpu_s": spent,
        "rss_mib": memory,
        "p50_ms": 1e3 * statistics.median(ordered),
        "p99_ms": 1e3 * ordered[int(0.99 * len(ordered))],
    }


def measure(kind: str, seconds: float) -> dict[str, Any]:
    """Run one load over services of its own."""
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)

        def run(name: str, *options: str) -> tuple[dict[str, Any], int]:
            command = (name, *options, "--listen", "127.0.0.1:0")
            return stack.enter_context(service(folder, name, *command))

        state, state_pid = run("state", "--store", f"sqlite:{folder / 'state.db'}")
        address = f"grpc://{state['address']}"
        scheduler, scheduler_pid = run("scheduler", "--state", address)
        pids = {"scheduler": scheduler_pid, "state": state_pid, OWN: os.getpid()}
        at = scheduler["address"], scheduler["metrics"]
        return uvloop.run(load(kind, address, *at, pids, folder / "nodes", seconds))


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live.scheduler")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    runs: list[dict[str, Any]] = []
    for number in range(options.rounds):
        for kind in LOADS:
            found = measure(kind, options.seconds)
            runs.append({"round": number, **found})
            print(
                f"{number} {kind}: {found['requests'] / found['seconds']:,.0f} requests/s, "
                f"{found['starts'] / found['seconds']:,.0f} starts/s, "
                f"p50 {found['p50_ms']:.1f} ms, p99 {found['p99_ms']:.1f} ms, "
                f"scheduler {found['cpu_s']['scheduler'] / found['seconds']:.2f} CPUs",
                flush=True,
            )
    found = {**about("benchmarks.live.scheduler", seed=1), "at_once": AT_ONCE, "nodes": NODES}
    options.out.write_text(json.dumps({**found, "runs": runs}, indent=1) + "\n")
    if options.out == RESULT:
        write_document()


if __name__ == "__main__":
    main()
