"""Sweeps: the same records whatever runs them, and no worker left behind."""

import multiprocessing
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from inferx.load import load_bundle
from inferx.sim.metrics import result_sha256
from inferx.sim.profile import load_profile
from inferx.sim.sweep import Job, RunError, run_job, sweep
from inferx.sim.workload.read import read_trace
from inferx.sim.workload.stored import map_trace, store_trace
from inferx.sim.workload.trace import make_trace
from inferx.sim.world import World
from inferx.spec.cluster import load_cluster
from inferx.spec.template import auto_functions

TRACE = read_trace(Path(__file__).parents[2] / "traces" / "tiny.parquet")
FUNCTIONS = auto_functions(TRACE.names, seed=1)
POLICY = """
import dataclasses
from inferx.policy import default

class Mine:
    def place(self, want, view, rng):
        {body}

def bundle():
    return dataclasses.replace(default.bundle(), name="mine", placement=Mine())
"""


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored") / "trace"
    store_trace(TRACE, folder)
    return folder


@pytest.fixture
def job(stored):
    """Make a job of a policy and a seed."""

    def make(policy: str, seed: int = 1) -> Job:
        return Job(
            policy=policy.partition(":")[0].rpartition("/")[2],
            make=partial(load_bundle, policy, {}),
            seed=seed,
            world=World(
                nodes=load_cluster("g6e.12xlarge=1"),
                functions=FUNCTIONS,
                profile=load_profile("criu-memfd"),
            ),
            trace=stored,
            explain=True,
        )

    return make


def broken(folder: Path, body: str) -> str:
    path = folder / "p.py"
    path.write_text(POLICY.format(body=body))
    return f"{path}:bundle"


def hashes(records) -> list[tuple[str, int, str]]:
    return [(record.policy, record.seed, result_sha256(record)) for record in records]


def test_stored_trace_comes_back_equal_and_read_only(tmp_path):
    store_trace(TRACE, tmp_path / "t")
    back = map_trace(tmp_path / "t", TRACE.names, TRACE.tenants)
    assert back.sha256() == TRACE.sha256()
    assert not any(column.flags.writeable for column in back.columns().values())


def test_empty_trace_is_stored_too(tmp_path):
    store_trace(make_trace(np.zeros(0, np.int64)), tmp_path / "t")
    assert len(map_trace(tmp_path / "t", ("f0000",), ("default",))) == 0


def test_records_come_in_order_and_do_not_depend_on_the_workers(job):
    jobs = [job("default", 1), job("default", 2), job("dedicated", 1), job("serverlessllm", 1)]
    alone = hashes(sweep(jobs))
    assert [(policy, seed) for policy, seed, _ in alone] == [(j.policy, j.seed) for j in jobs]
    assert hashes(sweep(jobs, workers=2)) == alone
    assert hashes(sweep(jobs, workers=9)) == alone
    assert not multiprocessing.active_children()


def test_progress_reaches_every_request(job):
    jobs = [job("dedicated", 1), job("dedicated", 2)]
    for workers in (1, 2):
        told: dict[int, int] = {}
        list(sweep(jobs, workers=workers, on_progress=told.__setitem__))
        assert told[0] == len(TRACE)
        assert workers == 2 or told[1] == len(TRACE)


def test_run_without_anybody_to_tell(job):
    assert len(run_job(job("dedicated")).requests.function) == len(TRACE)


@pytest.mark.parametrize("workers", [1, 2])
def test_error_names_policy_and_seed_and_stops_the_workers(job, tmp_path, workers):
    jobs = [job("dedicated", 1), job(broken(tmp_path, "return Nothing"), 3), job("default", 1)]
    told = r"^policy p.py, seed 3: placement policy: it raised NameError at p.py:7: "
    with closing(sweep(jobs, workers=workers)) as records, pytest.raises(RunError, match=told):
        # Several workers tell at once what is wrong, not when its turn has come.
        list(records)
    assert not multiprocessing.active_children()


def test_worker_that_dies_is_told(job, tmp_path):
    jobs = [job(broken(tmp_path, "import os; os.kill(os.getpid(), 9)"), 4), job("dedicated")]
    with pytest.raises(RunError, match="seed 4: its process died"):
        list(sweep(jobs, workers=2))
    assert not multiprocessing.active_children()


def test_bug_in_a_worker_comes_with_its_traceback(job, tmp_path, stored):
    import dataclasses

    nowhere = dataclasses.replace(job("dedicated"), trace=tmp_path / "nowhere")
    with pytest.raises(RuntimeError, match=r"in a worker:\n(.|\n)*No such file"):
        list(sweep([nowhere, job("dedicated")], workers=2))


def test_sweep_that_is_left_early_leaves_no_worker(job):
    records = sweep([job("default", seed) for seed in range(1, 7)], workers=2)
    next(records)
    assert multiprocessing.active_children()
    records.close()
    assert not multiprocessing.active_children()
