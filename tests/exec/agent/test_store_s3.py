"""A tier in a bucket, against real servers: whole or not there, verified, shared, cleaned up."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import pytest
from s3_server import BUCKET, S3Server, credentials, missing_s3, s3_server
from snapshots import leftovers, put, require_sound

from inferx.core.units import MIB
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store import FolderTier, Manifest, S3Tier, SnapshotStore, Watch
from inferx.exec.agent.store.s3.published import Published, data_key, key_of

BLOCK = 5 * MIB
LARGE = 12 * MIB
"""Two blocks and a piece."""
ALL = -60.0
"""A grace period that has passed for all that is there: it ends a minute from now."""


@pytest.fixture(scope="module", params=["rclone", "moto"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[S3Server]:
    if why := missing_s3(request.param):
        pytest.skip(why)
    with s3_server(request.param, tmp_path_factory.mktemp(request.param)) as running:
        yield running


@dataclass
class Place:
    """A node's disk, and a part of a bucket that is this test's."""

    server: S3Server
    nvme: FolderTier
    prefix: str
    root: Path
    own: S3Tier | None = None

    def tier(self, *, budget_bytes: int = 1 << 30, grace_s: float = 3_600.0) -> S3Tier:
        """Return the bucket as another node has it."""
        config = self.server.config(budget_bytes=budget_bytes, prefix=self.prefix)
        return S3Tier("shared", config, block_bytes=BLOCK, grace_s=grace_s)

    def store(self, *, tier: S3Tier | None = None) -> SnapshotStore:
        self.own = self.own or self.tier()
        return SnapshotStore([self.nvme, tier or self.own])

    def sunk(self, seed: int = 1, *, size_bytes: int = 3_000) -> Manifest:
        """Have a snapshot in the bucket alone."""
        manifest = put(self.nvme, seed, size_bytes=size_bytes)
        self.store().sink(manifest.id, "shared", keep=False)
        return manifest

    def names(self) -> list[str]:
        whole = f"{self.prefix}/"
        return [key.removeprefix(whole) for key in self.server.names() if key.startswith(whole)]

    def put_object(self, key: str, content: bytes) -> None:
        self.server.client().put_object(Bucket=BUCKET, Key=f"{self.prefix}/{key}", Body=content)


@pytest.fixture
def place(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    credentials(server, monkeypatch)
    nvme = FolderTier("nvme", tmp_path / "nvme", budget_bytes=1 << 30)
    return Place(server, nvme, f"t/{tmp_path.name}", tmp_path)


@pytest.mark.parametrize("size_bytes", [0, 3_000, BLOCK - 100, LARGE])
def test_a_snapshot_goes_to_the_bucket_and_comes_back_with_every_byte(
    place: Place, size_bytes: int
) -> None:
    manifest = put(place.nvme, 1, size_bytes=size_bytes)
    store = place.store()
    told: list[int] = []
    store.sink(manifest.id, "shared", keep=False, progress=lambda done, _: told.append(done))
    assert told[-1:] == [manifest.size_bytes][: len(told)]
    assert store.where(manifest.id) == ("shared",)
    assert store.get(manifest.id).manifest == manifest
    assert store.tier("shared").verify(manifest.id, Watch()) == []
    assert store.tier("shared").used_bytes() == manifest.size_bytes
    told.clear()
    store.promote(manifest.id, "nvme", progress=lambda done, _: told.append(done))
    assert told[-1:] == [manifest.size_bytes][: len(told)]
    assert require_sound(place.nvme) == {manifest.id}
    assert store.where(manifest.id) == ("nvme", "shared")
    assert place.server.uploads() == []
    assert [key.split("/")[0] for key in place.names()] == ["files", "snapshots"]


def test_nothing_is_seen_before_all_of_it_is_there(place: Place) -> None:
    manifest = put(place.nvme, 1, size_bytes=LARGE)
    other = place.tier()
    seen: list[bool] = []
    place.store().sink(
        manifest.id, "shared", keep=True, progress=lambda *_: seen.append(other.has(manifest.id))
    )
    assert len(seen) == 3
    assert not any(seen)
    assert other.has(manifest.id)


def test_a_cancelled_upload_leaves_nothing(place: Place) -> None:
    manifest = put(place.nvme, 1, size_bytes=LARGE)
    cancel = Event()
    with pytest.raises(AgentError, match="cancelled"):
        place.store().sink(
            manifest.id, "shared", keep=True, cancel=cancel, progress=lambda *_: cancel.set()
        )
    assert place.names() == []
    assert place.server.uploads() == []


def test_a_cancelled_fetch_leaves_nothing(place: Place) -> None:
    manifest = place.sunk(size_bytes=LARGE)
    cancel = Event()
    with pytest.raises(AgentError, match="cancelled"):
        place.store().promote(manifest.id, "nvme", cancel=cancel, progress=lambda *_: cancel.set())
    assert require_sound(place.nvme) == set()
    assert leftovers(place.nvme.root) == []


def test_what_does_not_fit_the_budget_is_refused_before_anything_is_written(place: Place) -> None:
    first, second = put(place.nvme, 1), put(place.nvme, 2)
    store = place.store(tier=place.tier(budget_bytes=5_000))
    store.sink(first.id, "shared", keep=True)
    with pytest.raises(AgentError, match=r"3,100 bytes do not fit: 3,100 of the budget of 5,000"):
        store.sink(second.id, "shared", keep=True)
    assert len(place.names()) == 2
    assert store.make_room("shared", 3_100) == (first.id,)
    assert place.names() == []


def test_damaged_files_do_not_become_a_snapshot(place: Place) -> None:
    manifest = put(place.nvme, 1, size_bytes=LARGE)
    file = place.nvme.root / "snapshots" / manifest.id / "files" / "deeper" / "pages-1.img"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(AgentError, match=r"pages-1.img: has checksum .*, its manifest says"):
        place.store().sink(manifest.id, "shared", keep=False)
    assert place.names() == []
    assert place.nvme.has(manifest.id)


def test_two_nodes_that_bring_one_snapshot_at_once_leave_one(place: Place) -> None:
    manifest = put(place.nvme, 1, size_bytes=LARGE)
    here, there = place.tier(), place.tier()
    both = threading.Barrier(2, timeout=60)

    def bring(tier: S3Tier) -> None:
        # Each has seen that there is none, and brings all of it.
        begun: list[int] = []

        def progress(done: int, _: int) -> None:
            if not begun:
                begun.append(done)
                both.wait()

        tier.take(manifest, place.nvme, Watch(0, progress))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(bring, (here, there), timeout=60))
    for tier in (here, there):
        assert tier.verify(manifest.id, Watch()) == []
        assert [one.id for one in tier.contents().manifests] == [manifest.id]
    data = [key for key in place.names() if key.startswith("files/")]
    if place.server.kind == "moto":
        assert len(data) == 1, "the second was told that there is one, and removed its own"
    assert place.tier(grace_s=ALL).recover().unreadable == ()
    assert len([key for key in place.names() if key.startswith("files/")]) == 1
    assert here.verify(manifest.id, Watch()) == []


def test_a_manifest_that_was_written_in_spite_of_a_lost_answer_is_ones_own(place: Place) -> None:
    manifest = place.sunk()
    tier = place.tier()
    (data,) = [key for key in place.names() if key.startswith("files/")]
    again = Published(token=data.rpartition("/")[2], manifest=manifest)
    tier._publish(again)
    assert tier.verify(manifest.id, Watch()) == []


def test_a_snapshot_in_use_here_is_not_removed(place: Place) -> None:
    manifest = place.sunk()
    store = place.store()
    shared = store.tier("shared")
    with shared.hold(manifest.id, "pod 7", now_ns=0):
        assert shared.users(manifest.id) == ("pod 7",)
        with pytest.raises(AgentError, match="in use by pod 7"):
            store.delete(manifest.id)
    assert shared.users(manifest.id) == ()
    assert store.delete(manifest.id) == ("shared",)
    assert place.names() == []
    with pytest.raises(AgentError, match="no snapshot"):
        shared.delete(manifest.id)


def test_the_copy_here_stays_where_the_one_in_the_bucket_has_lost_its_data(place: Place) -> None:
    manifest = put(place.nvme, 1)
    store = place.store()
    store.sink(manifest.id, "shared", keep=True)
    (data,) = [key for key in place.names() if key.startswith("files/")]
    place.server.client().delete_object(Bucket=BUCKET, Key=f"{place.prefix}/{data}")
    with pytest.raises(AgentError, match="no such object"):
        store.evict(manifest.id, "nvme", last_copy=False)
    assert require_sound(place.nvme) == {manifest.id}


def test_what_nobody_names_is_removed_when_it_is_old_and_all_else_stays(place: Place) -> None:
    manifest = place.sunk()
    tier = place.tier()
    lost = data_key(manifest.id, "0123456789abcdef")
    place.put_object(lost, b"brought by a node that is no more")
    place.put_object("files/README", b"of somebody else")
    client = place.server.client()
    client.create_multipart_upload(Bucket=BUCKET, Key=f"{place.prefix}/{lost}")
    if place.server.kind == "rclone":  # moto says that all uploads began long ago.
        assert tier.recover().removed == 0
        assert len(place.server.uploads()) == 1
    found = place.tier(grace_s=ALL).recover()
    assert (found.removed, found.unreadable) == (2, ())
    assert place.server.uploads() == []
    assert lost not in place.names()
    assert "files/README" in place.names()
    assert tier.verify(manifest.id, Watch()) == []


def test_a_snapshot_that_cannot_be_read_is_told_of_and_hides_no_other(place: Place) -> None:
    good, bad = place.sunk(1), place.sunk(2)
    place.put_object(key_of(bad.id), b'{"version": 1')
    tier = place.tier(grace_s=ALL)
    contents = tier.contents()
    assert [one.id for one in contents.manifests] == [good.id]
    (line,) = contents.unreadable
    assert bad.id in line
    assert "no snapshot: Input data was truncated" in line
    assert not tier.has(bad.id)
    assert tier.has_any(bad.id)
    found = tier.recover()
    assert (found.removed, found.unreadable) == (0, (line,)), "its data may be wanted"
    put(place.nvme, 2)
    store = place.store()
    store.sink(bad.id, "shared", keep=True)
    assert store.tier("shared").verify(bad.id, Watch()) == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no snapshot"),
        (b"[1]", "no snapshot"),
        (b'"\xff"', "no snapshot"),
        (b'{"version": 9, "token": "0123456789abcdef", "manifest": {}}', "of version 9"),
        (b'{"version": 1, "token": "../x", "manifest": {}}', "names no data"),
        (b'{"version": 1, "token": "0123456789abcdef", "manifest": {}}', "no manifest"),
    ],
)
def test_what_names_data_is_read_with_care(content: bytes, why: str) -> None:
    with pytest.raises(AgentError, match=f"here: .*{why}") as caught:
        Published.decode(content, snapshot="0" * 40, where="here")
    assert "\n" not in str(caught.value)
    assert caught.value.phase == "manifest"


def test_one_that_cannot_be_read_can_be_removed(place: Place) -> None:
    bad = place.sunk()
    place.put_object(key_of(bad.id), b"{")
    assert place.store().delete(bad.id) == ("shared",)
    assert place.tier(grace_s=ALL).recover().removed == 1
    assert place.names() == []


def test_a_manifest_of_another_snapshot_is_refused(place: Place) -> None:
    one, two = place.sunk(1), place.sunk(2)
    client = place.server.client()
    answer = client.get_object(Bucket=BUCKET, Key=f"{place.prefix}/{key_of(one.id)}")
    place.put_object(key_of(two.id), answer["Body"].read())
    with pytest.raises(AgentError, match=r"is of snapshot .*, not of this one"):
        place.tier().get(two.id)


def test_what_another_node_did_is_seen(place: Place) -> None:
    here, there = place.tier(), place.tier()
    first, second = place.sunk(1), place.sunk(2)
    both = sorted([first, second], key=lambda one: one.id)
    assert list(here.contents().manifests) == both
    there.delete(first.id)
    assert list(here.contents().manifests) == [second]
    assert here.used_bytes() == second.size_bytes
    assert here.last_used_ns(second.id) > 1_700_000_000_000_000_000
