"""`inferx agent bench` on real pods: what it measures, what it writes, what it leaves."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from plain_pods import needs_criu, needs_root

INFERX = [sys.executable, "-c", "from inferx.cli import main; main()"]
LIMIT_S = 120.0
ROOT = Path(__file__).parents[2]
OWN = re.compile(r"b[0-9a-f]{6}(-pod-\d+)?|inferx-bench-.*")
STEPS = {"cold", "suspend", "resume", "dump", "restore", "restore_cold", "restore_lazy", "stop"}


def left() -> set[str]:
    """What a bench could leave on this host: folders, cgroups, network namespaces, links."""
    folders = [Path("/dev/shm"), Path("/var/tmp"), Path("/run/netns"), Path("/sys/class/net")]
    folders += Path("/sys/fs/cgroup").glob("*")
    return {
        str(path)
        for folder in folders
        if folder.is_dir()
        for path in folder.iterdir()
        if OWN.fullmatch(path.name)
    }


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """One bench of two small pods; its files, and what it printed."""
    folder = tmp_path_factory.mktemp("bench")
    before = left()
    ended = subprocess.run(
        [
            *(*INFERX, "agent", "bench", "--sandbox", "process", "--sizes", "2MB,30MB"),
            *("--tiers", "nvme", "--rounds", "1", "--out", "out.json", "--profile", "mine.toml"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert left() <= before
    return folder, ended.stdout


@needs_root
@needs_criu
def test_every_step_and_floor_is_measured(done):
    folder, out = done
    found = json.loads((folder / "out.json").read_text())
    assert [one["weight_bytes"] for one in found["rounds"]] == [2_000_000, 30_000_000]
    for one in found["rounds"]:
        assert {step["name"] for step in one["steps"]} == STEPS, one["skipped"]
        assert {floor["name"] for floor in one["floors"]} == {"write", "read", "read_cold"}
        assert one["snapshot_bytes"] > one["weight_bytes"]
        for floor in one["floors"]:
            assert 0.9 < floor["moved_bytes"] / one["snapshot_bytes"] <= 1
        for step in one["steps"]:
            phases = sum(phase["duration_ns"] for phase in step["phases"]) / 1e9
            assert 0 < phases <= step["seconds"]
        named = {s["name"]: [p["phase"] for p in s["phases"]] for s in one["steps"]}
        assert {"restore", "health"} <= set(named["restore"])
        assert {"dump", "commit"} <= set(named["dump"])
    [clones] = found["clones"]
    assert len(clones["each_s"]) == 3
    assert clones["seconds"] == max(clones["each_s"])
    about = found["about"]
    assert about["finished"]
    assert about["command"].startswith("inferx agent bench --sandbox process")
    assert all(about[key] for key in ("commit", "date", "machine", "kernel", "criu", "gpus"))
    assert "restore, cache cold" in out
    assert "30MB" in out


@needs_root
@needs_criu
def test_its_profile_replays_the_demo(done, good, tmp_path):
    folder, _ = done
    traces, half_an_hour = ROOT / "traces", tmp_path / "cut.parquet"
    good("trace", "transform", traces / "demo.parquet", "--cut", "0:1800", "-o", half_an_hour)
    good(
        *("replay", half_an_hour, "--cluster", traces / "demo-cluster.toml", "--no-explain"),
        *("--functions", "auto:small", "--policy", "default", "--seed", "1"),
        *("--profile", folder / "mine.toml", "--out", tmp_path / "run"),
    )
    [row] = json.loads((tmp_path / "run/summary.json").read_text())["rows"]
    counters = row["counters"]
    for start in ("starts_restore-nvme", "starts_restore-remote", "starts_resume", "suspends"):
        assert counters[start] > 0
    assert row["finished"] > 0


@needs_root
@needs_criu
def test_an_interrupted_bench_tells_what_it_has_and_leaves_nothing(tmp_path):
    before, out = left(), tmp_path / "out.json"
    bench = subprocess.Popen(
        [
            *(*INFERX, "agent", "bench", "--sandbox", "process", "--sizes", "1MB"),
            *("--tiers", "dram", "--rounds", "1000", "--out", str(out)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        # A round has a pod that is dumped, and two restores of it: the fourth is the next round's.
        end = time.monotonic() + LIMIT_S
        pods: set[str] = set()
        while len(pods) < 4:
            pods |= {name for name in left() - before if "-pod-" in name}
            assert time.monotonic() < end
            assert bench.poll() is None, bench.stderr.read()
            time.sleep(0.01)
        bench.send_signal(signal.SIGINT)
        told, complaint = bench.communicate(timeout=LIMIT_S)
    finally:
        bench.kill()
        bench.wait()
    assert (bench.returncode, complaint.strip()) == (130, "inferx: interrupted")
    assert "interrupted: what has been measured until then" in told
    found = json.loads(out.read_text())
    assert found["rounds"]
    assert not found["about"]["finished"]
    assert left() <= before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--sizes", "900TB"), "900TB: a pod and its snapshot take "),
        (("--sizes", "ten"), "--sizes 'ten': expected a size"),
        (("--sizes", "0"), "--sizes '0': expected sizes of more than no bytes"),
        (("--tiers", "dram,tape"), "--tiers 'dram,tape': expected some of dram, nvme, shared"),
        (("--tiers", "shared", "--sizes", "1MB"), "no tier shared; it has dram, nvme"),
        (("--config", "node.toml", "--sandbox", "runc"), "--config says where the pods live"),
        (("--out", "nowhere/x.json"), "nowhere/x.json: no folder nowhere; expected one"),
    ],
)
def test_bad_input_is_one_line(call, words, said):
    before = left()
    status, out, err = call("agent", "bench", *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert left() <= before
