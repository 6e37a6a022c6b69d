"""The protobuf modules that are checked in are those of the `.proto` files."""

import pytest

from inferx.exec.state.generate import ROOT, generate

pytest.importorskip("grpc_tools")


def test_checked_in_modules_are_generated(tmp_path):
    written = generate(tmp_path)
    assert written
    for path in written:
        checked_in = ROOT / path.relative_to(tmp_path)
        assert path.read_text() == checked_in.read_text(), "run the generate module"
