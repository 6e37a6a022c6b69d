"""CRIU beside a container runtime, and what is left when either is killed: the parts, alone."""

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferx.exec.agent.containers import container_criu, leftovers
from inferx.exec.agent.containers.kernel_facts import (
    cgroup_folders,
    cgroup_memory,
    cgroup_pids,
    give_devices,
)
from inferx.exec.agent.containers.oci import DeviceNode, OciEdits
from inferx.exec.agent.containers.runc import RuncSandbox
from inferx.exec.agent.containers.runc_criu import RuncSnapshotter
from inferx.exec.agent.ports import AgentError, Launch, PodSpec
from inferx.exec.agent.processes.criu_files import emptied
from inferx.exec.agent.processes.page_server import NOTE, PageServers, pages_of, serve_pages
from inferx.exec.agent.processes.page_server import stop_pages as stop
from inferx.exec.agent.processes.procfs import started

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("lazy", [True, False])
def test_connections_are_kept_or_closed_and_never_both(tmp_path: Path, *, keep: bool, lazy: bool):
    path = tmp_path / "criu.conf"
    container_criu.write_options(path, keep_connections=keep, lazy=lazy)
    options = path.read_text().splitlines()
    assert ("tcp-established" in options, "tcp-close" in options) == (keep, not keep)
    assert ("network-lock nftables" in options, "network-lock skip" in options) == (keep, not keep)
    assert ("lazy-pages" in options) == lazy
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_first_error_is_the_cause_and_the_limit_of_files_is_none(tmp_path: Path):
    assert container_criu.last_error(tmp_path) == ""
    (tmp_path / "dump.log").write_text(
        "(00.001) Error (criu/rlimit.c:1): rlimit: Can't setup RLIMIT_NOFILE for self\n"
        "(00.002) Warn  (criu/net.c:1): a warning\n"
        "(00.003) Error (criu/files-ext.c:94): Can't dump file 5 of that type\n"
        "(00.004) Error (criu/cr-dump.c:1): Dumping FAILED.\n"
    )
    told = container_criu.last_error(tmp_path)
    assert told == "Can't dump file 5 of that type (criu/files-ext.c:94)"


def test_a_dump_is_whole_only_with_all_its_files_at_their_sizes(tmp_path: Path):
    for name in ("inventory.img", "pages-1.img"):
        (tmp_path / name).write_bytes(b"12345")
    with pytest.raises(AgentError, match="is not a dump"):
        container_criu.check_dump("p", tmp_path)
    container_criu.seal_dump(tmp_path)
    container_criu.check_dump("p", tmp_path)
    (tmp_path / "pages-1.img").write_bytes(b"1234")
    with pytest.raises(AgentError, match="has 4 bytes, expected 5"):
        container_criu.check_dump("p", tmp_path)
    (tmp_path / "pages-1.img").unlink()
    with pytest.raises(AgentError, match="is missing"):
        container_criu.check_dump("p", tmp_path)
    (tmp_path / "sizes.json").write_text("[]")
    with pytest.raises(AgentError, match="is not a dump"):
        container_criu.check_dump("p", tmp_path)
    (tmp_path / "folder").mkdir()
    emptied(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("program", ["/bin/false", "/bin/true", "/no/such/criu"])
def test_a_server_of_pages_that_does_not_listen_is_one_clear_error(tmp_path: Path, program: str):
    with pytest.raises(AgentError, match="lazy pages: ") as caught:
        serve_pages(program, tmp_path, tmp_path, tmp_path)
    assert program in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / NOTE).exists()


def noted(folder: Path, *numbers: int) -> None:
    """Write a note as one that serves pages: launcher and server, each with its start."""
    launcher, server = numbers[:2], numbers[2:]
    (folder / NOTE).write_text(json.dumps({"launcher": launcher, "server": server}))


def test_a_note_says_how_a_pods_memory_is(tmp_path: Path):
    assert pages_of(tmp_path) == "whole"
    process = subprocess.Popen(["sleep", "60"])
    try:
        here, gone = (process.pid, started(process.pid)), (process.pid, started(process.pid) + 1)
        for launcher, server, pages in (
            (here, here, "coming"),
            (here, gone, "coming"),
            (gone, here, "coming"),
            (gone, gone, "lost"),
        ):
            noted(tmp_path, *launcher, *server)
            assert pages_of(tmp_path) == pages
    finally:
        process.kill()
        process.wait()
    noted(tmp_path, *here, *here)
    assert pages_of(tmp_path) == "lost"
    (tmp_path / NOTE).write_text("nonsense")
    assert pages_of(tmp_path) == "lost"


def test_only_the_process_that_was_noted_is_ended(tmp_path: Path):
    process = subprocess.Popen(["sleep", "60"])
    try:
        since = started(process.pid)
        noted(tmp_path, process.pid, since + 1, process.pid, since + 1)
        stop(tmp_path)
        assert process.poll() is None
        assert not (tmp_path / NOTE).exists()
        (tmp_path / NOTE).write_text("nonsense")
        stop(tmp_path)
        assert not (tmp_path / NOTE).exists()
        noted(tmp_path, 1 << 22, 1, process.pid, since)
        stop(tmp_path)
        assert process.wait(timeout=5) == -9
    finally:
        process.kill()
        process.wait()


def test_a_node_that_cannot_bring_pages_lazily_says_why(tmp_path: Path):
    assert PageServers("").probe().reason == "no CRIU"
    assert "cannot be asked" in PageServers(str(tmp_path / "criu")).probe().reason
    criu = tmp_path / "criu"
    criu.write_text("#!/bin/sh\necho uffd is not supported\nexit 1\n")
    criu.chmod(0o755)
    told = PageServers(str(criu)).probe()
    assert not told.available
    assert told.reason.endswith("check --feature uffd-noncoop: uffd is not supported")


def test_what_works_in_a_folder_is_killed_and_nothing_else(tmp_path: Path):
    (tmp_path / "work/deep").mkdir(parents=True)
    (tmp_path / "worker").mkdir()
    inside = subprocess.Popen(["sleep", "60"], cwd=tmp_path / "work/deep")
    beside = subprocess.Popen(["sleep", "60"], cwd=tmp_path / "worker")
    try:
        leftovers.kill_workers(tmp_path / "work")
        assert inside.wait(timeout=5) == -9
        assert beside.poll() is None
        leftovers.kill_workers(tmp_path / "none")
    finally:
        for process in (inside, beside):
            process.kill()
            process.wait()


@given(st.text(st.characters(exclude_characters="\0", max_codepoint=0x2FF), min_size=1))
def test_a_path_is_read_as_the_kernel_writes_it(path: str):
    octal = {" ": r"\040", "\t": r"\011", "\n": r"\012", "\\": r"\134"}
    assert leftovers.unescaped("".join(octal.get(one, one) for one in path)) == path


@needs_root
def test_programs_that_are_not_there_are_reasons(tmp_path: Path):
    without = RuncSandbox(tmp_path, runc="no-such-runc")
    for capability in (without.probe(), RuncSnapshotter(without).probe()):
        assert not capability.available
        assert capability.reason == "no no-such-runc in the PATH"
    silent = tmp_path / "runc"
    silent.write_text("#!/bin/sh\nexit 1\n")
    silent.chmod(0o755)
    broken = RuncSandbox(tmp_path, runc=str(silent))
    assert broken.probe().reason == f"{silent} cannot be run"


def test_runc_alone_has_no_images(tmp_path: Path):
    launch = Launch(function="f", command=("x",), image="registry.test/one:1")
    with pytest.raises(AgentError, match="needs containerd"):
        RuncSandbox(tmp_path).start(PodSpec(pod="p", launch=launch, folder=tmp_path / "p"))
    assert list(tmp_path.iterdir()) == []


def mount_here(kind: str, *words: object) -> None:
    subprocess.run(["mount", *kind.split(), *map(str, words)], check=True)


@needs_root
def test_a_tree_is_removed_without_what_is_mounted_in_it(tmp_path: Path):
    kept, tree = tmp_path / "kept", tmp_path / "a tree"
    for folder in (kept, tree / "bound", tree / "memory"):
        folder.mkdir(parents=True)
    (kept / "file").touch()
    try:
        mount_here("--bind", kept, tree / "bound")
        mount_here("-t tmpfs none", tree / "memory")
        (tree / "memory/deeper").mkdir()
        mount_here("--bind", kept, tree / "memory/deeper")
        leftovers.unmount_and_remove(tree)
    finally:
        for left in ("memory/deeper", "memory", "bound"):
            subprocess.run(["umount", "-l", tree / left], check=False, stderr=subprocess.DEVNULL)
    assert not tree.exists()
    assert (kept / "file").exists()
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    leftovers.unmount_and_remove(tree)


def nodes(path: Path, *, minor: int = 3, mode: int = 0o666) -> OciEdits:
    return OciEdits(devices=(DeviceNode(path=str(path), major=1, minor=minor, mode=mode),))


@needs_root
def test_a_device_is_made_what_it_should_be(tmp_path: Path):
    path = tmp_path / "sub" / "node"
    give_devices(os.getpid(), nodes(path))
    first = path.stat()
    assert first.st_mode & 0o777 == 0o666
    give_devices(os.getpid(), nodes(path))
    assert path.stat().st_ino == first.st_ino
    give_devices(os.getpid(), nodes(path, minor=5, mode=0o640))
    found = path.stat()
    assert stat.S_ISCHR(found.st_mode)
    assert (os.major(found.st_rdev), os.minor(found.st_rdev)) == (1, 5)
    assert found.st_mode & 0o777 == 0o640


@needs_root
def test_a_device_that_is_withheld_goes(tmp_path: Path):
    path = tmp_path / "node"
    give_devices(os.getpid(), nodes(path))
    (withheld,) = nodes(path).devices
    for _ in range(2):
        give_devices(os.getpid(), OciEdits(withheld=(withheld,)))
        assert not path.exists()


@needs_root
def test_a_device_is_not_made_through_a_link(tmp_path: Path):
    (tmp_path / "host").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "host")
    with pytest.raises(AgentError, match="device"):
        give_devices(os.getpid(), nodes(tmp_path / "link" / "node"))
    assert list((tmp_path / "host").iterdir()) == []
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "node").symlink_to(tmp_path / "kept")
    give_devices(os.getpid(), nodes(tmp_path / "node"))
    assert (tmp_path / "kept").read_text() == "kept"
    assert stat.S_ISCHR((tmp_path / "node").lstat().st_mode)


def test_what_is_not_there_has_no_processes_no_start_and_no_memory():
    assert started(2**22 + 1) == 0
    assert started(os.getpid()) > 0
    assert list(cgroup_pids("/inferx/none")) == []
    with pytest.raises(AgentError, match="cannot be read"):
        cgroup_memory("/inferx/none")
    leftovers.clear_cgroup("/inferx/none", within_s=1)


def test_a_cgroup_is_found_where_there_is_but_one_tree(tmp_path):
    tree = tmp_path / "tree"
    (tree / "inferx" / "pod-1").mkdir(parents=True)
    for folder in (tree, tree / "inferx" / "pod-1"):
        (folder / "cgroup.procs").write_text("")
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(f"30 23 0:26 / {tree} rw,nosuid shared:9 - cgroup2 cgroup2 rw\n")

    assert cgroup_folders("/inferx/pod-1", mountinfo=mountinfo) == [tree / "inferx" / "pod-1"]
    assert cgroup_folders("/inferx/pod-2", mountinfo=mountinfo) == []
