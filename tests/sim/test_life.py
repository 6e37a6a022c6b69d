"""What `inferx explain` reads back, against a naive look through every decision."""

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from inferx.core.explain import Decision, Explanation
from inferx.core.rng import stream
from inferx.sim.decisions import DecisionLog
from inferx.sim.life import life_of
from inferx.sim.output import OutputError, RunWriter

make_record = runpy.run_path(str(Path(__file__).with_name("synthetic_record.py")))["make_record"]


@pytest.fixture(scope="module")
def deferred(tmp_path_factory):
    """A run whose functions are deferred at random; every decision, the record and the run."""
    record = make_record(requests=120, gpus=2, functions=4)
    rng = stream(3, "deferrals")
    times = np.sort(rng.integers(0, record.span_ns, 2_000))
    # Some fall on the very instants at which requests came, or got their slot.
    requests = record.requests
    times[::7] = rng.choice(requests.arrived_ns, len(times[::7]))
    times[3::11] = rng.choice(requests.started_ns[requests.started_ns >= 0], len(times[3::11]))
    made = [
        Decision(
            int(at_ns),
            "defer" if rng.random() < 0.97 else "sink",
            int(rng.integers(4)),
            reason="no room" if rng.random() < 0.95 else "full",
            explanation=Explanation(gpus=2, feasible=int(rng.integers(2))),
        )
        for at_ns in np.sort(times)
    ]
    log = DecisionLog()
    for decision in made:
        log.take(decision)
    path = tmp_path_factory.mktemp("life") / "run"
    with RunWriter(path, command=["inferx", "replay", "t"]) as writer:
        writer.add(replace(record, decisions=log.rows))
    return made, record, path


def test_deferrals_of_a_request_are_those_of_its_wait(deferred):
    made, record, path = deferred
    assert pq.read_table(path / "decisions.parquet").num_rows < len(made) / 4
    within = 0
    for request in range(len(record.requests.function)):
        life = life_of(path, request)
        function = int(record.requests.function[request])
        mine = [
            one
            for one in made
            if one.kind == "defer"
            and one.function == function
            and life.arrived_ns <= one.at_ns <= life.until_ns
        ]
        found = life.deferrals
        if not mine:
            assert found is None
            continue
        assert found is not None
        assert (found.count, found.first_ns, found.last_ns, found.reason) == (
            len(mine),
            mine[0].at_ns,
            mine[-1].at_ns,
            mine[-1].reason,
        )
        assert found.explanation == mine[-1].explanation
        within += len(mine) > 1
    assert within > 20, "waits see several deferrals"


def test_run_of_another_layout_is_told_in_one_line(deferred, tmp_path):
    _, _, path = deferred
    for file in path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    table = pq.read_table(path / "decisions.parquet").drop_columns(["again_ns"])
    pq.write_table(table, tmp_path / "decisions.parquet")
    with pytest.raises(OutputError, match=r"decisions\.parquet is not part of a run that this"):
        life_of(tmp_path, 0)
