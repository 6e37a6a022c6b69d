"""`inferx drive`: bad input is one line, before anything is sent."""

from pathlib import Path

import numpy as np
import pytest

from inferx.sim.workload.trace import make_trace
from inferx.sim.workload.write import write_trace

UNREACHABLE = ("--server", "http://127.0.0.1:1")


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    tokens = np.array([3], np.int32)
    path = tmp_path / "trace.parquet"
    made = make_trace(np.zeros(1, np.int64), input_tokens=tokens, output_tokens=tokens)
    write_trace(path, [made])
    return path


def test_bad_input_is_told_in_one_line(call, tmp_path: Path, trace: Path) -> None:
    plain = tmp_path / "plain.parquet"
    write_trace(plain, [make_trace(np.zeros(1, np.int64), duration_ns=np.array([5]))])
    (tmp_path / "none").mkdir()
    here = ("--in", "public/demo", *UNREACHABLE)
    for words, told in (
        ((trace, *UNREACHABLE), "Missing option '--in'"),
        ((trace, "--in", "public", *UNREACHABLE), "--in public: expected TENANT/NAMESPACE"),
        ((trace, "--in", "a b/c", *UNREACHABLE), "the text 'a b'"),
        ((tmp_path / "absent", *here), "absent"),
        ((plain, *here), "request 0 has a duration; expected tokens"),
        ((trace, *here, "--out", tmp_path / "run"), "--out needs --journals"),
        ((trace, *here, "--json"), "--json needs --journals"),
        ((trace, *here, "--predict", "criu-memfd"), "--predict needs --journals"),
        ((trace, *here, "--calibrate", tmp_path / "c.toml"), "--calibrate needs --journals"),
        ((trace, *here, "--assign", "zipf"), "zipf"),
        ((trace, *here, "--within", "nan"), "within nan: expected a time"),
        ((trace, *here, "--at-once", "0"), "--at-once"),
        (
            (trace, *here, "--journals", tmp_path / "none"),
            "0 journals of schedulers, 0 of gateways; expected one",
        ),
        (
            (trace, *here, "--journals", tmp_path, "--predict", "absent"),
            "profile absent: unknown",
        ),
        (
            (trace, *here, "--journals", tmp_path, "--calibrate", tmp_path / "no" / "c.toml"),
            "no folder",
        ),
        ((trace, *here), "http://127.0.0.1:1: "),
    ):
        status, out, err = call("drive", *words)
        assert (status, out) == (2, ""), words
        assert told in err, (words, err)
        assert err.count("\n") == 1, err
    assert not (tmp_path / "run").exists()
