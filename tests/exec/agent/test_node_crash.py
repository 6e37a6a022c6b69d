"""An agent that is killed at any step of an action leaves what the next one can put in order."""

import ast
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import system_parts as parts
from agent_node import HELD, needs_node
from standin_gpus import uuid

import inferx.exec.agent

pytestmark = needs_node

PROGRAM = Path(__file__).parents[2] / "support" / "crash_node.py"
AGENT = Path(inferx.exec.agent.__file__).parent
SOAK = os.environ.get("HYPOTHESIS_PROFILE") == "soak"
# One step's end is the next one's beginning, but for what is written in between.
EVERY = 1 if SOAK else 2

ALL = ["process", "containerd", "runc"]


def kinds(*every_time: str) -> pytest.MarkDecorator:
    """Have a test run in these sandboxes, and in a soak in all: each costs its pods' starts."""
    return pytest.mark.parametrize("kind", ALL if SOAK else every_time)


DOWN = ["holders", "host-memory", "lock", "checkpoint", "verify"]
UP = ["device-restore", "unlock", "wake", "health"]
SNAPSHOT = ["share", "quiesce", "room", *DOWN, "dump", "commit"]
ENTER = ["reserve", "network"]
STEPS = {
    "create": ["host-memory", *ENTER, "start", "health"],
    "suspend": ["share", "quiesce", *DOWN, "freeze"],
    "resume": ["reserve", "thaw", *UP],
    "snapshot": [*SNAPSHOT, *UP],
    "kept": ["share", "room", "thaw", "dump", "commit", "freeze"],
    "leave": [*SNAPSHOT, "stop"],
    "restore": ["fit", "host-memory", "verify", *ENTER, "restore", *UP],
    "waiting": ["fit", "host-memory", "verify", *ENTER, "restore", "freeze"],
    "fetched": ["fit", "host-memory", "fetch", "verify", *ENTER, "restore", *UP],
    "stop": ["stop"],
}
"""Steps of each action, which are held against those that were met."""
ELSEWHERE = {
    # At every call of the system: test_store_crash.
    "copy",
    "drop",
    # While they come: test_lazy_pages.
    "pages",
}


def killed_at_every_step(
    folder: Path,
    action: str,
    *,
    kind: str = "process",
    first_at: int = 0,
    every: int = EVERY,
    within: str = "",
) -> list[tuple[str, dict[str, Any]]]:
    """Return each step with what there was after it, and last what there was where all was well."""
    path = os.pathsep.join((str(PROGRAM.parent), os.environ.get("PYTHONPATH", "")))
    words = [str(folder), kind, action, str(first_at), str(every), within]
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *words],
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
    found = list(zip([*steps, "all was well"], told["rounds"], strict=True))
    assert [(where, one["traces"]) for where, one in found if one["traces"]] == []
    return found


def points(action: str) -> list[str]:
    """Return the ends of an action's steps at which an agent is killed."""
    ends = ("begins", "has ended") if SOAK else ("begins",)
    return [f"{step} {end}" for step in STEPS[action] for end in ends]


def expect(
    there: list[tuple[str, dict[str, Any]]], points: list[str], *, lives_until: str = ""
) -> None:
    """Check that every step was met, and that a pod has its memory, or has left nothing."""
    assert [where for where, _ in there[:-1]] == points
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


def steps_of_the_agent() -> set[str]:
    """Return the names of all steps that the agent's sources have."""
    found: set[str] = set()
    for file in AGENT.rglob("*.py"):
        if file.is_relative_to(AGENT / "bench"):
            continue
        for call in ast.walk(ast.parse(file.read_text())):
            if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("phases.step"):
                name = call.args[0]
                assert isinstance(name, ast.Constant), f"{file}: expected a name as it is"
                found.add(name.value)
    return found


def test_no_step_of_the_agent_is_forgotten_here() -> None:
    here = {step for steps in STEPS.values() for step in steps}
    assert here | ELSEWHERE == steps_of_the_agent()
    assert not here & ELSEWHERE


def test_killed_in_a_suspend_its_pod_serves_on(folder: Path) -> None:
    there = killed_at_every_step(folder, "suspend")
    expect(there, points("suspend"), lives_until="never")
    assert {one["state"] for _, one in there[:-1]} == {"ready"}
    assert there[-1][1]["state"] == "standby"


def test_killed_in_a_resume_its_pod_is_ended_once_it_is_touched(folder: Path) -> None:
    there = killed_at_every_step(folder, "resume")
    last = "reserve has ended" if SOAK else "reserve begins"
    expect(there, points("resume"), lives_until=last)
    assert there[0][1]["state"] == "standby"
    assert there[-1][1]["state"] == "ready"


def test_killed_in_a_snapshot_its_pod_serves_on(folder: Path) -> None:
    # Up to the dump it is the same as where the pod ends with it.
    first_at = 0 if SOAK else 2 * SNAPSHOT.index("dump")
    there = killed_at_every_step(folder, "snapshot", first_at=first_at)
    expect(there, points("snapshot")[first_at // EVERY :], lives_until="never")
    assert {one["state"] for _, one in there} == {"ready"}
    written = [one["snapshots"] for _, one in there]
    assert written == sorted(written), "each that was committed stays"
    committing = [where for where, _ in there].index("commit begins")
    assert written[committing] == 0
    assert written[-1] > 0


def test_killed_in_a_snapshot_of_a_suspended_pod_it_stays_so(folder: Path) -> None:
    there = killed_at_every_step(folder, "kept")
    expect(there, points("kept"), lives_until="never")
    assert {one["state"] for _, one in there} == {"standby"}


@kinds("process", "containerd")
def test_killed_in_a_snapshot_that_ends_its_pod(folder: Path, kind: str) -> None:
    needs_containers(kind)
    # From the dump on it matters where the pod lives.
    first_at = 0 if SOAK or kind == "process" else 2 * SNAPSHOT.index("checkpoint")
    there = killed_at_every_step(folder, "leave", kind=kind, first_at=first_at)
    met = [where for where, _ in there[:-1]]
    assert met == points("leave")[first_at // EVERY :]
    # From the end of the dump on there is no pod; from the commit on there is a snapshot.
    ended = met.index("commit begins")
    assert all(one["state"] == "ready" for _, one in there[: ended - SOAK])
    assert all(one["state"] == "" for _, one in there[ended:])
    assert [one["snapshots"] for _, one in there[: ended + 1]] == [0] * (ended + 1)
    assert there[-1][1]["snapshots"] == (4 if SOAK else 2)


@kinds("process", "containerd", "runc")
def test_killed_in_a_restore_nothing_of_it_is_left_but_the_snapshot(
    folder: Path, kind: str
) -> None:
    needs_containers(kind)
    # Before, there is nothing of a container.
    first_at = 0 if SOAK or kind == "process" else 2 * STEPS["restore"].index("network")
    there = killed_at_every_step(folder, "restore", kind=kind, first_at=first_at)
    expect(there, points("restore")[first_at // EVERY :])
    assert {one["snapshots"] for _, one in there} == {1}
    assert there[-1][1]["state"] == "ready"


@kinds("process", "containerd")
def test_killed_in_a_lazy_restore_nothing_brings_pages_any_more(folder: Path, kind: str) -> None:
    needs_containers(kind)
    # Before, it is as any other.
    first_at = 2 * STEPS["restore"].index("restore") + 1
    there = killed_at_every_step(folder, "lazily", kind=kind, first_at=first_at)
    ended = [f"{step} has ended" for step in STEPS["restore"]]
    expect(there, points("restore")[first_at:] if SOAK else ended[first_at // 2 :])
    assert there[-1][1]["state"] == "ready"


def test_killed_in_a_restore_without_gpus_nothing_of_it_is_left(folder: Path) -> None:
    first_at = 0 if SOAK else 2 * STEPS["waiting"].index("restore")
    there = killed_at_every_step(folder, "waiting", first_at=first_at)
    expect(there, points("waiting")[first_at // EVERY :])
    assert there[-1][1]["state"] == "standby"


def test_killed_in_a_restore_that_fetches_the_snapshot_is_whole_wherever_it_is(
    folder: Path,
) -> None:
    first_at = 0 if SOAK else 2 * STEPS["fetched"].index("fetch")
    there = killed_at_every_step(folder, "fetched", first_at=first_at)
    expect(there, points("fetched")[first_at // EVERY :])
    assert {one["snapshots"] for _, one in there} == {1}


@kinds("process", "containerd")
@pytest.mark.parametrize(
    ("action", "step"), [("snapshot", "dump"), ("leave", "dump"), ("restore", "restore")]
)
def test_killed_while_criu_works(folder: Path, action: str, step: str, kind: str) -> None:
    needs_containers(kind)
    every_ms = 7 if SOAK else 100
    there = killed_at_every_step(
        folder, action, kind=kind, first_at=10, every=every_ms, within=step
    )
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


@kinds("process", "containerd")
def test_killed_in_a_start_nothing_of_it_is_left(folder: Path, kind: str) -> None:
    needs_containers(kind)
    first_at = 0 if SOAK or kind == "process" else 2 * STEPS["create"].index("start")
    there = killed_at_every_step(folder, "create", kind=kind, first_at=first_at)
    expect(there, points("create")[first_at // EVERY :])


@kinds("process", "containerd")
def test_killed_while_a_pod_is_ended_it_is_there_or_nothing_of_it_is(
    folder: Path, kind: str
) -> None:
    needs_containers(kind)
    every_ms = (1 if SOAK else 3) if kind == "process" else (5 if SOAK else 30)
    there = killed_at_every_step(folder, "stop", kind=kind, every=every_ms, within="stop")
    assert len(there) > 1
    assert there[-1][1]["state"] == ""
    for where, one in there:
        held = [HELD, 0] if one["state"] else [0, 0]
        assert one["used"] == held, where


def needs_containers(kind: str) -> None:
    programs = {"process": (), "runc": ("runc", "ip"), "containerd": ("runc", "ip", "containerd")}
    if missing := parts.missing_parts(*programs[kind]):
        pytest.skip(missing)
