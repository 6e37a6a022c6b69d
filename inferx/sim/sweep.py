"""Runs policies times seeds, in this process or in several, and yields records in their order.

Laws:
1. Records come in the order of the jobs, whatever their number of workers, and are equal to the
   bit: each run has its own policy object, made in the process that runs it.
2. Memory holds at most two records a worker.
3. A run that fails, or whose process dies, is one error with the policy's name and the seed, told
   at once. No worker outlives the sweep, however its process ends; they ignore Ctrl-C, for who
   asked for them stops them.
4. A policy that calls `os._exit` ends its run, not the process.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Self

from inferx.core.errors import InferXError
from inferx.core.protocols import PolicyBundle
from inferx.sim.contained import without_exit
from inferx.sim.driver import simulate
from inferx.sim.record import RunRecord
from inferx.sim.workload.stored import map_trace
from inferx.sim.workload.trace import Trace, chunks_of
from inferx.sim.world import World

__all__ = ["Job", "RunError", "run_job", "sweep"]

_ROWS: Final = 1_000
"""Requests between two reports of progress."""
_LOOK_S: Final = 0.2
"""How often workers' progress is looked at."""
_AHEAD: Final = 2
"""Records that one worker may be ahead of the one that is waited for."""


class RunError(InferXError):
    """A run that could not be carried out; the message begins with its policy and seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run: one policy, one seed.

    Attributes:
        policy: What tables call the policy.
        make: Makes a fresh bundle; it is carried to another process, so it must pickle.
        seed: Of everything in the run that is random.
        world: The run's world; its functions are what the stored trace's indices mean.
        trace: Folder that `store_trace` wrote.
        explain: Whether decisions are explained.
    """

    policy: str
    make: Callable[[], PolicyBundle]
    seed: int
    world: World
    trace: Path
    explain: bool


def run_job(job: Job, on_progress: Callable[[int], None] | None = None) -> RunRecord:
    """Carry out one run in this process.

    Args:
        job: What to run.
        on_progress: Called with how many requests have arrived, every now and then.

    Raises:
        RunError: The policy broke a rule, or a description cannot be used with it.
    """
    names = tuple(function.name for function in job.world.functions)
    trace = map_trace(job.trace, names, ())
    try:
        # Output of the policy's own is not output of the command.
        with contextlib.redirect_stdout(sys.stderr), without_exit():
            bundle = dataclasses.replace(job.make(), name=job.policy)
            chunks = _told(trace, on_progress)
            return simulate(job.world, chunks, bundle, seed=job.seed, explain=job.explain)
    except InferXError as error:
        raise RunError(f"policy {job.policy}, seed {job.seed}: {error}") from error


def _told(trace: Trace, on_progress: Callable[[int], None] | None) -> Iterator[Trace]:
    taken = 0
    for chunk in chunks_of(trace, _ROWS):
        taken += len(chunk)
        if on_progress is not None:
            on_progress(taken)
        yield chunk


def sweep(
    jobs: Sequence[Job],
    *,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> Generator[RunRecord, None, None]:
    """Yield the record of each job, in order. Close the iterator to stop the workers.

    Args:
        jobs: What to run.
        workers: Processes; one runs everything here.
        on_progress: Called with a job's position and how many of its requests have arrived.

    Raises:
        RunError: See `run_job`; or a worker died.
    """
    if workers > 1 and len(jobs) > 1:
        yield from _parallel(jobs, min(workers, len(jobs)), on_progress)
        return
    for index, job in enumerate(jobs):

        def tell(taken: int, index: int = index) -> None:
            if on_progress is not None:
                on_progress(index, taken)

        yield run_job(job, tell)


def _parallel(
    jobs: Sequence[Job], workers: int, on_progress: Callable[[int, int], None] | None
) -> Iterator[RunRecord]:
    # A fresh interpreter each: forking a process with threads is not safe.
    context = multiprocessing.get_context("spawn")
    taken = context.RawArray("q", len(jobs))
    with ExitStack() as stack:
        pool = [stack.enter_context(_Worker(context, taken)) for _ in range(workers)]
        done: dict[int, RunRecord] = {}
        following = 0
        for wanted in range(len(jobs)):
            while wanted not in done:
                for worker in pool:
                    ahead = following < wanted + _AHEAD * workers
                    if worker.index < 0 and following < len(jobs) and ahead:
                        worker.begin(following, jobs[following])
                        following += 1
                busy = {worker.connection: worker for worker in pool if worker.index >= 0}
                for connection in wait(list(busy), timeout=_LOOK_S):
                    worker = busy[connection]  # type: ignore[index]  # only these were given
                    index = worker.index
                    done[index] = worker.take(jobs[index])
                if on_progress is not None:
                    for index in range(following):
                        on_progress(index, taken[index])
            yield done.pop(wanted)


class _Worker:
    """One process that runs jobs, one at a time; a context manager that ends it."""

    def __init__(self, context: SpawnContext, taken: Any) -> None:
        self.connection, theirs = context.Pipe()
        self.index = -1
        """Position of the job under way; -1 when idle."""
        self._process = context.Process(target=_serve, args=(theirs, taken), daemon=True)
        with _without_interrupts():
            self._process.start()
        theirs.close()

    def begin(self, index: int, job: Job) -> None:
        """Hand over a job."""
        self.index = index
        try:
            self.connection.send((index, job))
        except OSError as error:
            raise self._died(job) from error

    def take(self, job: Job) -> RunRecord:
        """Return the record of the job under way, or raise what it raised."""
        try:
            record, refused, crashed = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._died(job) from error
        self.index = -1
        if refused is not None:
            raise RunError(refused)
        if crashed is not None:
            raise RuntimeError(f"policy {job.policy}, seed {job.seed}: in a worker:\n{crashed}")
        assert isinstance(record, RunRecord)
        return record

    def _died(self, job: Job) -> RunError:
        return RunError(
            f"policy {job.policy}, seed {job.seed}: its process died (out of memory?);"
            " expected it to finish; fewer --jobs need less"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.connection.close()
        self._process.terminate()
        self._process.join()
        self._process.close()


@contextlib.contextmanager
def _without_interrupts() -> Generator[None]:
    """Start children that ignore Ctrl-C from birth; what is ignored is inherited."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


def _die_with(parent: BaseProcess, leave: Callable[[int], NoReturn]) -> None:
    """Wait for the parent's end, and end in the midst of a job: nobody waits for its record."""
    parent.join()
    leave(1)


def _serve(connection: Connection, taken: Any) -> None:
    """Run jobs until the other side hangs up."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_die_with, args=(parent, os._exit), daemon=True).start()
    while True:
        try:
            index, job = connection.recv()
        except (EOFError, OSError):
            return
        except Exception:  # noqa: BLE001 - a job that cannot be read here is told there.
            connection.send((None, None, traceback.format_exc()))
            continue

        def tell(count: int, index: int = index) -> None:
            taken[index] = count

        try:
            answer: tuple[RunRecord | None, str | None, str | None]
            answer = (run_job(job, tell), None, None)
        except InferXError as error:
            answer = (None, str(error), None)
        except Exception:  # noqa: BLE001 - it is told on the other side, with its traceback.
            answer = (None, None, traceback.format_exc())
        connection.send(answer)
