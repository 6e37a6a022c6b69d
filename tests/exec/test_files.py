"""A file that is written is whole, or as it was."""

import os
import resource
from pathlib import Path

import pytest

from inferx.exec.files import write_whole


def test_a_file_is_its_owners_and_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_whole(file, b"first, and longer")
    write_whole(file, b"second")
    assert file.read_bytes() == b"second"
    assert file.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208 - hidden ones, too.


def test_one_that_cannot_be_written_is_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            write_whole(tmp_path / "file", b"after")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "file").read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208 - hidden ones, too.


def test_what_a_writer_that_was_killed_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / ".file.new").write_bytes(b"half of something long")
    write_whole(tmp_path / "file", b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208 - hidden ones, too.


def test_a_link_in_its_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_bytes(b"theirs")
    (tmp_path / ".file.new").symlink_to("theirs")
    with pytest.raises(OSError, match="symbolic"):
        write_whole(tmp_path / "file", b"ours")
    assert (tmp_path / "theirs").read_bytes() == b"theirs"
