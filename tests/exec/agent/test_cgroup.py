"""Cgroups of pods, in both versions: a hybrid machine has the second's freezer, too."""

import os
import signal
import subprocess
import sys
import time
import uuid

import pytest
from plain_pods import drop_parent, needs_root, wait_for

from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.processes import cgroup
from inferx.exec.agent.processes.cgroup import Cgroups

pytestmark = needs_root

COUNT = "import sys\nn = 0\nf = open(sys.argv[1], 'w')\nwhile True: n += 1; f.write('x'); f.flush()"
FORK = """
import os, time
time.sleep(0.2)
for _ in range(3): os.fork()
while True:
    if os.fork() == 0: time.sleep(0.05); os._exit(0)
    os.waitpid(-1, os.WNOHANG)
"""


@pytest.fixture(params=[1, 2])
def cgroups(request):
    first, second = cgroup.hierarchies(cgroup.Path("/proc/self/mountinfo"))
    if not (first if request.param == 1 else second):
        pytest.skip(f"cgroups of version {request.param} are not mounted")
    found = Cgroups(f"inferx-test-{uuid.uuid4().hex[:10]}", version=request.param)
    yield found
    for pod in found.pods():
        found.kill(pod)
        found.remove(pod)
    drop_parent(found)


@pytest.fixture
def spawn():
    started = []

    def start(*command: str) -> subprocess.Popen:
        started.append(subprocess.Popen([sys.executable, "-c", *command]))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_pod_has_a_cgroup_of_its_own_until_it_is_removed(cgroups, spawn):
    cgroups.create("a")
    cgroups.create("b")
    one, other = spawn("input()"), spawn("import time; time.sleep(60)")
    cgroups.add("b", other.pid)
    assert cgroups.pods() == ["a", "b"]
    assert cgroups.pids("a") == []
    assert cgroups.pids("b") == [other.pid]
    assert one.pid not in cgroups.pids("b")
    cgroups.remove("a")
    assert not cgroups.exists("a")
    cgroups.kill("b")
    assert other.wait() == -signal.SIGKILL
    cgroups.remove("b")
    cgroups.remove("b")
    assert cgroups.pods() == []


def test_pod_is_limited_in_processes_and_where_it_says_so_in_processor_time(cgroups):
    def limits(pod: str) -> dict[str, str]:
        files = ("pids.max", "cpu.max", "cpu.cfs_period_us", "cpu.cfs_quota_us")
        folders = [entry.parent for entry in cgroups.entries(pod)]
        paths = [folder / file for folder in folders for file in files]
        return {path.name: path.read_text().strip() for path in paths if path.exists()}

    cgroups.create("b")
    if cgroups.version == 2 and "cpu.max" not in limits("b"):
        # A hybrid machine has the controller in version 1.
        with pytest.raises(AgentError, match=r"cannot make its cgroup: .*cpu\.max"):
            cgroups.create("a", cpu_milli=1500)
        assert not cgroups.exists("a")
        return
    cgroups.create("a", cpu_milli=1500)
    if cgroups.version == 2:
        assert limits("a") == {"cpu.max": "150000 100000", "pids.max": "8192"}
        assert limits("b") == {"cpu.max": "max 100000", "pids.max": "8192"}
    else:
        period = {"cpu.cfs_period_us": "100000", "pids.max": "8192"}
        assert limits("a") == period | {"cpu.cfs_quota_us": "150000"}
        assert limits("b") == period | {"cpu.cfs_quota_us": "-1"}


def test_frozen_pod_does_nothing_until_it_is_thawed(cgroups, spawn, tmp_path):
    cgroups.create("a")
    file = tmp_path / "count"
    counter = spawn(COUNT, str(file))
    cgroups.add("a", counter.pid)
    wait_for(lambda: file.exists() and file.stat().st_size)
    cgroups.freeze("a")
    assert cgroups.frozen("a")
    size = file.stat().st_size
    time.sleep(0.05)
    assert file.stat().st_size == size
    cgroups.freeze("a")
    cgroups.thaw("a")
    assert not cgroups.frozen("a")
    wait_for(lambda: file.stat().st_size > size)
    cgroups.thaw("a")


def test_kill_ends_a_pod_that_starts_processes_all_the_time(cgroups, spawn):
    cgroups.create("a")
    root = spawn(FORK)
    cgroups.add("a", root.pid)
    wait_for(lambda: len(cgroups.pids("a")) > 8)
    cgroups.kill("a")
    assert cgroups.pids("a") == []
    assert root.wait() == -signal.SIGKILL
    cgroups.remove("a")


def test_kill_ends_a_frozen_pod(cgroups, spawn):
    cgroups.create("a")
    process = spawn("import time; time.sleep(60)")
    cgroups.add("a", process.pid)
    cgroups.freeze("a")
    cgroups.kill("a")
    assert process.wait() == -signal.SIGKILL


def test_cgroup_in_use_is_not_removed(cgroups, spawn, monkeypatch):
    monkeypatch.setattr(cgroup, "KILL_S", 0.05)
    cgroups.create("a")
    process = spawn("import time; time.sleep(60)")
    cgroups.add("a", process.pid)
    with pytest.raises(AgentError, match=r"pod a: cannot remove its cgroup .*in use"):
        cgroups.remove("a")
    monkeypatch.undo()
    cgroups.kill("a")


def test_nothing_is_done_to_a_pod_without_a_cgroup(cgroups):
    cgroups.kill("none")
    cgroups.remove("none")
    assert cgroups.pids("none") == []
    for refused in (cgroups.freeze, cgroups.memory_bytes, cgroups.memory_limit):
        with pytest.raises(AgentError, match="pod none: cannot"):
            refused("none")
    with pytest.raises(AgentError, match="pod none: cannot put process"):
        cgroups.add("none", os.getpid())


@pytest.mark.parametrize("name", ["", "..", "a/b", "-a", "a_b", "a" * 64])
def test_names_that_are_no_folder_of_ours_are_refused(cgroups, name):
    with pytest.raises(AgentError, match="expected 1 to 63 letters, digits and dashes"):
        cgroups.create(name)


def test_probe_leaves_nothing(cgroups):
    found = cgroups.probe()
    assert found.available
    assert found.facts["version"] == str(cgroups.version)
    assert cgroups.pods() == []


def test_probe_says_what_is_missing():
    found = Cgroups("inferx-test", version=0).probe()
    assert (found.available, found.reason) == (False, "no cgroup hierarchy is mounted")


def test_memory_is_charged_and_limited(spawn):
    cgroups = Cgroups(f"inferx-test-{uuid.uuid4().hex[:10]}")
    try:
        cgroups.create("a", memory_bytes=64 << 20)
        cgroups.create("b")
        assert cgroups.memory_limit("a") == 64 << 20
        assert cgroups.memory_limit("b") == 0
        wait = "import sys, time; sys.stdin.read(1)\n"
        holder = subprocess.Popen(
            [sys.executable, "-c", wait + "held = bytes(20 << 20)[::-1]; time.sleep(60)"],
            stdin=subprocess.PIPE,
        )
        eater = subprocess.Popen(
            [sys.executable, "-c", wait + "held = bytes(100 << 20)[::-1]; time.sleep(60)"],
            stdin=subprocess.PIPE,
        )
        cgroups.add("b", holder.pid)
        cgroups.add("a", eater.pid)
        holder.stdin.write(b"x")
        holder.stdin.close()
        wait_for(lambda: 20 << 20 <= cgroups.memory_bytes("b") <= 44 << 20)
        eater.stdin.write(b"x")
        eater.stdin.close()
        assert eater.wait(10) == -signal.SIGKILL, "expected the kernel to enforce the limit"
    finally:
        for pod in cgroups.pods():
            cgroups.kill(pod)
            cgroups.remove(pod)
        drop_parent(cgroups)
        holder.wait()
        eater.wait()


@pytest.mark.parametrize(
    ("version", "usage", "idle"),
    [
        (1, "memory.usage_in_bytes", "total_inactive_file"),
        (2, "memory.current", "inactive_file"),
    ],
)
def test_cache_that_goes_by_itself_is_not_charged(tmp_path, version, usage, idle):
    (tmp_path / usage).write_text("1000\n")
    (tmp_path / "memory.stat").write_text(f"anon 300\n{idle} 600\nactive_file 100\n")
    assert cgroup.charged_bytes(tmp_path, version=version) == 400
    (tmp_path / "memory.stat").write_text(f"{idle} 1200\n")
    assert cgroup.charged_bytes(tmp_path, version=version) == 0
