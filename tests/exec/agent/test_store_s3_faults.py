"""A bucket that fails: killed, cut, damaged, refused, away. What is left is whole, or nothing."""

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from s3_server import BUCKET, S3Server, credentials, missing_s3, s3_server
from snapshots import leftovers, put, require_sound
from system_parts import free_port

from inferx.core.units import MIB
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store import FolderTier, Manifest, S3Config, S3Tier, SnapshotStore, Watch
from inferx.exec.agent.store.s3 import bucket

pytestmark = pytest.mark.skipif(bool(missing_s3("rclone")), reason=missing_s3("rclone"))

BLOCK = 5 * MIB
LARGE = 11 * MIB
"""Two blocks and a piece."""
SMALL_BLOCK = MIB // 4
"""More of them make a snapshot than are fetched ahead."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    # A server that was away is asked again at once.
    monkeypatch.setattr(bucket, "_QUIET_S", 0.0)
    with s3_server("rclone", tmp_path / "s3") as running:
        credentials(running, monkeypatch)
        yield running


@pytest.fixture
def nvme(tmp_path: Path) -> FolderTier:
    return FolderTier("nvme", tmp_path / "nvme", budget_bytes=1 << 30)


def tier_of(config: S3Config) -> S3Tier:
    return S3Tier("shared", config, block_bytes=BLOCK)


def store_of(server: S3Server, nvme: FolderTier) -> SnapshotStore:
    return SnapshotStore([nvme, tier_of(server.config())])


def sunk(server: S3Server, nvme: FolderTier, *, size_bytes: int = LARGE) -> Manifest:
    """Have a snapshot in the bucket alone."""
    manifest = put(nvme, 1, size_bytes=size_bytes)
    store_of(server, nvme).sink(manifest.id, "shared", keep=False)
    return manifest


def data_of(server: S3Server) -> Path:
    """Return the file where rclone keeps the one snapshot's data."""
    (key,) = [key for key in server.names() if "/files/" in key]
    return server.file(key)


def once(do: Callable[[], object]) -> Callable[[int, int], None]:
    """Return a progress that does something at the first chunk."""
    left = [do]
    return lambda *_: left.pop()() and None if left else None


def require_one_line(error: AgentError) -> str:
    text = str(error)
    assert "\n" not in text
    assert text.startswith("tier shared: ")
    return text


def test_a_server_that_dies_in_the_middle_of_an_upload_leaves_nothing_to_be_seen(
    server: S3Server, nvme: FolderTier
) -> None:
    manifest = put(nvme, 1, size_bytes=LARGE)
    store = store_of(server, nvme)
    with pytest.raises(AgentError) as caught:
        store.sink(manifest.id, "shared", keep=False, progress=once(server.stop))
    assert "the server cannot be reached" in require_one_line(caught.value)
    assert require_sound(nvme) == {manifest.id}
    server.start()
    assert store.where(manifest.id) == ("nvme",)
    store.sink(manifest.id, "shared", keep=False)
    assert store.tier("shared").verify(manifest.id, Watch()) == []


def test_a_server_that_dies_in_the_middle_of_a_fetch_leaves_nothing_here(
    server: S3Server, nvme: FolderTier
) -> None:
    manifest = sunk(server, nvme)
    store = SnapshotStore([nvme, S3Tier("shared", server.config(), block_bytes=SMALL_BLOCK)])
    with pytest.raises(AgentError) as caught:
        store.promote(manifest.id, "nvme", progress=once(server.stop))
    require_one_line(caught.value)
    assert require_sound(nvme) == set()
    assert leftovers(nvme.root) == []
    server.start()
    store.promote(manifest.id, "nvme")
    assert require_sound(nvme) == {manifest.id}


@pytest.mark.parametrize("at", [0, LARGE // 2, -1])
def test_a_changed_byte_is_found_wherever_it_is(
    server: S3Server, nvme: FolderTier, at: int
) -> None:
    manifest = sunk(server, nvme)
    with data_of(server).open("r+b") as file:
        file.seek(at, os.SEEK_SET if at >= 0 else os.SEEK_END)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    store = store_of(server, nvme)
    (fault,) = store.tier("shared").verify(manifest.id, Watch())
    assert "has checksum" in fault
    with pytest.raises(AgentError, match=r"tier shared: s3://.* has checksum .*, its manifest"):
        store.promote(manifest.id, "nvme")
    assert leftovers(nvme.root) == []
    assert require_sound(nvme) == set()


def test_data_that_is_cut_short_is_found_before_it_is_read_and_while_it_is(
    server: S3Server, nvme: FolderTier
) -> None:
    manifest = sunk(server, nvme)
    os.truncate(data_of(server), LARGE)
    server.stop()
    server.start()
    store = store_of(server, nvme)
    (fault,) = store.tier("shared").verify(manifest.id, Watch())
    assert f"has {LARGE:,} bytes, its manifest says {LARGE + 100:,}" in fault
    with pytest.raises(AgentError, match="its manifest says"):
        store.promote(manifest.id, "nvme")
    key = data_of(server).relative_to(server.folder / "objects" / BUCKET / "a/b")
    reader = bucket.Bucket(server.config(), "tier shared")
    with pytest.raises(AgentError, match=r"is cut short: 100 of 200 bytes from byte 11,534,236"):
        reader.read(str(key), LARGE - 100, 200, lambda: None)


@contextmanager
def cutting_proxy(port: int, *, after_bytes: int, cuts: int) -> Iterator[int]:
    """Pass connections on to a port, and cut the first few when so much has come back."""
    left = [cuts]
    made: list[socket.socket] = []
    pumps: list[threading.Thread] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def pump(source: socket.socket, target: socket.socket, most: int | None) -> None:
            passed = 0
            try:
                while chunk := source.recv(65536):
                    passed += len(chunk)
                    if most is not None and passed > most and left[0] > 0:
                        left[0] -= 1
                        break
                    target.sendall(chunk)
            except OSError:
                pass
            for one in (source, target):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

        def accept() -> None:
            while True:
                try:
                    inner, _ = listener.accept()
                except OSError:
                    return
                outer = socket.create_connection(("127.0.0.1", port))
                made.extend((inner, outer))
                for words in ((inner, outer, None), (outer, inner, after_bytes)):
                    pumps.append(threading.Thread(target=pump, args=words))
                    pumps[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join(timeout=20)
            for one in made:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            for thread in pumps:
                thread.join(timeout=20)
            for one in made:
                one.close()
    assert left == [0], "fewer were cut than were to be"


def through(server: S3Server, port: int) -> S3Tier:
    return tier_of(msgspec.structs.replace(server.config(), endpoint=f"http://127.0.0.1:{port}"))


def test_an_answer_that_is_cut_is_asked_for_again_from_where_it_ended(
    server: S3Server, nvme: FolderTier
) -> None:
    manifest = sunk(server, nvme)
    with cutting_proxy(server.port, after_bytes=2 * MIB, cuts=3) as port:
        SnapshotStore([nvme, through(server, port)]).promote(manifest.id, "nvme")
    assert require_sound(nvme) == {manifest.id}


def test_answers_that_are_cut_again_and_again_end_the_fetch(
    server: S3Server, nvme: FolderTier
) -> None:
    manifest = sunk(server, nvme, size_bytes=3 * MIB)
    with (
        cutting_proxy(server.port, after_bytes=MIB // 4, cuts=4) as port,
        pytest.raises(AgentError) as caught,
    ):
        SnapshotStore([nvme, through(server, port)]).promote(manifest.id, "nvme")
    assert require_one_line(caught.value).endswith("the connection was cut")
    assert leftovers(nvme.root) == []


def test_a_transfer_that_takes_too_long_is_given_up(server: S3Server, nvme: FolderTier) -> None:
    manifest = sunk(server, nvme)
    slow = S3Tier("shared", server.config(), block_bytes=BLOCK, grace_s=1e-6)
    with pytest.raises(AgentError, match=r"bytes were not carried within 0 s"):
        SnapshotStore([nvme, slow]).promote(manifest.id, "nvme")
    assert leftovers(nvme.root) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk")
def test_a_disk_that_is_full_ends_a_fetch_and_is_said_to_be(
    server: S3Server, nvme: FolderTier, tmp_path: Path
) -> None:
    manifest = sunk(server, nvme)
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(small)], check=True)
    try:
        tier = tier_of(server.config())
        with pytest.raises(AgentError, match=r"the disk is full"):
            tier.export(manifest.id, small / "into", Watch())
        disk = FolderTier("nvme", small / "tier", budget_bytes=1 << 30)
        with pytest.raises(AgentError, match=r"tier nvme: .* bytes do not fit: .* are free"):
            SnapshotStore([disk, tier]).promote(manifest.id, "nvme")
        assert leftovers(disk.root) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_what_is_wrong_is_told_by_the_probe_in_a_line(
    server: S3Server, nvme: FolderTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "_QUIET_S", 3_600.0)
    manifest = put(nvme, 1)
    good = tier_of(server.config()).probe()
    assert (good.available, good.reason) == (True, "")
    assert dict(good.facts) == {
        "bucket": "s3://snapshots/a/b",
        "region": "us-east-1",
        "endpoint": server.endpoint,
        "credentials": "env",
    }

    def told(why: str, **changes: str) -> None:
        config = msgspec.structs.replace(server.config(), **changes)
        tier = tier_of(config)
        found = tier.probe()
        assert not found.available
        assert found.reason.startswith("tier shared: cannot list s3://")
        assert found.reason.endswith(why)
        assert "\n" not in found.reason
        assert server.secret not in repr(found)
        # The tier is there without a snapshot, and hides no other.
        store = SnapshotStore([nvme, tier])
        assert [one.tiers for one in store.everything()] == [("nvme",)]
        (line,) = store.unreadable()
        assert why in line
        assert store.recover()["shared"].unreadable
        with pytest.raises(AgentError, match=r"tier shared: "):
            store.sink(manifest.id, "shared", keep=True)

    told("there is no bucket nowhere", bucket="nowhere")
    told("the server cannot be reached", endpoint=f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    told("the server refuses the credentials (SignatureDoesNotMatch)")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "INFERXNOBODY00000000")
    told("the server refuses the credentials (InvalidAccessKeyId)")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    told("half of the credentials are missing")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    told("no credentials; expected them in the environment, a file or the node's role")


def test_a_store_that_is_away_is_asked_once_in_a_while_and_found_again(
    server: S3Server, nvme: FolderTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = sunk(server, nvme, size_bytes=3_000)
    store = store_of(server, nvme)
    assert [one.tiers for one in store.everything()] == [("shared",)]
    server.stop()
    monkeypatch.setattr(bucket, "_QUIET_S", 3_600.0)
    (first,) = store.unreadable()
    server.start()
    assert store.unreadable() == [first]
    assert store.tier("shared").used_bytes() == manifest.size_bytes, "as it was seen last"
    monkeypatch.setattr(bucket, "_QUIET_S", 0.0)
    store = store_of(server, nvme)
    assert store.unreadable() == []
    assert store.where(manifest.id) == ("shared",)


def test_a_bucket_is_not_asked_for_what_is_warmer(nvme: FolderTier) -> None:
    manifest = put(nvme, 1)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        shared = tier_of(S3Config(bucket=BUCKET, budget_bytes=1, endpoint=endpoint))
        store = SnapshotStore([nvme, shared])
        found = store.newest(manifest.function, tiers=("nvme",))
        assert found is not None
        _, held = store.hold(manifest.id, "pod", now_ns=0)
        held.release()
        assert store.warmest(manifest.id, ("nvme", "shared")) is nvme
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
