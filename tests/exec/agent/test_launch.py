"""The launcher: a program apart, so that the agent with its threads need not fork."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_pods import wait_for, zombies

from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.processes import criu_files, criu_lock, launch, procfs
from inferx.exec.agent.processes.criu_files import errors_in, first_error, said_in
from inferx.exec.agent.processes.criu_image import choose_last_pid, version_of


def plan_of(*command, **more):
    files = [(number, "/dev/null", os.O_RDWR) for number in range(3)]
    return launch.Plan(command=command, env={"PATH": launch.PATH}, files=files, wait=True, **more)


def test_run_ends_as_the_program_did():
    assert launch.run(plan_of("true"), what="x", timeout_s=10) == 0
    assert launch.run(plan_of("sh", "-c", "exit 7"), what="x", timeout_s=10) == 7
    assert launch.run(plan_of("sh", "-c", "kill -9 $$"), what="x", timeout_s=10) == 137
    assert zombies() == []


def test_program_that_is_not_there_is_told():
    with pytest.raises(AgentError, match=r"x: .*No such file"):
        launch.run(plan_of("/no/such/program"), what="x", timeout_s=10)
    assert zombies() == []


def test_program_that_takes_too_long_is_killed(tmp_path):
    began = time.monotonic()
    plan = plan_of("sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 60")
    with pytest.raises(AgentError, match=r"x: it took longer than 0\.2 s"):
        launch.run(plan, what="x", timeout_s=0.2)
    assert time.monotonic() - began < 10
    assert not procfs.started(int((tmp_path / "pid").read_text()))
    assert zombies() == []


def test_program_is_killed_with_its_launcher(tmp_path):
    process = launch.begin(plan_of("sleep", "60", tied=True))
    pid = launch.answer(process, what="x")
    process.kill()
    process.wait()
    wait_for(lambda: not procfs.started(pid))
    # It is our child by now if orphans are adopted.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


@pytest.mark.parametrize(("command", "killed"), [("true", False), ("false", True)])
def test_guarded_process_is_killed_if_the_program_fails(command, killed):
    guarded = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with guarded:
        launch.run(plan_of(command, guards=guarded.pid), what="x", timeout_s=10)
        if not killed:
            assert guarded.poll() is None
            guarded.communicate(b"\n")
        assert guarded.wait() == (-signal.SIGKILL if killed else 0)


# -- what is known of CRIU's images and words ---
@pytest.mark.parametrize(
    ("numbers", "last"),
    [
        ([], 300),
        ([1, 2, 40], 300),
        ([2, 300, 301, 400], 400),
        (range(300, 600), 599),
        ([350, 607], 350),
        ([350, 606], 606),
        ([9000], 300),
    ],
)
def test_numbers_that_criu_takes_are_the_first_free_ones(numbers, last):
    assert choose_last_pid(numbers, most=32767) == last


@given(st.lists(st.integers(1, 4000), max_size=60))
def test_numbers_that_criu_takes_are_used_by_none(numbers):
    try:
        last = choose_last_pid(numbers, most=4000)
    except AgentError:
        taken = {*numbers, 4001}
        assert all(taken & set(range(at, at + 256)) for at in range(301, 4001 - 255))
    else:
        assert 300 <= last <= 4000 - 256
        assert not set(numbers) & set(range(last + 1, last + 257))


def test_no_free_numbers_is_an_error():
    with pytest.raises(AgentError, match="no 256 process numbers in a row are free below 4000"):
        choose_last_pid(range(0, 4001, 200), most=4000)


def test_first_error_is_the_first_that_is_no_echo():
    log = (
        "(00.1) Error (criu/util.c:1): rlimit: Can't setup RLIMIT_NOFILE for self\n"
        "(00.2) Warn  (criu/x.c:1): something\n"
        "(00.3) Error (criu/files-ext.c:98): Can't dump file 3 of that type\n"
        "(00.4) Error (criu/cr-dump.c:1545): Dump files failed with -1\n"
    )
    assert first_error(log) == "Can't dump file 3 of that type (criu/files-ext.c:98)"
    assert first_error("(00.2) Warn  (criu/x.c:1): something\n") == ""


def test_what_a_log_says_is_its_cause_and_its_end_in_one_short_line(tmp_path, monkeypatch):
    log = tmp_path / "dump.log"
    assert (errors_in(log), said_in(log)) == ("", "")
    log.write_text("")
    assert (errors_in(log), said_in(log)) == ("", "")
    log.write_text("(00.1) Dumping\n(00.2) Waiting for 7\n\n")
    assert errors_in(log) == ""
    assert said_in(log) == "its log ends with: (00.2) Waiting for 7"
    lines = [f"(00.{n}) Error (criu/x.c:{n}): step {n} {'y' * 1000}" for n in range(1, 200)]
    log.write_text("\n".join(lines) + "\n(00.9) Error (criu/cr-dump.c:1): Dumping FAILED.\n")
    for read_bytes in (1 << 20, 4_000):
        monkeypatch.setattr(criu_files, "READ_BYTES", read_bytes)
        told = errors_in(log)
        assert told == said_in(log)
        cause, *then = re.findall(r"step (\d+)", told)
        assert (cause, then) == ("1", ["198", "199"])
        assert "\n" not in told
        assert len(told) < 600
    log.write_text("(1) Error (a.c:1): the same\n(2) Error (a.c:1): the same\n")
    assert errors_in(log) == "the same (a.c:1)"


def test_a_packet_filter_that_is_not_removed_in_time_is_an_error(tmp_path, monkeypatch):
    slow = tmp_path / "nft"
    slow.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(launch, "PATH", str(tmp_path))
    with pytest.raises(AgentError, match=r"packet filter CRIU-1: it took longer than 0\.1 s"):
        criu_lock.remove("CRIU-1", network="", said=tmp_path / "said", within_s=0.1)
    assert zombies() == []


@pytest.mark.parametrize(("code", "left"), [(0, []), (3, ["note.lost"])])
def test_a_program_that_fails_is_noted_and_takes_others_with_it(tmp_path, code, left):
    others = [subprocess.Popen(["sleep", "60"]) for _ in range(3)]
    (tmp_path / "procs").write_text("".join(f"{one.pid}\n" for one in others[:2]))
    (tmp_path / "note").touch()
    try:
        plan = plan_of(
            *("sh", "-c", f"exit {code}"),
            guards=others[2].pid,
            guards_in=[str(tmp_path / "procs"), str(tmp_path / "none")],
            note=str(tmp_path / "note"),
        )
        process = launch.begin(plan)
        launch.answer(process, what="x")
        if code:
            assert [one.wait(10) for one in others] == [-9] * 3
            # Cgroups list nobody then.
            (tmp_path / "procs").write_text("")
        assert process.wait(15) == code
        assert sorted(path.name for path in tmp_path.glob("note*")) == left
        assert code or [one.poll() for one in others] == [None] * 3
    finally:
        for one in others:
            one.kill()
            one.wait()


@pytest.mark.parametrize(
    ("text", "version"),
    [("Version: 4.2.1\nGitID: v4\n", (4, 2, 1)), ("Version: 4.2", (4, 2)), ("no", ()), ("", ())],
)
def test_version_is_read(text, version):
    assert version_of(text) == version


def test_a_launcher_that_is_held_up_is_given_up(tmp_path, monkeypatch):
    held = tmp_path / "cgroup.procs"
    os.mkfifo(held)  # It is not opened for writing before somebody reads.
    monkeypatch.setattr(launch, "START_S", 0.3)
    plan = launch.Plan(command=["/bin/true"], cgroups=[str(held)])
    process = launch.begin(plan)
    with pytest.raises(AgentError, match=r"pod a: nothing began within 0.3 s"):
        launch.answer(process, what="pod a")
    assert process.returncode == -signal.SIGKILL
