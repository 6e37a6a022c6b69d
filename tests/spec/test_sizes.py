"""Sizes on a command line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferx.core.errors import DescriptionError
from inferx.spec.sizes import parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("4096", 4096), ("1GiB", 1 << 30), ("1 gib", 1 << 30), ("1.5MiB", 3 << 19),
        ("2GB", 2 * 10**9), ("0.25kb", 250), ("3 bytes", 3), ("1024TiB", 1 << 50),
    ],
)  # fmt: skip
def test_sizes_are_exact(text, size):
    assert parse_bytes("--x", text) == size


@pytest.mark.parametrize(
    "text", ["", "GiB", "-1", "1e9", "1 G", "1,5GiB", "0.3", "1025TiB", "9" * 40, "1GiB2", "٣MiB"]
)
def test_what_is_no_size_is_one_line(text):
    with pytest.raises(DescriptionError, match=r"--x .*: expected") as caught:
        parse_bytes("--x", text)
    assert "\n" not in str(caught.value)


@given(st.integers(0, 1 << 50), st.sampled_from(["", "B", "bytes"]))
def test_whole_numbers_of_bytes_come_back(size, unit):
    assert parse_bytes("--x", f"{size}{unit}") == size
