"""An agent that is killed at any step of an action leaves what the next one can put in order."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from agent_node import HELD, needs_node
from standin_gpus import uuid

pytestmark = needs_node

PROGRAM = Path(__file__).parents[2] / "support" / "crash_node.py"
SOAK = os.environ.get("HYPOTHESIS_PROFILE") == "soak"
# One step's end is the next one's beginning, but for what is written in between.
EVERY = 1 if SOAK else 2

DOWN = ["holders", "host-memory", "lock", "checkpoint", "verify"]
UP = ["device-restore", "unlock", "wake", "health"]
SNAPSHOT = ["share", "quiesce", "room", *DOWN, "dump", "commit"]


def killed_at_every_step(
    folder: Path, action: str, *, first_at: int = 0, every: int = EVERY, within: str = ""
) -> list[tuple[str, dict[str, Any]]]:
    """Return each step with what there was after it, and last what there was where all was well."""
    path = os.pathsep.join((str(PROGRAM.parent), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder), action, str(first_at), str(every), within],
        capture_output=True,
        env=os.environ | {"PYTHONPATH": path},
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *steps, last = done.stdout.splitlines()
    told = json.loads(last)
    assert told["left"] == []
    assert all(one["traces"] == [] for one in told["rounds"])
    return list(zip([*steps, "all was well"], told["rounds"], strict=True))


def expect(
    there: list[tuple[str, dict[str, Any]]], steps: list[str], *, lives_until: str = ""
) -> None:
    """Check that every step was met, and that a pod has its memory, or has left nothing."""
    met = [where for where, _ in there[:-1]]
    ends = ("begins", "has ended") if SOAK else ("begins",)
    assert met == [f"{step} {end}" for step in steps for end in ends]
    (whole,) = {json.dumps(one["memory"]) for _, one in there if one["state"]}
    assert whole != "null"
    lives = bool(lives_until)
    for where, one in there[:-1]:
        assert bool(one["state"]) == lives, where
        if lives:
            assert one["used"] in ([HELD, 0], [0, HELD]), where
            assert list(one["promised"].values()) in ([[uuid(0)]], [[uuid(1)]]), where
        else:
            assert (one["used"], one["promised"]) == ([0, 0], {}), where
        if where == lives_until:
            lives = False


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # A socket's path is short.
    return Path(tempfile.mkdtemp(dir=tmp_path))


def test_killed_in_a_suspend_its_pod_serves_on(folder: Path) -> None:
    there = killed_at_every_step(folder, "suspend")
    expect(there, ["share", "quiesce", *DOWN, "freeze"], lives_until="never")
    assert {one["state"] for _, one in there[:-1]} == {"ready"}
    assert there[-1][1]["state"] == "standby"


def test_killed_in_a_resume_its_pod_is_ended_once_it_is_touched(folder: Path) -> None:
    there = killed_at_every_step(folder, "resume")
    last = "reserve has ended" if SOAK else "reserve begins"
    expect(there, ["reserve", "thaw", *UP], lives_until=last)
    assert there[0][1]["state"] == "standby"
    assert there[-1][1]["state"] == "ready"


def test_killed_in_a_snapshot_its_pod_serves_on(folder: Path) -> None:
    # Up to the dump it is the same as where the pod ends with it.
    steps = [*SNAPSHOT, *UP] if SOAK else ["dump", "commit", *UP]
    first_at = 0 if SOAK else 2 * SNAPSHOT.index("dump")
    there = killed_at_every_step(folder, "snapshot", first_at=first_at)
    expect(there, steps, lives_until="never")
    assert {one["state"] for _, one in there} == {"ready"}
    written = [one["snapshots"] for _, one in there]
    assert written == sorted(written), "each that was committed stays"
    committing = [where for where, _ in there].index("commit begins")
    assert written[committing] == 0
    assert written[-1] > 0


def test_killed_in_a_snapshot_that_ends_its_pod(folder: Path) -> None:
    there = killed_at_every_step(folder, "leave")
    met = [where for where, _ in there[:-1]]
    steps = [*SNAPSHOT, "stop"]
    if SOAK:
        assert met == [f"{step} {end}" for step in steps for end in ("begins", "has ended")]
    else:
        assert met == [f"{step} begins" for step in steps]
    # From the end of the dump on there is no pod; from the commit on there is a snapshot.
    ended = met.index("commit begins")
    assert all(one["state"] == "ready" for _, one in there[: ended - SOAK])
    assert all(one["state"] == "" for _, one in there[ended:])
    assert [one["snapshots"] for _, one in there[: ended + 1]] == [0] * (ended + 1)
    assert there[-1][1]["snapshots"] == (4 if SOAK else 2)


def test_killed_in_a_restore_nothing_of_it_is_left_but_the_snapshot(folder: Path) -> None:
    there = killed_at_every_step(folder, "restore")
    steps = ["fit", "host-memory", "verify", "reserve", "network", "restore", *UP]
    expect(there, steps)
    assert {one["snapshots"] for _, one in there} == {1}
    assert there[-1][1]["state"] == "ready"


@pytest.mark.parametrize(
    ("action", "step"), [("snapshot", "dump"), ("leave", "dump"), ("restore", "restore")]
)
def test_killed_while_criu_works(folder: Path, action: str, step: str) -> None:
    every_ms = 7 if SOAK else 100
    there = killed_at_every_step(folder, action, first_at=10, every=every_ms, within=step)
    *cut_short, (_, last) = there
    assert cut_short
    whole = json.dumps(last["memory"])
    for where, one in cut_short:
        if action == "snapshot":
            assert json.dumps(one["memory"]) == whole, where
        # What CRIU has ended is gone, and what it has not is as it was.
        if one["state"] == "":
            assert (one["used"], one["promised"]) == ([0, 0], {}), where
        assert one["snapshots"] == (action == "restore"), where
    assert last["snapshots"] == 1


def test_killed_in_a_start_nothing_of_it_is_left(folder: Path) -> None:
    there = killed_at_every_step(folder, "create")
    expect(there, ["host-memory", "reserve", "network", "start", "health"])
