"""`inferx explain`: the words must agree with the tables that they are taken from."""

import json
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from inferx.sim.life import Life, life_of

ROOT = Path(__file__).parents[2]
TINY = ROOT / "traces" / "tiny.parquet"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A crowded run of two policies and two seeds."""
    import sys

    from inferx import cli

    path = tmp_path_factory.mktemp("explain") / "run"
    words = ["replay", str(TINY), "--cluster", "g6e.12xlarge=1", "--policy", "default"]
    words += ["--policy", "dedicated", "--seed", "1..2", "--out", str(path)]
    former, sys.argv = sys.argv, ["inferx", *words]
    try:
        cli.main()
    finally:
        sys.argv = former
    return path


@pytest.fixture(scope="module")
def requests(run):
    return pq.read_table(run / "requests.parquet").to_pandas()


def some(requests, policy: str, seed: int, **where: str) -> list[int]:
    """A few requests of one run with the given words in some columns."""
    rows = requests[(requests.policy == policy) & (requests.seed == seed)]
    for column, word in where.items():
        rows = rows[rows[column] == word]
    return rows.request.tolist()[::17]


@pytest.mark.parametrize("policy", ["default", "dedicated"])
def test_stretches_sum_to_the_wait(run, requests, policy):
    for request in some(requests, policy, 2):
        life = life_of(run, request, policy=policy, seed=2)
        assert sum(stretch.ns for stretch in life.stretches) == life.until_ns - life.arrived_ns
        assert all(stretch.ns > 0 for stretch in life.stretches)
        if life.outcome == "finished":
            assert life.until_ns == life.started_ns


def test_cold_start_is_told_with_its_decision(run, requests, good):
    # Starts from elsewhere than host memory are rare: some of each.
    resumed = some(requests, "default", 1, outcome="finished", cause="resume")
    restored = some(requests, "default", 1, outcome="finished", cause="restore-remote")
    assert resumed
    assert restored
    for request in resumed + restored:
        life = life_of(run, request)
        assert life.start is not None
        assert life.start.start == life.cause
        assert life.start.explanation is not None
        assert life.start.at_ns <= life.started_ns
        for victim in life.start.victims:
            assert life.start.at_ns <= victim.left_ns <= life.started_ns
            assert victim.how.startswith("was ")
        out = good("explain", run, request)
        assert f"request {request} of {life.function}" in out
        assert "decided: start pod" in out
        assert "GPUs could take it" in " ".join(out.split())


def test_eviction_names_its_victims_and_when_they_left(run, good):
    decisions = pq.read_table(run / "decisions.parquet").to_pandas()
    evictions = decisions[(decisions.policy == "default") & (decisions.kind == "evict")]
    assert len(evictions), "the cluster is crowded"
    requests = pq.read_table(run / "requests.parquet").to_pandas()
    pods = set(evictions[evictions.seed == 1].pod)
    rows = requests[(requests.policy == "default") & (requests.seed == 1)]
    cold = rows[rows.pod.isin(pods) & (rows.cause != "warm")].request
    lives = (life_of(run, request) for request in cold)
    life = next(life for life in lives if life.start is not None and life.start.victims)
    out = " ".join(good("explain", run, life.request).split())
    assert "to make room, these leave: pod" in out
    assert "while victims left" in out or "was suspended" in out or "was stopped" in out


def test_refusal_says_why_and_how_often_nothing_was_started(run, requests, good):
    request = some(requests, "dedicated", 1, outcome="refused")[0]
    out = " ".join(good("explain", run, request, "--policy", "dedicated").split())
    assert "refused: queue timeout, 120.000 s after it arrived" in out
    assert "no pod was started for its function" in out
    assert "never evicts" in out


def test_warm_request_did_not_wait(run, requests, good):
    rows = requests[(requests.policy == "default") & (requests.seed == 1)]
    row = rows[rows.started_ns == rows.arrived_ns].iloc[0]
    out = good("explain", run, row.request)
    assert "It did not wait." in out
    assert "got a ready pod's slot" in out


def test_json_is_the_whole_life(run, good):
    life = msgspec.json.decode(good("explain", run, 100, "--seed", "2", "--json"), type=Life)
    assert life == life_of(run, 100, policy="default", seed=2)


def test_slowest_are_the_slowest(run, requests, good):
    rows = requests[
        (requests.policy == "default") & (requests.seed == 1) & (requests.outcome == "finished")
    ]
    expected = rows.sort_values(["ttft_s", "request"], ascending=[False, True]).request[:5]
    lives = json.loads(good("explain", run, "--slowest", "5", "--json"))
    assert [life["request"] for life in lives] == expected.tolist()
    table = good("explain", run, "--slowest", "5")
    assert all(str(request) in table for request in expected)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("608",), "no request 608; expected 0 to 607"),
        (("1", "--policy", "nobody"), "expected one of default, dedicated"),
        (("1", "--seed", "7"), "no seed 7 of default; expected one of 1, 2"),
    ],
)
def test_what_is_not_there_is_told_in_one_line(run, call, words, says):
    status, out, err = call("explain", run, *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert says in err


def test_run_that_lost_a_table_is_told_in_one_line(run, call, tmp_path):
    for path in run.iterdir():
        if path.name != "decisions.parquet":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    status, out, err = call("explain", tmp_path, "1")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "decisions.parquet is not part of a run" in err
