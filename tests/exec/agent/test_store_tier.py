"""A tier that is a folder: whole snapshots, within a budget, never one that is in use."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from snapshots import draft, fill, leftovers, put, require_sound

from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store import FolderTier, Watch

ABSENT = "0" * 40


@pytest.fixture
def tier(tmp_path: Path) -> FolderTier:
    return FolderTier("nvme", tmp_path / "nvme", budget_bytes=100_000)


def test_committed_snapshot_is_there_with_every_byte(tier: FolderTier) -> None:
    manifest = put(tier, 1)
    assert tier.get(manifest.id) == manifest
    assert tier.contents().manifests == (manifest,)
    assert [entry.path for entry in manifest.files] == [
        "core-1.img",
        "deeper/pages-1.img",
        "empty.img",
    ]
    assert manifest.size_bytes == tier.used_bytes() == 3_100
    assert require_sound(tier) == {manifest.id}
    assert leftovers(tier.root) == []


def test_snapshot_is_not_seen_before_it_is_committed(tier: FolderTier) -> None:
    with tier.begin(5_000) as staging:
        fill(staging.folder, 1)
        assert tier.contents().manifests == ()
        assert tier.used_bytes() == 5_000
    assert tier.contents().manifests == ()
    assert tier.used_bytes() == 0
    assert leftovers(tier.root) == []


def test_same_content_is_one_snapshot_however_often_it_is_made(tier: FolderTier) -> None:
    first = put(tier, 1, created_ns=1)
    again = put(tier, 1, created_ns=2)
    assert first.id == again.id
    assert tier.contents().manifests == (first,)
    assert leftovers(tier.root) == []


def test_same_content_of_another_function_is_another_snapshot(tier: FolderTier) -> None:
    assert put(tier, 1).id != put(tier, 1, function="evil/chat/llama@1").id
    assert len(require_sound(tier)) == 2


def test_what_would_not_fit_is_refused_before_anything_is_written(tier: FolderTier) -> None:
    put(tier, 1)
    with pytest.raises(AgentError, match="96,901 bytes do not fit: 3,100 of the budget of 100,000"):
        tier.begin(96_901)
    with tier.begin(90_000), pytest.raises(AgentError, match="do not fit"):
        tier.begin(6_901)
    tier.begin(96_900).abandon()
    assert leftovers(tier.root) == []


def test_more_than_the_disk_has_is_refused_whatever_the_budget(tmp_path: Path) -> None:
    for name in ("nvme", "dram"):
        tier = FolderTier(name, tmp_path / name, budget_bytes=1 << 60)
        with pytest.raises(AgentError, match=r"bytes do not fit: [0-9,]+ are free"):
            tier.begin(1 << 50)
        assert leftovers(tier.root) == []


def test_dump_that_grew_beyond_its_reservation_is_charged_or_refused(tier: FolderTier) -> None:
    with tier.begin(10) as staging:
        fill(staging.folder, 1)
        assert staging.commit(draft()).size_bytes == tier.used_bytes() == 3_100
    with tier.begin(10) as staging:
        fill(staging.folder, 2, size_bytes=99_000)
        with pytest.raises(AgentError, match="do not fit"):
            staging.commit(draft())
    assert len(require_sound(tier)) == 1
    assert leftovers(tier.root) == []


@pytest.mark.parametrize("kind", ["symlink", "socket", "nothing"])
def test_only_plain_files_become_a_snapshot(tier: FolderTier, kind: str) -> None:
    with tier.begin(10_000) as staging:
        match kind:
            case "symlink":
                (staging.folder / "out").symlink_to("/etc/passwd")
            case "socket":
                os.mkfifo(staging.folder / "out")
            case _:
                (staging.folder / "folder").mkdir()
        with pytest.raises(AgentError, match=r"plain file|no files were written"):
            staging.commit(draft())
    assert tier.contents().manifests == ()
    assert leftovers(tier.root) == []


def test_cancelled_commit_leaves_nothing(tier: FolderTier) -> None:
    cancel = Event()
    cancel.set()
    with tier.begin(10_000) as staging:
        fill(staging.folder, 1)
        with pytest.raises(AgentError, match="cancelled"):
            staging.commit(draft(), Watch(cancel=cancel))
    assert tier.contents().manifests == ()
    assert leftovers(tier.root) == []


def test_snapshot_in_use_is_not_deleted_and_its_users_are_told(tier: FolderTier) -> None:
    snapshot = put(tier, 1).id
    with (
        tier.hold(snapshot, "pod-1", now_ns=5_000),
        tier.hold(snapshot, "pod-2", now_ns=4_000) as held,
    ):
        assert (held.folder / "core-1.img").stat().st_size == 100
        assert tier.users(snapshot) == ("pod-1", "pod-2")
        with pytest.raises(AgentError, match="in use by pod-1, pod-2"):
            tier.delete(snapshot)
    held.release()
    assert tier.last_used_ns(snapshot) == 5_000
    assert tier.users(snapshot) == ()
    tier.delete(snapshot)
    assert tier.contents().manifests == ()
    assert leftovers(tier.root) == []


@pytest.fixture
def another_process(tier: FolderTier) -> Iterator[subprocess.Popen[str]]:
    snapshot = put(tier, 1).id
    code = (
        "import sys; from pathlib import Path; from inferx.exec.agent.store import FolderTier\n"
        f"tier = FolderTier('nvme', Path({str(tier.root)!r}), budget_bytes=100_000)\n"
        f"held = tier.hold({snapshot!r}, 'pod', now_ns=0); staging = tier.begin(50_000)\n"
        "(staging.folder / 'half').write_text('x'); print('ready', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        yield child
    finally:
        child.kill()
        child.communicate()


def test_what_another_process_uses_or_writes_stays_until_it_ends(
    tier: FolderTier, another_process: subprocess.Popen[str]
) -> None:
    (manifest,) = tier.contents().manifests
    with pytest.raises(AgentError, match="in use by another process"):
        tier.delete(manifest.id)
    assert tier.recover().removed == 0
    assert tier.used_bytes() == 53_100
    with pytest.raises(AgentError, match="do not fit"):
        tier.begin(50_000)
    another_process.kill()
    another_process.wait()
    assert tier.recover().removed == 1
    assert leftovers(tier.root) == []
    tier.delete(manifest.id)
    assert tier.used_bytes() == 0


def test_absent_and_impossible_ids_are_one_error(tier: FolderTier) -> None:
    for call in (
        tier.get,
        tier.delete,
        tier.last_used_ns,
        lambda one: tier.hold(one, "pod", now_ns=0),
    ):
        with pytest.raises(AgentError, match=f"no snapshot {ABSENT}"):
            call(ABSENT)
        with pytest.raises(
            AgentError, match=r"'\.\./x' is no snapshot id; expected 40 hexadecimal"
        ):
            call("../x")
    assert not tier.has(ABSENT)
    assert tier.users(ABSENT) == ()
    assert tier.verify(ABSENT, Watch()) == [f"tier nvme: no snapshot {ABSENT}"]


def test_verify_tells_every_changed_missing_and_added_file(tier: FolderTier) -> None:
    snapshot = put(tier, 1).id
    files = tier.root / "snapshots" / snapshot / "files"
    pages = files / "deeper" / "pages-1.img"
    content = bytearray(pages.read_bytes())
    content[1_234] ^= 1
    pages.write_bytes(content)
    (files / "core-1.img").write_bytes(b"short")
    (files / "empty.img").unlink()
    (files / "more").touch()
    faults = tier.verify(snapshot, Watch())
    assert faults[:2] == ["more: not in the manifest", "empty.img: missing"]
    assert faults[2] == "core-1.img: has 5 bytes, its manifest says 100"
    assert faults[3].startswith("deeper/pages-1.img: has checksum")


def test_unreadable_manifest_is_told_counted_and_hides_nothing(tier: FolderTier) -> None:
    kept, broken = put(tier, 1), put(tier, 2)
    home = tier.root / "snapshots" / broken.id
    (home / "manifest.json").write_text("{")
    (tier.root / "snapshots" / "stray").mkdir()
    found = tier.recover()
    assert found.removed == 0
    assert len(found.unreadable) == 2
    assert "corrupt or cut short" in found.unreadable[0]
    assert "'stray' is no snapshot id" in found.unreadable[1]
    assert tier.contents().manifests == (kept,)
    assert tier.used_bytes() >= 6_200
    assert put(tier, 2).id == broken.id, "writing it again repairs it"
    (tier.root / "snapshots" / "stray").rmdir()
    assert require_sound(tier) == {kept.id, broken.id}


def test_files_and_folders_are_for_this_user_alone(tier: FolderTier) -> None:
    with tier.begin(10_000) as staging:
        fill(staging.folder, 1)
        (staging.folder / "core-1.img").chmod(0o666)
        (staging.folder / "deeper").chmod(0o777)
        staging.commit(draft())
    for folder, folders, files in os.walk(tier.root):
        for name in (*folders, *files):
            assert Path(folder, name).stat().st_mode & 0o077 == 0, name


def test_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(AgentError, match=r"others may write to .*open; expected `chmod go-w`"):
        FolderTier("shared", tmp_path / "open", budget_bytes=1)


def test_threads_that_commit_hold_and_delete_at_once_leave_whole_snapshots(
    tier: FolderTier,
) -> None:
    def work(seed: int) -> None:
        for turn in range(6):
            manifest = put(tier, (seed + turn) % 4)
            try:
                with tier.hold(manifest.id, f"thread-{seed}", now_ns=turn) as held:
                    found = sorted(path.name for path in held.folder.iterdir())
                tier.delete(manifest.id)
            except AgentError as error:
                if not re.search("no snapshot|in use", str(error)):
                    raise
            else:
                assert found == ["core-1.img", "deeper", "empty.img"]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4), timeout=60))
    require_sound(tier)
    assert leftovers(tier.root) == []
