"""Runs policies times workloads times seeds, in one process or several, and gives them in order.

Laws:
1. Results come in the order of workload, seed, policy and are equal to the bit on any number of
   processes.
2. One workload's lists and remembered fragments are made once a process.
"""

import multiprocessing
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from inferx.core.errors import InferXError
from inferx.core.rng import stream
from inferx.policy.packing.case import PackingRule
from inferx.policy.packing.fragmentation import Fragmentation, typical_pods
from inferx.policy.packing.published import PUBLISHED
from inferx.policy.packing.shapes import NodeState
from inferx.sim.packing.columns import ColumnChooser
from inferx.sim.packing.curves import Curves
from inferx.sim.packing.lists import NodeList, PodList, read_nodes, read_pods
from inferx.sim.packing.optimum import optimum_milli
from inferx.sim.packing.orders import OrderFile, draw_order
from inferx.sim.packing.replay import Chooser, PublishedChooser, pack

__all__ = ["PackJob", "PackPolicy", "PackRun", "run_jobs"]


@dataclass(frozen=True, slots=True)
class PackPolicy:
    """A rule by name.

    Attributes:
        make: Makes it, in the process that runs it, so it must pickle; None for a published rule.
    """

    name: str
    make: Callable[[], PackingRule] | None


@dataclass(frozen=True, slots=True)
class PackJob:
    """One workload under one seed, under each of the policies; beside them an optimum, or not."""

    pods: Path
    nodes: Path
    orders: Path | None
    seed: int
    policies: tuple[PackPolicy, ...]
    optimum: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PackRun:
    """One policy's result.

    Attributes:
        arrivals: Pods that arrived.
        placed: Pods that found a place.
        placed_milli: Thousandths of a GPU that they took.
        gpus: Of the cluster.
        optimum_milli: The most that could be placed of all that arrived; None if nobody asked.
    """

    workload: str
    policy: str
    seed: int
    curves: Curves
    arrivals: int
    placed: int
    placed_milli: int
    gpus: int
    optimum_milli: int | None


@dataclass(frozen=True, slots=True)
class _Workload:
    pods: PodList
    nodes: NodeList
    measure: Fragmentation


@lru_cache(maxsize=2)
def _workload(pods_path: Path, nodes_path: Path) -> _Workload:
    pods = read_pods(pods_path)
    return _Workload(pods, read_nodes(nodes_path), Fragmentation(typical_pods(pods.shapes)))


@lru_cache(maxsize=1)
def _order_file(path: Path) -> OrderFile:
    return OrderFile(path)


def run_jobs(jobs: Sequence[PackJob], *, workers: int = 1) -> Generator[list[PackRun], None, None]:
    """Yield the runs of each job, in order. Close the iterator to stop the workers.

    Raises:
        DescriptionError: A file is not what it should be.
        InferXError: A worker died.
    """
    if workers == 1 or len(jobs) < 2:
        for job in jobs:
            yield list(_run(job))
        return
    # A fresh interpreter each: forking a process with threads is not safe.
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    )
    try:
        waiting: list[Future[list[PackRun]]] = [pool.submit(_run_all, job) for job in jobs]
        for future in waiting:
            yield future.result()
    except BrokenProcessPool as error:
        raise InferXError("a worker died (out of memory?); fewer --jobs need less") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _run_all(job: PackJob) -> list[PackRun]:
    return list(_run(job))


def _run(job: PackJob) -> Iterator[PackRun]:
    known = _workload(job.pods, job.nodes)
    if job.orders is None:
        order = draw_order(known.pods, known.nodes, job.seed)
    else:
        order = _order_file(job.orders).order(known.pods, known.nodes, job.seed)
    rows: list[int] = order.pods.tolist()
    arrivals = [known.pods.shapes[row] for row in rows]
    rank = order.rank.tolist()
    # First, for it refuses long lists.
    optimum = optimum_milli(arrivals, known.nodes.states) if job.optimum else None
    for policy in job.policies:

        def at_work(nodes: list[NodeState], policy: PackPolicy = policy) -> Chooser:
            rng = stream(job.seed, f"packing-{policy.name}")
            if policy.make is None:
                return PublishedChooser(PUBLISHED[policy.name](known.measure), nodes, rng)
            return ColumnChooser(policy.make(), nodes, known.measure.typical, rng)

        done = pack(arrivals, known.nodes.states, rank, at_work, known.measure)
        taken = [p.gpus * p.milli for p, at in zip(arrivals, done.nodes, strict=True) if at >= 0]
        yield PackRun(
            workload=known.pods.name,
            policy=policy.name,
            seed=job.seed,
            curves=done.curves,
            arrivals=len(arrivals),
            placed=len(taken),
            placed_milli=sum(taken),
            gpus=known.nodes.gpu_count,
            optimum_milli=optimum,
        )
