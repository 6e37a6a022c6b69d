"""CRIU on real processes: what was dumped comes back, as often as asked for, or not at all."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from plain_pods import (
    ask,
    connect,
    free_port,
    get,
    needs_criu,
    needs_root,
    networks,
    sandbox_in,
    server_spec,
    spec_of,
    under,
    wait_for,
    zombies,
)

from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.processes import criu_probe, procfs
from inferx.exec.agent.processes.criu import WORK, CriuSnapshotter
from inferx.exec.agent.processes.page_server import pages_of
from inferx.exec.agent.processes.process import ProcessSandbox

pytestmark = [needs_root, needs_criu]

FAMILY = """
import os, sys, threading, time
reading, writing = os.pipe()
pid = os.fork()
if pid == 0:
    os.close(writing)
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    while line := os.read(reading, 1):
        print("child", line.decode(), os.getppid(), flush=True)
    os._exit(0)
os.close(reading)
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
for count in range(10 ** 6):
    os.write(writing, b"x")
    time.sleep(0.02)
"""


@pytest.fixture
def sandbox(tmp_path):
    with sandbox_in(tmp_path) as found:
        yield found
    wait_for(lambda: zombies() == [])


@pytest.fixture
def criu(sandbox):
    found = CriuSnapshotter(sandbox)
    told = found.probe()
    assert told.available, told.reason
    return found


@pytest.fixture
def into(tmp_path):
    folder = tmp_path / "image"
    folder.mkdir()
    return folder


def contents(folder):
    return {each.name: (each.stat().st_size, each.stat().st_mtime_ns) for each in folder.iterdir()}


def packet_filters(network):
    """Of a network namespace of the test's own: the host's has other users."""
    nft = ("nft", "list", "tables")
    told = subprocess.run(
        ["/usr/bin/env", "ip", "netns", "exec", Path(network).name, *nft],
        check=True,
        capture_output=True,
        text=True,
    )
    return told.stdout.split()


@pytest.fixture
def network():
    with networks(1) as (found,):
        yield found


def test_probe_tells_version_and_path(criu):
    found = criu.probe()
    assert (found.name, found.reason) == ("snapshotter/criu", "")
    assert tuple(int(each) for each in found.facts["criu_version"].split(".")) >= (4, 2)
    assert Path(found.facts["path"]).name == "criu"


@pytest.mark.parametrize("mebibytes", [10, 100])
def test_pod_comes_back_as_it_was(sandbox, criu, tmp_path, into, mebibytes):
    spec = server_spec(tmp_path, "a", mebibytes, free_port())
    live = sandbox.start(spec)
    before = ask(spec)
    criu.dump(spec, live, into, leave=True)
    assert sandbox.pids("a") == []
    assert sandbox.live() == []
    assert sum(size for size, _ in contents(into).values()) > mebibytes << 20
    assert all(each.stat().st_mode & 0o077 == 0 for each in into.iterdir())
    sandbox.stop("a")
    image = contents(into)
    again = criu.restore(spec, into)
    assert contents(into) == image
    assert again.pid != live.pid
    assert sandbox.live() == [again]
    assert sandbox.pids("a") == [again.pid]
    after = ask(spec)
    assert after == before | {"answers": 2}
    assert sandbox.memory_bytes("a") > mebibytes << 20
    log = (spec.folder / "stdout.log").read_text().splitlines()
    assert log == ["ready", "answer 1", "answer 2"]


def test_pod_goes_on_after_a_dump_that_leaves_it(sandbox, criu, tmp_path, into):
    spec = server_spec(tmp_path, "a", 10, free_port())
    live = sandbox.start(spec)
    before = ask(spec)
    with contextlib.closing(connect(spec)) as client:
        assert get(client)["answers"] == 2
        criu.dump(spec, live, into, leave=False)
        assert get(client)["answers"] == 3, "expected its connection to go on, too"
    assert sandbox.live() == [live]
    assert ask(spec)["sum"] == before["sum"]
    sandbox.stop("a")
    criu.restore(spec, into)
    assert ask(spec) == before | {"answers": 3}, "expected what it was at the dump"


def test_connections_go_on_if_they_are_kept(sandbox, criu, tmp_path, into, network):
    spec = server_spec(tmp_path, "a", 10, 8000, network=network)
    live = sandbox.start(spec)
    ask(spec)
    with contextlib.closing(connect(spec)) as client:
        before = get(client)
        address = client.sock.getsockname()
        criu.dump(spec, live, into, leave=True, keep_connections=True)
        sandbox.stop("a")
        criu.restore(spec, into, keep_connections=True)
        assert get(client) == before | {"answers": 3}
        assert client.sock.getsockname() == address
    assert packet_filters(network) == []


def test_connections_are_closed_unless_they_are_kept(sandbox, criu, tmp_path, into):
    spec = server_spec(tmp_path, "a", 10, free_port())
    live = sandbox.start(spec)
    ask(spec)
    with contextlib.closing(connect(spec)) as client:
        get(client)
        criu.dump(spec, live, into, leave=True)
        sandbox.stop("a")
        with pytest.raises(AgentError, match="connections are to be kept, but"):
            criu.restore(spec, into, keep_connections=True)
        criu.restore(spec, into)
        with pytest.raises(ConnectionError):
            get(client)
    assert ask(spec)["answers"] == 3


def test_kept_connections_that_nobody_restores_are_released(sandbox, criu, tmp_path, into, network):
    spec = server_spec(tmp_path, "a", 1, 8000, network=network)
    live = sandbox.start(spec)
    ask(spec)
    with contextlib.closing(connect(spec)) as client:
        get(client)
        criu.dump(spec, live, into, leave=True, keep_connections=True)
        assert len(packet_filters(network)) == 3
        criu.release(spec, into)
        assert packet_filters(network) == []
        criu.release(spec, into)
        with pytest.raises(ConnectionError):
            get(client)


@pytest.mark.parametrize("lazy", [False, True])
def test_three_clones_at_once_in_networks_of_their_own(sandbox, criu, tmp_path, into, lazy):
    with networks(4) as (home, *others):
        spec = server_spec(tmp_path, "a", 20, 8000, network=home)
        live = sandbox.start(spec)
        before = ask(spec)
        criu.dump(spec, live, into, leave=False)
        clones = [under(spec, tmp_path, f"c{i}", network) for i, network in enumerate(others)]
        with ThreadPoolExecutor() as pool:
            lives = list(pool.map(lambda each: criu.restore(each, into, lazy=lazy), clones))
        for clone, live in zip(clones, lives, strict=True):
            assert [ask(clone)["answers"] for _ in range(2)] == [2, 3]
            assert ask(clone) == before | {"answers": 4}
            assert sandbox.pids(clone.pod) == [live.pid]
            assert sandbox.memory_bytes(clone.pod) > 20 << 20
            log = (clone.folder / "stdout.log").read_text().splitlines()
            assert log == ["answer 2", "answer 3", "answer 4"]
        assert ask(spec) == before | {"answers": 2}, "expected the original to be untouched"
        assert len(sandbox.live()) == 4
        for pod in sandbox.traces():
            sandbox.stop(pod)
        assert sandbox.traces() == []


def test_family_of_processes_and_threads_comes_back_twice(sandbox, criu, tmp_path, into):
    spec = spec_of(tmp_path, "a", sys.executable, "-c", FAMILY)
    log = spec.folder / "stdout.log"
    live = sandbox.start(spec)
    wait_for(lambda: log.exists() and log.read_text())
    for generation in ("b", "c"):
        assert len(sandbox.pids(spec.pod)) == 2
        place = into / generation
        place.mkdir()
        criu.dump(spec, live, place, leave=True)
        sandbox.stop(spec.pod)
        size = log.stat().st_size
        # Each under another name, with logs elsewhere.
        spec = under(spec, tmp_path, generation)
        live = criu.restore(spec, place)
        assert log.stat().st_size == size
        log = spec.folder / "stdout.log"
        wait_for(lambda log=log: log.read_text().count("child") > 1)
        assert set(log.read_text().splitlines()) == {"child x 2"}


def test_lazy_restore_brings_all_pages_and_its_helper_ends(sandbox, criu, tmp_path, into):
    spec = server_spec(tmp_path, "a", 100, free_port())
    live = sandbox.start(spec)
    before = ask(spec)
    criu.dump(spec, live, into, leave=True)
    sandbox.stop("a")
    live = criu.restore(spec, into, lazy=True)
    assert ask(spec, "/")["answers"] == 2
    assert ask(spec) == before | {"answers": 3}
    wait_for(lambda: pages_of(spec.folder) == "whole")
    assert sandbox.pids("a") == [live.pid]
    # The new memory is like any other.
    again = tmp_path / "again"
    again.mkdir()
    criu.dump(spec, live, again, leave=True)
    sandbox.stop("a")
    criu.restore(spec, again)
    assert ask(spec) == before | {"answers": 4}


def command_of(pid, word):
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return word.encode() in text and b"launcher.py" not in text


def test_restored_pod_is_found_by_a_new_agent(sandbox, criu, tmp_path, into):
    spec = server_spec(tmp_path, "a", 1, free_port())
    live = sandbox.start(spec)
    ask(spec)
    criu.dump(spec, live, into, leave=True)
    sandbox.stop("a")
    live = criu.restore(spec, into)
    new = ProcessSandbox(tmp_path / "state", sandbox.cgroups)
    assert new.live() == [live]
    assert ask(spec)["answers"] == 2
    os.kill(live.pid, signal.SIGKILL)
    wait_for(lambda: new.live() == [])
    new.stop("a")


def test_suspended_pod_has_to_be_thawed_before_a_dump(sandbox, criu, tmp_path, into):
    spec = server_spec(tmp_path, "a", 1, free_port())
    live = sandbox.start(spec)
    before = ask(spec)
    sandbox.freeze("a")
    with pytest.raises(AgentError, match="pod a: cannot be dumped: it is frozen"):
        criu.dump(spec, live, into, leave=True)
    sandbox.thaw("a")
    criu.dump(spec, live, into, leave=True)
    sandbox.stop("a")
    criu.restore(spec, into)
    assert ask(spec)["sum"] == before["sum"]


# -- what goes wrong ---
AGENT = """
import sys
from pathlib import Path
import msgspec
from inferx.exec.agent.processes.cgroup import Cgroups
from inferx.exec.agent.processes.criu import CriuSnapshotter
from inferx.exec.agent.ports import PodSpec
from inferx.exec.agent.processes.process import ProcessSandbox
state, parent, image, lazy = sys.argv[1:]
spec = msgspec.json.decode(sys.stdin.read(), type=PodSpec, dec_hook=lambda t, v: t(v))
sandbox = ProcessSandbox(Path(state), Cgroups(parent))
CriuSnapshotter(sandbox).restore(spec, Path(image), lazy=lazy == "True")
"""


@pytest.mark.parametrize("lazy", [False, True])
def test_agent_that_is_killed_in_a_restore_leaves_nothing_that_is_not_found(
    sandbox, criu, tmp_path, into, lazy
):
    spec = server_spec(tmp_path, "a", 10, free_port())
    live = sandbox.start(spec)
    ask(spec)
    criu.dump(spec, live, into, leave=True)
    sandbox.stop("a")
    shutil.rmtree(spec.folder)
    arguments = [str(tmp_path / "state"), sandbox.cgroups.parent, str(into), str(lazy)]
    command = [sys.executable, "-c", AGENT, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as agent:
        agent.stdin.write(msgspec.json.encode(spec, enc_hook=str))
        agent.stdin.close()
        wait_for((spec.folder / WORK / "restore.log").exists)
        agent.kill()
    assert sandbox.traces() == ["a"]
    sandbox.stop("a")
    assert sandbox.traces() == []
    assert not [pid for pid in procfs.all_pids() if command_of(pid, str(tmp_path))]
    for pid in zombies():
        # An agent's children are adopted by what started it: here by us.
        os.waitpid(pid, 0)
    criu.restore(spec, into)
    assert ask(spec)["answers"] == 2


def test_pod_with_a_device_open_is_not_dumped_and_goes_on(sandbox, criu, tmp_path, into):
    env = {"UNDUMPABLE": "/dev/fuse"}
    spec = server_spec(tmp_path, "a", 10, free_port(), env=env)
    live = sandbox.start(spec)
    before = ask(spec)
    with pytest.raises(
        AgentError, match=r"pod a: cannot be dumped: Can't dump file \d+ of"
    ) as told:
        criu.dump(spec, live, into, leave=True)
    assert told.value.phase == "dump"
    assert "\n" not in str(told.value)
    assert (spec.folder / WORK / "dump.log").stat().st_size
    assert contents(into) == {}
    assert sandbox.live() == [live]
    assert ask(spec) == before | {"answers": 2}


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ("/usr/bin/env", "mount", "-t", "tmpfs", "-o", "size=16m", "inferx-test", folder)
    subprocess.run(mount, check=True)
    yield folder
    subprocess.run(("/usr/bin/env", "umount", folder), check=True)


def test_pod_goes_on_if_the_disk_is_full(sandbox, criu, tmp_path, request):
    spec = server_spec(tmp_path, "a", 20, free_port())
    live = sandbox.start(spec)
    before = ask(spec)
    # Mounted after the pod has begun, and so not seen by it.
    into = request.getfixturevalue("small_disk")
    with pytest.raises(AgentError, match=r"pod a: cannot be dumped: .*[Nn]o space"):
        criu.dump(spec, live, into, leave=True)
    assert contents(into) == {}
    assert sandbox.live() == [live]
    assert ask(spec) == before | {"answers": 2}


def test_dump_to_and_restore_from_what_was_mounted_later(sandbox, criu, tmp_path, request):
    spec = server_spec(tmp_path, "a", 1, free_port())
    live = sandbox.start(spec)
    before = ask(spec)
    into = request.getfixturevalue("small_disk") / "image"
    into.mkdir()
    criu.dump(spec, live, into, leave=True)
    sandbox.stop("a")
    criu.restore(spec, into)
    assert ask(spec) == before | {"answers": 2}
    sandbox.stop("a")


def test_pod_goes_on_if_criu_is_killed_in_a_dump(sandbox, criu, tmp_path, into, network):
    spec = server_spec(tmp_path, "a", 100, 8000, network=network)
    live = sandbox.start(spec)
    before = ask(spec)
    pages = into / "pages-1.img"
    with ThreadPoolExecutor() as pool:
        dump = pool.submit(criu.dump, spec, live, into, leave=True, keep_connections=True)
        while not (pages.exists() and pages.stat().st_size) and not dump.done():
            pass
        kill_criu(spec)
    with pytest.raises(AgentError, match="pod a: cannot be dumped: CRIU was killed by signal 9"):
        dump.result()
    assert contents(into) == {}
    assert packet_filters(network) == []
    assert sandbox.live() == [live]
    assert ask(spec) == before | {"answers": 2}
    criu.dump(spec, live, into, leave=True)
    sandbox.stop("a")
    criu.restore(spec, into)
    assert ask(spec) == before | {"answers": 3}


def test_nothing_runs_if_criu_is_killed_in_a_restore(sandbox, criu, tmp_path, into):
    spec = server_spec(tmp_path, "a", 100, free_port())
    live = sandbox.start(spec)
    ask(spec)
    criu.dump(spec, live, into, leave=True)
    sandbox.stop("a")
    with ThreadPoolExecutor() as pool:
        restore = pool.submit(criu.restore, spec, into)
        while not (spec.folder / WORK / "restore.log").exists() and not restore.done():
            pass
        kill_criu(spec)
    with pytest.raises(AgentError, match="pod a: cannot be restored"):
        restore.result()
    assert sandbox.traces() == []
    criu.restore(spec, into)
    assert ask(spec)["answers"] == 2


def kill_criu(spec):
    """Kill the CRIU that works for a pod, and not who started it."""
    for pid in procfs.all_pids():
        if command_of(pid, str(spec.folder / WORK)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_dump_that_takes_too_long_is_ended(sandbox, criu, tmp_path, into):
    spec = server_spec(tmp_path, "a", 100, free_port())
    live = sandbox.start(spec)
    before = ask(spec)
    hasty = CriuSnapshotter(sandbox, timeout_s=0.01)
    with pytest.raises(AgentError, match=r"pod a: cannot be dumped: it took longer than 0\.01 s"):
        hasty.dump(spec, live, into, leave=True)
    assert ask(spec) == before | {"answers": 2}


def cut(folder):
    os.truncate(folder / "pages-1.img", 4096)


def garble(name):
    """As long as it was, and so found by CRIU alone."""

    def do(folder):
        file = folder / name
        file.write_bytes(b"\xff" * file.stat().st_size)

    return do


@pytest.mark.parametrize(
    ("damage", "told", "lazy"),
    [
        (lambda at: (at / "core-2.img").unlink(), "no whole dump: core-2.img is missing", False),
        (cut, "no whole dump: pages-1.img has 4096 bytes, expected", False),
        (cut, "no whole dump: pages-1.img has 4096 bytes, expected", True),
        (lambda at: (at / "processes.json").unlink(), "is no dump: .*No such file", False),
        (lambda at: (at / "processes.json").write_text("{"), "processes.json: Input data", False),
        (garble("pstree.img"), "cannot be restored: Head magic .* for pstree.img", False),
        (garble("pstree.img"), "cannot be restored: lazy pages: .*: Head magic", True),
        (garble("mm-2.img"), "cannot be restored: .*mm-2", False),
    ],
)
def test_damaged_dump_is_refused_and_nothing_runs(
    sandbox, criu, tmp_path, into, damage, told, lazy
):
    spec = server_spec(tmp_path, "a", 1, free_port())
    live = sandbox.start(spec)
    ask(spec)
    criu.dump(spec, live, into, leave=True)
    sandbox.stop("a")
    damage(into)
    with pytest.raises(AgentError, match=told):
        criu.restore(spec, into, lazy=lazy)
    assert sandbox.traces() == []
    assert sandbox.live() == []


def test_port_in_use_is_told(sandbox, criu, tmp_path, into):
    spec = server_spec(tmp_path, "a", 1, free_port())
    live = sandbox.start(spec)
    ask(spec)
    criu.dump(spec, live, into, leave=False)
    with pytest.raises(AgentError, match=r"pod b: cannot be restored: .*in use"):
        criu.restore(under(spec, tmp_path, "b"), into)
    assert sandbox.traces() == ["a"]
    assert ask(spec)["answers"] == 2


def test_dump_refuses_what_it_cannot_do(sandbox, criu, tmp_path, into):
    spec = server_spec(tmp_path, "a", 1, free_port())
    live = sandbox.start(spec)
    ask(spec)
    (into / "x").touch()
    with pytest.raises(AgentError, match=r"expected .*image to be an empty folder"):
        criu.dump(spec, live, into, leave=True)
    (into / "x").unlink()
    sandbox.stop("a")
    with pytest.raises(AgentError, match="pod a: there is none of that name"):
        criu.dump(spec, live, into, leave=True)
    new = sandbox.start(spec)
    with pytest.raises(AgentError, match=f"process {live.pid} is no longer it"):
        criu.dump(spec, live, into, leave=True)
    assert sandbox.live() == [new]


def script(tmp_path, text):
    file = tmp_path / "criu"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o700)
    return str(file)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("echo Version: 3.17.1", "is version 3.17.1, expected 4.2 or newer"),
        ("echo Version: 4.1.1", "is version 4.1.1, expected 4.2 or newer"),
        ("echo hello", "does not tell its version"),
        (
            'test $1 = check || { echo Version: 4.3; exit; }; echo "Error (x.c:1): No such kernel"',
            "check: No such kernel",
        ),
    ],
)
def test_criu_that_will_not_do_is_told_apart(sandbox, tmp_path, text, told):
    found = CriuSnapshotter(sandbox, path=script(tmp_path, text)).probe()
    assert not found.available
    assert told in found.reason


def test_missing_criu_is_told(sandbox, tmp_path, into):
    criu = CriuSnapshotter(sandbox, path="/no/such/criu")
    assert criu.probe().reason == "no CRIU: /no/such/criu is not there, or cannot be run"
    spec = spec_of(tmp_path, "a", sys.executable, "-c", "import time; time.sleep(60)")
    live = sandbox.start(spec)
    with pytest.raises(AgentError, match="pod a: cannot be dumped: no CRIU"):
        criu.dump(spec, live, into, leave=True)


def test_process_groups_have_no_snapshots(tmp_path, into):
    with sandbox_in(tmp_path, contained=False) as sandbox:
        criu = CriuSnapshotter(sandbox)
        assert "no permission: pods have no cgroups" in criu.probe().reason
        spec = spec_of(tmp_path, "a", sys.executable, "-c", "import time; time.sleep(60)")
        live = sandbox.start(spec)
        with pytest.raises(AgentError, match="it has no pids of its own"):
            criu.dump(spec, live, into, leave=True)
        assert sandbox.live() == [live]


def test_criu_is_the_given_one_then_the_environments_then_paths(tmp_path, monkeypatch):
    ours = script(tmp_path, "exit")
    monkeypatch.setenv("INFERX_CRIU", ours)
    assert criu_probe.find_criu("/bin/true") == "/bin/true"
    assert criu_probe.find_criu() == ours
    monkeypatch.delenv("INFERX_CRIU")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert criu_probe.find_criu() == ours
    monkeypatch.setenv("PATH", "")
    assert criu_probe.find_criu() == ""
