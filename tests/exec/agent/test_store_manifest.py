"""What a snapshot's manifest says, what is refused when it is read, and where a snapshot fits."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from snapshots import PLATFORM, draft

from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store import Entry, GpuModel, Manifest, Platform, mismatch, require_fit
from inferx.exec.agent.store.manifest import decode, encode, finished, read_manifest

FILES = (
    Entry(path="b.img", size_bytes=2, xxh3_128="b" * 32),
    Entry(path="a/pages.img", size_bytes=1, xxh3_128="a" * 32),
)
MANIFEST = finished(draft(), FILES)


def changed(**fields: Any) -> Platform:
    return msgspec.structs.replace(PLATFORM, **fields)


def test_manifest_is_the_same_bytes_whatever_the_order_of_files() -> None:
    told = encode(MANIFEST)
    assert told == encode(finished(draft(), FILES[::-1]))
    assert decode(told, where="here") == MANIFEST
    keys = list(json.loads(told))
    assert keys == sorted(keys)
    assert MANIFEST.size_bytes == 3


def test_id_is_of_the_meaning_and_not_of_when_it_was_made() -> None:
    assert finished(draft(created_ns=77), FILES).id == MANIFEST.id
    assert finished(draft("acme/chat/llama@2"), FILES).id != MANIFEST.id
    other = msgspec.structs.replace(draft(), platform=changed(driver="590.1"))
    assert finished(other, FILES).id != MANIFEST.id
    assert finished(draft(), FILES[:1]).id != MANIFEST.id


def edited(**fields: Any) -> bytes:
    return json.dumps({**json.loads(encode(MANIFEST)), **fields}).encode()


def with_file(**fields: Any) -> bytes:
    files = json.loads(encode(MANIFEST))["files"]
    return edited(files=[{**files[0], **fields}, files[1]])


@pytest.mark.parametrize(
    ("told", "error"),
    [
        (b"", "corrupt or cut short"),
        (encode(MANIFEST)[:-40], "corrupt or cut short"),
        (b"\x00" * 300, "corrupt or cut short"),
        (b"\xff\xfe", "corrupt or cut short"),
        (b"[]", r"no manifest of a snapshot: Expected `object`"),
        (b"{}", "no manifest of a snapshot: .*`version`"),
        (edited(version=1), "of version 1, this program reads version 2"),
        (edited(version="1"), "no manifest of a snapshot: Expected `int`"),
        (edited(created_ns="now"), r"not as expected: Expected `int`.*created_ns"),
        (edited(surprise=1), r"not as expected: .*unknown field `surprise`"),
        (edited(function="evil/chat/llama@1"), "has id .*, but its content spells"),
        (edited(id="0" * 40), "has id '0{40}', but its content spells"),
        (with_file(size_bytes=77), "has id .*, but its content spells"),
        (
            with_file(path="../../etc/passwd"),
            r"names the file '../../etc/passwd'; expected a plain",
        ),
        (with_file(path="/etc/passwd"), "names the file '/etc/passwd'"),
        (with_file(path=""), "names the file ''"),
        (with_file(path="a/./b"), r"names the file 'a/\./b'"),
        (with_file(path="b.img"), "names a file twice"),
        (with_file(size_bytes=-1), "tells no size and checksum of 'a/pages.img'"),
        (with_file(xxh3_128="beef"), "tells no size and checksum of 'a/pages.img'"),
    ],
)
def test_bad_manifest_is_one_clear_error(tmp_path: Path, told: bytes, error: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(told)
    with pytest.raises(AgentError, match=error) as caught:
        read_manifest(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_manifest_that_is_not_there_or_is_huge_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    with pytest.raises(AgentError, match="cannot be read: No such file"):
        read_manifest(path)
    with path.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(AgentError, match="larger than 16,777,216 bytes"):
        read_manifest(path)


@given(place=st.integers(0, len(encode(MANIFEST)) - 1), byte=st.integers(0, 255))
def test_no_changed_byte_goes_unseen(place: int, byte: int) -> None:
    told = bytearray(encode(MANIFEST))
    told[place] = byte
    try:
        found = decode(bytes(told), where="here")
    except AgentError:
        return
    # White space, and what is not part of the meaning.
    assert msgspec.structs.replace(found, created_ns=0) == msgspec.structs.replace(
        MANIFEST, created_ns=0
    )


@given(told=st.binary(max_size=200))
def test_no_bytes_make_the_reader_fail_otherwise(told: bytes) -> None:
    with pytest.raises(AgentError):
        decode(told, where="here")


def reasons(node: Platform, manifest: Manifest = MANIFEST) -> list[tuple[bool, str]]:
    return [(one.forbids, one.reason) for one in mismatch(manifest, node)]


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (PLATFORM, []),
        (changed(architecture="aarch64"), [(True, "architecture was x86_64, here aarch64")]),
        (changed(driver="590.48"), [(True, "GPU driver was 580.159.03, here 590.48")]),
        (changed(driver=""), [(True, "GPU driver was 580.159.03, here none")]),
        (changed(image_digest="sha256:12"), [(True, "image was sha256:11, here sha256:12")]),
        (changed(command_digest="23"), [(True, "command was 22, here 23")]),
        (changed(criu="4.2"), [(True, "CRIU was 4.2.1, here 4.2")]),
        (changed(criu=""), [(True, "CRIU was 4.2.1, here none")]),
        (changed(criu="4.10"), [(False, "CRIU was 4.2.1, here 4.10")]),
        (changed(kernel="6.18.1"), [(False, "kernel was 6.12.0, here 6.18.1")]),
        (changed(runc="1.3.6"), [(False, "runc was 1.1.5, here 1.3.6")]),
        (changed(gpus=()), [(True, "the number of GPUs was 1, here 0")]),
        (
            changed(gpus=(GpuModel(model="NVIDIA L4", uuid="GPU-a"),)),
            [(True, "GPU 0 was NVIDIA H100 80GB HBM3, here NVIDIA L4")],
        ),
        (
            changed(gpus=(msgspec.structs.replace(PLATFORM.gpus[0], mig_profile="1g.10gb"),)),
            [(True, "GPU 0 was whole, here 1g.10gb")],
        ),
        (
            changed(gpus=(msgspec.structs.replace(PLATFORM.gpus[0], uuid="GPU-b"),)),
            [(False, "device state moves from GPU GPU-a to GPU-b")],
        ),
        (
            changed(kernel="6.18.1", driver="590.48"),
            [
                (True, "GPU driver was 580.159.03, here 590.48"),
                (False, "kernel was 6.12.0, here 6.18.1"),
            ],
        ),
    ],
)
def test_what_differs_forbids_or_is_told(node: Platform, expected: list[tuple[bool, str]]) -> None:
    assert reasons(node) == expected


def test_snapshot_without_a_gpu_needs_no_driver() -> None:
    plain = msgspec.structs.replace(draft(), platform=changed(driver="", gpus=()))
    assert reasons(PLATFORM, finished(plain, FILES)) == []


def test_all_that_forbids_is_in_one_line() -> None:
    require_fit(MANIFEST, changed(kernel="6.18.1"))
    with pytest.raises(AgentError) as caught:
        require_fit(MANIFEST, changed(driver="590.48", architecture="aarch64"))
    assert str(caught.value) == (
        f"snapshot {MANIFEST.id} of acme/chat/llama@1 does not fit: "
        "architecture was x86_64, here aarch64; GPU driver was 580.159.03, here 590.48"
    )
