"""`inferx replay`, as a user calls it."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from inferx.sim.output import RunWriter, read_manifest, read_summary
from inferx.sim.workload.trace import make_trace
from inferx.sim.workload.write import write_trace
from inferx.spec.functions import load_functions

ROOT = Path(__file__).parents[2]
TINY = ROOT / "traces" / "tiny.parquet"
EXAMPLE = ROOT / "docs" / "examples" / "my_policy.py"
SMALL = ("replay", TINY, "--cluster", "g6e.12xlarge=1")
# A shell starts background jobs deaf to the interrupt; whoever runs the tests may be one.
MAIN = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from inferx.cli import main; sys.argv[0] = 'inferx'; main()"
)


def contents(run: Path) -> dict[str, str]:
    """Name and hash of each file; the manifest without its `wall_clock`."""
    found = {}
    for path in sorted(run.iterdir()):
        content = path.read_bytes()
        if path.name == "manifest.json":
            facts = json.loads(content)
            assert facts.pop("wall_clock")["seconds"] >= 0
            content = json.dumps(facts).encode()
        found[path.name] = hashlib.sha256(content).hexdigest()
    return found


def test_table_says_where_every_request_went(good, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    out = good(*SMALL, "--policy", "default", "--policy", "dedicated", "--against", "default")
    assert re.search(r"default: 608 finished = 608|default: \d+ finished \+ .* = 608", out)
    assert re.search(r"dedicated: \d+ finished \+ \d+ refused = 608", out)
    assert "Less default, on the same arrivals" in out


def test_regret_says_which_bound_and_does_not_depend_on_jobs(good, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    words = (*SMALL, "--policy", "default", "--policy", "dedicated", "--seed", "1..2", "--regret")
    out = good(*words, "--warmup", 5, "--out", tmp_path / "one")
    assert "Over what no policy could beat: prewarm." in out
    good(*words, "--warmup", 5, "--out", tmp_path / "two", "--jobs", 2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    for row in read_summary(tmp_path / "one").rows:
        assert row.regret is not None
        assert row.regret.regret_pct >= 0
        assert row.regret.mean_wait_s >= row.regret.bound_wait_s
        assert row.regret.requests < row.arrived
    assert all(row["regret"] is None for row in json.loads(good(*SMALL, "--json"))["rows"])


def test_run_directory_is_whole(good, tmp_path):
    run = tmp_path / "run"
    good(*SMALL, "--seed", "1..2", "--out", run)
    assert {path.name for path in run.iterdir()} == {
        "cluster.json",
        "decisions.parquet",
        "functions-seed-1.json",
        "functions-seed-2.json",
        "manifest.json",
        "report.html",
        "requests.parquet",
        "summary.json",
        "timeline.parquet",
    }
    manifest = read_manifest(run)
    assert set(manifest.outputs) == {path.name for path in run.iterdir()} - {"manifest.json"}
    assert manifest.complete
    assert manifest.seeds == [1, 2]
    assert manifest.settings == {"policy.default": "default", "profile.default": "criu-memfd"}
    asked = f"inferx replay {TINY} --cluster g6e.12xlarge=1 --policy default --seed 1..2"
    assert manifest.command == asked.split()
    assert set(manifest.inputs) == {"trace"}
    assert list(tmp_path.iterdir()) == [run]


def test_json_prints_the_summary_and_nothing_else(good, tmp_path):
    out = good(*SMALL, "--out", tmp_path / "run", "--json")
    assert out == (tmp_path / "run" / "summary.json").read_text()
    assert json.loads(out)["rows"][0]["arrived"] == 608


def test_without_out_nothing_is_written(good, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert json.loads(good(*SMALL, "--json"))["complete"]
    assert list(tmp_path.iterdir()) == []


def test_bytes_depend_neither_on_jobs_nor_on_the_hash_seed(tmp_path):
    policies = ("--policy", EXAMPLE, "--set", "hold_s=30", "--policy", "inferx-reference")
    words = (*SMALL, *policies, "--seed", "1,2", "--against", "inferx-reference", "--link-loss")
    words = (*words, "0.01", "--routers", "2")
    runs = []
    for hash_seed, jobs in ((1, 1), (2, 2)):
        run = tmp_path / f"run-{jobs}"
        subprocess.run(
            [sys.executable, "-c", MAIN, *map(str, words), "--jobs", str(jobs), "--out", str(run)],
            env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
            check=True,
            capture_output=True,
        )
        runs.append(contents(run))
    assert runs[0] == runs[1]
    assert len(runs[0]) == 9


def test_seed_means_the_same_requests_for_every_policy(good, tmp_path):
    run = tmp_path / "run"
    two = ("--policy", "default", "--policy", "dedicated", "--seed", "1..2")
    good(*SMALL, "--assign", "zipf:1.1,20", *two, "--out", run)
    table = pq.read_table(run / "requests.parquet").to_pandas()
    functions = {
        key: list(rows.function) for key, rows in table.groupby(["policy", "seed"], observed=True)
    }
    assert functions["default", 1] == functions["dedicated", 1]
    assert functions["default", 2] == functions["dedicated", 2]
    assert functions["default", 1] != functions["default", 2]


def test_same_seed_gives_the_same_result_whatever_else_runs(good):
    alone = json.loads(good(*SMALL, "--seed", "2", "--json"))
    among = json.loads(
        good(*SMALL, "--policy", "dedicated", "--policy", "default", "--seed", "1..2", "--json")
    )
    hashes = {(row["policy"], row["seed"]): row["result_sha256"] for row in among["rows"]}
    assert alone["rows"][0]["result_sha256"] == hashes["default", 2]


def test_setting_belongs_to_the_policy_before_it(good):
    words = ("--policy", "default", "--set", "lanes=9", "--set", "waits=1", "--policy", "default")
    rows = json.loads(good(*SMALL, *words, "--json"))["rows"]
    assert [row["policy"] for row in rows] == ["default lanes=9 waits=1", "default"]


def test_baseline_joins_the_policies_if_it_is_not_among_them(good):
    summary = json.loads(good(*SMALL, "--policy", EXAMPLE, "--against", "default", "--json"))
    assert [row["policy"] for row in summary["rows"]] == ["my-policy", "default"]
    assert summary["baseline"] == "default"
    assert {pair["policy"] for pair in summary["paired"]} == {"my-policy"}


def test_functions_that_a_run_wrote_replay_the_same(good, tmp_path):
    run = tmp_path / "run"
    first = json.loads(good(*SMALL, "--out", run, "--json"))
    functions = run / "functions.json"
    # Another order: a trace names its functions, it does not number them.
    shuffled = tmp_path / "functions.json"
    lines = functions.read_text().splitlines()
    body = sorted(line.rstrip(",") for line in lines[1:-1])
    shuffled.write_text("\n".join([lines[0], ",\n".join(reversed(body)), lines[-1]]))
    assert {f.name for f in load_functions(shuffled)} == {f.name for f in load_functions(functions)}
    again = json.loads(good(*SMALL, "--functions", functions, "--json"))
    assert again["rows"][0]["result_sha256"] == first["rows"][0]["result_sha256"]
    other = json.loads(good(*SMALL, "--functions", shuffled, "--json"))["rows"][0]
    assert other["arrived"] == 608


def test_misfits_replay_where_they_are_allowed(good, tmp_path):
    trace = tmp_path / "one.parquet"
    write_trace(trace, [make_trace(np.arange(3) * 10**9, duration_ns=np.full(3, 10**8))])
    functions = tmp_path / "f.toml"
    functions.write_text(
        '[[function]]\nname = "f0000"\nhbm_gib = 800\nhost_gib = 2\nweight_gib = 4\n'
        "device_gib = 5\nqueue_timeout_s = 1\n"
    )
    words = ("--cluster", "g6e.12xlarge=1", "--functions", functions, "--allow-misfits")
    row = json.loads(good("replay", trace, *words, "--json"))["rows"][0]
    assert (row["finished"], row["refused"]) == (0, 3)


def test_world_is_as_asked(good, tmp_path):
    faults = tmp_path / "faults.toml"
    faults.write_text(
        '[[fault]]\nnode = "g6e.12xlarge-0"\nat_s = 100\nkind = "lost"\nback_after_s = 9\n'
    )
    run = tmp_path / "run"
    words = ("--faults", faults, "--prepared", "none", "--profile", "snapshot=criu-upstream")
    links = ("--routers", "2", "--link-delay-ms", "5", "--link-jitter-ms", "1", "--warmup", "60")
    good(*SMALL, *words, *links, "--slo-ttft", "9", "--no-explain", "--out", run)
    manifest = read_manifest(run)
    assert manifest.settings["profile.default"] == "criu-upstream"
    assert set(manifest.inputs) == {"trace", "faults"}
    assert "--no-explain" in manifest.command
    row = read_summary(run).rows[0]
    assert (row.slo_ttft_s, row.warmup_s) == (9.0, 60.0)
    assert row.decisions_by_kind["lose"] >= 1
    assert set(pq.read_table(run / "decisions.parquet")["explain"].to_pylist()) == {""}


def test_what_a_policy_prints_is_no_output(call, tmp_path):
    path = tmp_path / "p.py"
    path.write_text("print('made')\n" + EXAMPLE.read_text().replace("rate =", "print(at); rate ="))
    status, out, err = call(*SMALL, "--policy", f"{path}:bundle", "--json")
    assert status == 0
    assert json.loads(out)["complete"]
    assert "made" in err


def test_former_run_is_replaced_when_asked(good, tmp_path):
    run = tmp_path / "run"
    good(*SMALL, "--out", run)
    before = contents(run)
    good(*SMALL, "--out", run, "--overwrite")
    assert contents(run) == before
    assert list(tmp_path.iterdir()) == [run]


def test_policy_that_fails_in_a_worker_is_one_line(call, tmp_path):
    path = tmp_path / "p.py"
    path.write_text(
        EXAMPLE.read_text().replace("hold_s = min(", "assert at is None\n        hold_s = min(")
    )
    words = (*SMALL, "--policy", path, "--seed", "1..2", "--jobs", "2", "--out", tmp_path / "run")
    status, out, err = call(*words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert re.match(r"inferx: policy my-policy, seed [12]: keep_alive policy: it raised Asser", err)
    assert " at p.py:" in err
    assert list(tmp_path.iterdir()) == [path]


STOPS = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated")}


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("stop", STOPS)
def test_interrupt_keeps_what_is_complete(tmp_path, jobs, stop):
    run = tmp_path / "run"
    slow = tmp_path / "slow.py"
    # The second policy tells when it has begun, and then takes for ever.
    slow.write_text(
        EXAMPLE.read_text()
        .replace('"my-policy"', '"slow"')
        .replace(
            "rate =",
            "import sys, time; print('begun', file=sys.stderr, flush=True); time.sleep(60); rate =",
        )
    )
    words = [*map(str, SMALL), "--policy", "default", "--policy", str(slow), "--out", str(run)]
    child = subprocess.Popen(
        [sys.executable, "-c", MAIN, *words, "--jobs", jobs],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stderr is not None
    assert child.stderr.readline() == "begun\n"
    if jobs == "2":
        deadline = time.monotonic() + 20
        while not any(path.stat().st_size > 4 for path in tmp_path.glob(".run.*/requests.parquet")):
            assert time.monotonic() < deadline, "the first policy is complete by now"
    # Ctrl-C comes to the workers too; SIGTERM comes to the command alone.
    (os.killpg if stop is signal.SIGINT else os.kill)(child.pid, stop)
    # It returns once no worker holds the pipes either.
    out, err = child.communicate(timeout=20)
    status, word = STOPS[stop]
    assert child.returncode == status
    assert err.endswith(f"inferx: {word}\n")
    assert "default: " in out
    summary = read_summary(run)
    assert not summary.complete
    assert [row.policy for row in summary.rows] == ["default"]
    assert (run / "report.html").is_file()
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"run", "slow.py"}


def test_interrupt_before_anything_is_complete_leaves_nothing(tmp_path):
    slow = tmp_path / "slow.py"
    slow.write_text(
        EXAMPLE.read_text().replace(
            "rate =", "print(flush=True); import time; time.sleep(60); rate ="
        )
    )
    child = subprocess.Popen(
        [sys.executable, "-c", MAIN, *map(str, SMALL), "--policy", str(slow), "--out", "run"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
    )
    assert child.stderr is not None
    assert child.stderr.readline() == "\n"
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert (child.returncode, out, err.strip()) == (130, "", "inferx: interrupted")
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"slow.py"}


def test_interrupted_run_has_no_functions_of_seeds_that_never_ran(
    good, tmp_path, monkeypatch, call
):
    add = RunWriter.add

    def one(self, record, regret):
        add(self, record, regret)
        raise KeyboardInterrupt

    monkeypatch.setattr(RunWriter, "add", one)
    run = tmp_path / "run"
    status, _, err = call(*SMALL, "--seed", "1..3", "--out", run)
    assert (status, err) == (130, "\ninferx: interrupted\n")
    assert [path.name for path in run.glob("functions*")] == ["functions-seed-1.json"]
    there = {path.name for path in run.iterdir()}
    assert set(read_manifest(run).outputs) == there - {"manifest.json"}


def test_workers_die_with_who_started_them_even_by_kill(tmp_path):
    slow = tmp_path / "slow.py"
    slow.write_text(
        EXAMPLE.read_text().replace(
            "rate =",
            "import os, sys, time; print(os.getpid(), file=sys.stderr, flush=True);"
            " time.sleep(60); rate =",
        )
    )
    words = [*map(str, SMALL), "--policy", str(slow), "--seed", "1..2", "--jobs", "2"]
    child = subprocess.Popen(
        [sys.executable, "-c", MAIN, *words], stderr=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    worker = int(child.stderr.readline())
    assert worker != child.pid
    child.kill()
    # The pipe closes when the last process that holds it is gone: long before their work is done.
    began = time.monotonic()
    child.communicate(timeout=20)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_policy_that_leaves_by_the_back_door_is_told(call, tmp_path, jobs):
    path = tmp_path / "p.py"
    path.write_text(EXAMPLE.read_text().replace("rate =", "import os; os._exit(3); rate ="))
    words = ("--policy", path, "--seed", "1..2", "--jobs", jobs, "--out", tmp_path / "a" / "run")
    status, out, err = call(*SMALL, *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "it raised SystemExit at p.py" in err
    assert "it called os._exit(3)" in err
    assert list(tmp_path.iterdir()) == [path]


def test_example_policy_of_the_guide_replays(good):
    rows = json.loads(good(*SMALL, "--policy", f"{EXAMPLE}:bundle", "--set", "hold_s=30", "--json"))
    assert rows["rows"][0]["finished"] > 0
