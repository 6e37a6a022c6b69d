"""Pods of plain processes: contained ones, and process groups where that cannot be."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from plain_pods import (
    ask,
    free_port,
    needs_root,
    networks,
    sandbox_in,
    server_spec,
    spec_of,
    wait_for,
    zombies,
)

from inferx.exec.agent.ports import AgentError, Mount
from inferx.exec.agent.processes import procfs
from inferx.exec.agent.processes.process import ProcessSandbox

pytestmark = needs_root

SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")
TREE = """
import os, time
for _ in range(2): os.fork()
if os.fork() == 0:
    {leave}
    if os.fork(): os._exit(0)
print("x", flush=True)
time.sleep(60)
"""
OWN = """
import os, time
print(os.getpid(), sorted(int(p) for p in os.listdir("/proc") if p.isdigit()), flush=True)
time.sleep(60)
"""
ORPHAN = """
import os, time
if os.fork() == 0:
    os.fork()
    os._exit(0)
os.wait()
print("x", flush=True)
time.sleep(60)
"""
WRITE = """
import pathlib, sys, time
place = pathlib.Path(sys.argv[1])
print((place / "weights").read_text(), flush=True)
try:
    (place / "new").touch()
except OSError as error:
    print(error.strerror, flush=True)
time.sleep(60)
"""
COUNT = "n = 0\nwhile True: n += 1; print(n, flush=True)"


@pytest.fixture(params=[True, False], ids=["contained", "group"])
def sandbox(request, tmp_path):
    with sandbox_in(tmp_path, contained=request.param) as found:
        yield found


@pytest.fixture
def contained(tmp_path):
    with sandbox_in(tmp_path) as found:
        yield found


def lines(spec, name="stdout.log"):
    file = spec.folder / name
    return file.read_text().splitlines() if file.exists() else []


def test_pod_serves_until_it_is_stopped(sandbox, tmp_path):
    spec = server_spec(tmp_path, "a", 1, free_port())
    live = sandbox.start(spec)
    assert ask(spec)["answers"] == 1
    assert sandbox.live() == [live]
    assert live.started == procfs.started(live.pid)
    assert sandbox.pids("a") == [live.pid]
    assert 1 << 20 < sandbox.memory_bytes("a") < 100 << 20
    assert lines(spec) == ["ready", "answer 1"]
    assert (spec.folder / "stdout.log").stat().st_mode & 0o777 == 0o600
    sandbox.stop("a")
    assert sandbox.live() == []
    assert sandbox.traces() == []
    assert not procfs.started(live.pid, zombies=True)
    assert zombies() == []
    sandbox.stop("a")


def test_process_gets_its_own_environment_and_nothing_of_ours(sandbox, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "ours")
    code = (
        "import os, sys; print(dict(os.environ)); print(os.getcwd(), os.getsid(0) == os.getpid());"
        "print(sorted(os.listdir('/proc/self/fd'))); print(sys.stdin.read(), file=sys.stderr);"
        "sys.stdout.flush(); import time; time.sleep(60)"
    )
    spec = spec_of(
        tmp_path, "a", sys.executable, "-c", code, env={"A": "1"}, port=7, cwd=str(tmp_path)
    )
    sandbox.start(spec)
    wait_for(lambda: len(lines(spec)) == 3 and lines(spec, "stderr.log"))
    env, place, files = lines(spec)
    env = eval(env)
    assert env["A"] == "1"
    assert env["PORT"] == "7"
    assert "SECRET" not in env
    assert place == f"{tmp_path} True"
    assert files == "['0', '1', '2', '3']", "3 is the folder that is listed"
    assert lines(spec, "stderr.log") == [""]


def test_contained_pod_sees_pids_of_its_own(contained, tmp_path):
    spec = spec_of(tmp_path, "a", sys.executable, "-c", OWN)
    contained.start(spec)
    wait_for(lambda: lines(spec))
    assert lines(spec) == ["2 [1, 2]"]


def test_stop_ends_the_whole_tree(contained, tmp_path):
    spec = spec_of(tmp_path, "a", sys.executable, "-c", TREE.format(leave="os.setsid()"))
    contained.start(spec)
    wait_for(lambda: len(lines(spec)) == 8 and len(contained.pids("a")) == 8)
    pids = contained.pids("a")
    contained.stop("a")
    assert not any(procfs.started(pid, zombies=True) for pid in pids)


def test_stop_ends_a_tree_that_stays_in_its_session(tmp_path):
    with sandbox_in(tmp_path, contained=False) as sandbox:
        spec = spec_of(tmp_path, "a", sys.executable, "-c", TREE.format(leave="os.setpgid(0, 0)"))
        sandbox.start(spec)
        wait_for(lambda: len(lines(spec)) == 8 and len(sandbox.pids("a")) == 8)
        pids = sandbox.pids("a")
        sandbox.stop("a")
        assert not any(procfs.started(pid) for pid in pids)
        assert "leaves its session" in sandbox.probe().facts["lost"]


def test_pod_that_ended_is_not_live_and_leaves_no_zombie(sandbox, tmp_path):
    live = sandbox.start(
        spec_of(tmp_path, "a", sys.executable, "-c", "import time; time.sleep(0.2)")
    )
    wait_for(lambda: sandbox.live() == [])
    wait_for(lambda: sandbox.live() == [] and not procfs.started(live.pid, zombies=True))
    assert sandbox.traces() == ["a"]
    sandbox.stop("a")
    assert zombies() == []


def test_orphans_are_collected_while_the_pod_runs(contained, tmp_path):
    spec = spec_of(tmp_path, "a", sys.executable, "-c", ORPHAN)
    live = contained.start(spec)
    wait_for(lambda: lines(spec))
    wait_for(lambda: procfs.children(contained.record("a").init) == [live.pid])


def test_frozen_pod_does_nothing(sandbox, tmp_path):
    spec = spec_of(tmp_path, "a", sys.executable, "-c", COUNT)
    live = sandbox.start(spec)
    wait_for(lambda: lines(spec))
    sandbox.freeze("a")
    wait_for(lambda: sandbox.contained or state(live.pid) == "T")
    before = len(lines(spec))
    assert len(lines(spec)) == before
    assert sandbox.live() == [live]
    sandbox.thaw("a")
    wait_for(lambda: len(lines(spec)) > before)
    sandbox.freeze("a")
    sandbox.stop("a")


def state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_new_agent_finds_the_pods_of_one_that_was_killed(sandbox, tmp_path):
    spec = server_spec(tmp_path, "a", 1, free_port())
    code = (
        "import sys, msgspec, os, signal\n"
        "from pathlib import Path\n"
        "from inferx.exec.agent.processes.cgroup import Cgroups\n"
        "from inferx.exec.agent.processes.process import ProcessSandbox\n"
        "from inferx.exec.agent.ports import PodSpec\n"
        "spec = msgspec.json.decode(sys.stdin.read(), type=PodSpec, dec_hook=lambda t, v: t(v))\n"
        "contained = sys.argv[2] == 'True'\n"
        "ProcessSandbox(Path(sys.argv[1]), Cgroups(sys.argv[3]), contained=contained).start(spec)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-c", code),
            *(str(tmp_path / "state"), str(sandbox.contained), sandbox.cgroups.parent),
        ],
        input=msgspec.json.encode(spec, enc_hook=str),
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    (live,) = sandbox.live()
    assert ask(spec)["answers"] == 1
    assert live.pod == "a"
    with pytest.raises(AgentError, match="there is one of that name"):
        sandbox.start(spec)
    sandbox.stop("a")
    assert not procfs.started(live.pid)


def test_pid_that_is_used_again_is_not_ours(sandbox, tmp_path):
    live = sandbox.start(spec_of(tmp_path, "a", *SLEEP))
    record = sandbox.record("a")
    stranger = subprocess.Popen(SLEEP)
    try:
        record.pid = stranger.pid
        sandbox._records.save(record)
        assert sandbox.live() == []
        if sandbox.contained:
            sandbox.stop("a")
            assert not procfs.started(live.pid)
        else:
            os.kill(live.pid, signal.SIGKILL)
            os.waitpid(live.pid, 0)
            sandbox.stop("a")
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_record_of_another_boot_is_not_ours(sandbox, tmp_path):
    sandbox.start(spec_of(tmp_path, "a", *SLEEP))
    record = sandbox.record("a")
    boot = record.boot
    record.boot = "earlier"
    sandbox._records.save(record)
    assert sandbox.live() == []
    record.boot = boot
    sandbox._records.save(record)


@pytest.mark.parametrize("written", [b"{", b'{"boot": "\xff"}'])
def test_damaged_record_is_told_by_its_file(sandbox, tmp_path, written):
    (tmp_path / "state").mkdir(exist_ok=True)
    file = tmp_path / "state" / "a.json"
    file.write_bytes(written)
    with pytest.raises(AgentError, match=r"pod a: cannot read its record .*a.json"):
        sandbox.live()
    file.unlink()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"command": ("/no/such/program",)}, "pod a: .*No such file or directory"),
        ({"command": ()}, "pod a: no command"),
        ({"image": "x"}, "pod a: a plain process has no image, expected none but got x"),
        ({"cwd": "/no/such/folder"}, "pod a: .*No such file or directory: '/no/such/folder'"),
    ],
)
def test_pod_that_cannot_start_leaves_nothing(sandbox, tmp_path, more, told):
    more = dict(more)
    command = more.pop("command", SLEEP)
    with pytest.raises(AgentError, match=told):
        sandbox.start(spec_of(tmp_path, "a", *command, **more))
    assert sandbox.traces() == []
    assert zombies() == []


@pytest.mark.parametrize("network", ["/no/such/network", "/dev/null"])
def test_missing_network_namespace_is_told(contained, tmp_path, network):
    with pytest.raises(AgentError, match=r"pod a: .*(No such file|setns: Invalid)"):
        contained.start(spec_of(tmp_path, "a", *SLEEP, network=network))
    assert contained.traces() == []


def test_group_refuses_what_it_cannot_do(tmp_path):
    with sandbox_in(tmp_path, contained=False) as sandbox:
        with pytest.raises(AgentError, match="need root and cgroups"):
            sandbox.start(spec_of(tmp_path, "a", *SLEEP, memory_bytes=1 << 20))
        assert sandbox.traces() == []


def test_pod_runs_in_its_network_namespace(contained, tmp_path):
    with networks(1) as (network,):
        spec = server_spec(tmp_path, "a", 1, 8000, network=network)
        live = contained.start(spec)
        assert ask(spec)["answers"] == 1
        assert procfs.namespace(live.pid, "net") != procfs.namespace(os.getpid(), "net")
        contained.stop("a")


def test_mounts_are_seen_inside_alone(contained, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "weights").write_text("bytes")
    spec = spec_of(
        tmp_path,
        "a",
        *(sys.executable, "-c", WRITE, str(target)),
        mounts=(Mount(str(source), str(target)),),
    )
    contained.start(spec)
    wait_for(lambda: len(lines(spec)) == 2)
    assert lines(spec) == ["bytes", "Read-only file system"]
    assert list(target.iterdir()) == []


def test_memory_limit_holds(contained, tmp_path):
    code = "import time; time.sleep(0.1); held = bytes(100 << 20)[::-1]; time.sleep(60)"
    spec = spec_of(tmp_path, "a", sys.executable, "-c", code, memory_bytes=64 << 20)
    contained.start(spec)
    assert contained.cgroups.memory_limit("a") == 64 << 20
    wait_for(lambda: contained.live() == [])


def test_sandbox_is_contained_where_it_can_be(tmp_path):
    with sandbox_in(tmp_path) as made:
        sandbox = ProcessSandbox(tmp_path / "state", made.cgroups)
        assert sandbox.contained
        assert sandbox.probe().available
        assert sandbox.live() == []
        with pytest.raises(AgentError, match="pod x: there is none of that name"):
            sandbox.pids("x")
