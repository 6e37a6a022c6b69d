"""Whatever ends a writer, and wherever: what is seen afterwards is whole, and nothing else is left.

And full disks, missing permission, and what has to be on the disk before anybody sees it.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from snapshots import draft, fill, leftovers, put, require_sound

from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store import FolderTier, SnapshotStore

PROGRAM = Path(__file__).parents[2] / "support" / "crash_store.py"
OPERATIONS = ["commit", "promote", "sink", "delete", "room"]


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory: a process's end is the same there, and many are quick."""
    folder = Path(tempfile.mkdtemp(prefix="inferx-store-", dir="/dev/shm"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def every_step(root: Path, operation: str, mode: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(root), operation, mode],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return told["steps"], told["left"]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_process_that_ends_at_any_step_leaves_whole_snapshots(memory: Path, operation: str) -> None:
    steps, _ = every_step(memory, operation, "crash")
    assert steps > 20


@pytest.mark.parametrize("operation", OPERATIONS)
def test_error_at_any_step_is_told_and_leaves_only_what_could_not_be_removed(
    memory: Path, operation: str
) -> None:
    steps, left = every_step(memory, operation, "fail")
    assert steps > 20
    for told in left:
        assert any(
            words in told
            for words in ("cannot clean up", "cannot delete", "cannot remove all", "in spite of it")
        ), told


def test_everything_is_on_the_disk_before_it_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier = FolderTier("nvme", tmp_path / "nvme", budget_bytes=100_000)
    synced: list[str] = []
    seen: list[int] = []
    fsync, rename = os.fsync, os.rename

    def noted_fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def noted_rename(source: Path, target: Path) -> None:
        seen.append(len(synced))
        assert set(synced) == {str(source), *(str(path) for path in source.rglob("*"))}
        assert synced.index(str(source / "manifest.json")) > synced.index(str(source / "files"))
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", noted_fsync)
        patched.setattr(os, "rename", noted_rename)
        put(tier, 1)
    assert len(seen) == 1
    assert synced[seen[0] :] == [str(tier.root / "snapshots")]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB of its own."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(folder)], check=True
    )
    try:
        yield folder
    finally:
        # Lazily: a test that failed may hold files of it open.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_disk_that_fills_while_a_snapshot_is_written_is_one_error(small_disk: Path) -> None:
    tier = FolderTier("nvme", small_disk, budget_bytes=1 << 40)
    with pytest.raises(AgentError, match=r"2,000,000 bytes do not fit: .* are free"):
        tier.begin(2_000_000)
    kept = put(tier, 1)
    with tier.begin(500_000) as staging:
        fill(staging.folder, 2, 500_000)
        subprocess.run(["cp", "/dev/zero", str(small_disk)], check=False, stderr=subprocess.PIPE)
        with pytest.raises(AgentError, match=r"tier nvme: cannot commit .*: the disk is full"):
            staging.commit(draft())
    assert require_sound(tier) == {kept.id}
    assert leftovers(tier.root) == []


def test_disk_that_fills_while_a_snapshot_is_copied_is_one_error(
    tmp_path: Path, small_disk: Path
) -> None:
    warm = FolderTier("nvme", small_disk, budget_bytes=1 << 40)
    cold = FolderTier("shared", tmp_path / "shared", budget_bytes=1 << 40)
    snapshot = put(cold, 1, size_bytes=600_000).id
    store = SnapshotStore([warm, cold])

    def others(done_bytes: int, total_bytes: int) -> None:
        del done_bytes, total_bytes
        if not (small_disk / "others").exists():
            (small_disk / "others").write_bytes(bytes(800_000))

    with pytest.raises(AgentError, match=r"cannot copy .* to .*/small/.*: the disk is full"):
        store.promote(snapshot, "nvme", progress=others)
    assert require_sound(warm) == set()
    assert leftovers(warm.root) == []
    assert require_sound(cold) == {snapshot}


def test_missing_permission_is_one_error(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    tier = FolderTier("nvme", tmp_path / "nvme", budget_bytes=100_000)
    snapshot = put(tier, 1).id
    code = f"""
import os
from pathlib import Path
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store import FolderTier
root = Path({str(tier.root)!r})
def attempt(call):
    try:
        call()
    except AgentError as error:
        print(error)
tier = FolderTier("nvme", root, budget_bytes=100_000)
os.seteuid(65534)
attempt(lambda: FolderTier("nvme", root, budget_bytes=100_000))
attempt(lambda: tier.begin(10))
attempt(lambda: tier.delete({snapshot!r}))
attempt(tier.recover)
attempt(tier.contents)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 5
    assert all("no permission (Permission denied)" in line for line in lines)
    assert require_sound(tier) == {snapshot}


def test_read_only_file_system_is_one_error(tmp_path: Path, small_disk: Path) -> None:
    tier = FolderTier("shared", small_disk / "shared", budget_bytes=100_000)
    snapshot = put(tier, 1).id
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for call in (lambda: tier.begin(10), lambda: tier.delete(snapshot), tier.recover):
        with pytest.raises(AgentError, match=r"no permission \(Read-only file system\)"):
            call()
    assert tier.get(snapshot).id == snapshot
