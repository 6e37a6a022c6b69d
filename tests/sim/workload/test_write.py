"""The canonical file: round trips, and files that appear only when whole."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferx.core.errors import DescriptionError
from inferx.sim.workload import write as write_module
from inferx.sim.workload.read import open_trace, read_trace
from inferx.sim.workload.trace import MAX_TOKENS, Trace, chunks_of, make_trace
from inferx.sim.workload.write import write_trace

NAMES = st.lists(st.text(max_size=8), min_size=1, max_size=4, unique=True)
REQUEST = st.tuples(
    st.integers(0, 10**15),
    st.integers(0, 3),
    st.integers(0, MAX_TOKENS),
    st.integers(0, MAX_TOKENS),
    st.integers(1, 2**61),
    st.integers(0, 3),
    st.integers(-(2**31), 2**31 - 1),
)


@st.composite
def traces(draw) -> Trace:
    names, tenants = draw(NAMES), draw(NAMES)
    table = np.array(draw(st.lists(REQUEST, min_size=1, max_size=30)), np.int64)
    arrival = np.sort(table[:, 0])
    plain = table[:, 3] == 0
    return make_trace(
        arrival - arrival[0],
        function=table[:, 1] % len(names),
        input_tokens=np.where(plain, 0, table[:, 2]),
        output_tokens=table[:, 3],
        duration_ns=np.where(plain, table[:, 4], 0),
        tenant=table[:, 5] % len(tenants),
        priority=table[:, 6],
        names=names,
        tenants=tenants,
    )


@given(trace=traces(), rows=st.integers(1, 40))
@settings(max_examples=40)
def test_trace_survives_the_round_trip(tmp_path_factory, trace, rows):
    path = tmp_path_factory.mktemp("round") / "t.parquet"
    written = write_trace(path, chunks_of(trace, rows))
    again = read_trace(path)
    again.validate()
    assert again.sha256() == trace.sha256() == written.sha256
    assert (again.names, again.tenants) == (trace.names, trace.tenants)
    assert (written.requests, written.span_ns) == (len(trace), trace.span_ns)


def plain(count: int) -> Trace:
    return make_trace(np.arange(count), duration_ns=np.ones(count))


def test_small_chunks_are_gathered_in_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(write_module, "GROUP_ROWS", 40)
    write_trace(tmp_path / "t", chunks_of(plain(100), 15))
    stored = pq.read_metadata(tmp_path / "t")
    assert [stored.row_group(i).num_rows for i in range(stored.num_row_groups)] == [45, 45, 10]


def test_names_may_grow_while_writing(tmp_path):
    one = make_trace(np.array([0]), duration_ns=np.array([1]), names=("a",))
    two = make_trace(np.array([3]), duration_ns=np.array([1]), names=("a", "b"))
    write_trace(tmp_path / "t", [one, two])
    assert open_trace(tmp_path / "t").names == ()
    assert read_trace(tmp_path / "t").names == ("a", "b")


def test_existing_file_is_kept_unless_told(tmp_path):
    path = tmp_path / "t"
    write_trace(path, [plain(2)])
    with pytest.raises(DescriptionError, match="exists; expected a new file"):
        write_trace(path, [plain(3)])
    assert len(read_trace(path)) == 2
    write_trace(path, [plain(3)], overwrite=True)
    assert len(read_trace(path)) == 3


def test_nothing_is_left_when_writing_stops_midway(tmp_path):
    def interrupted():
        yield plain(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_trace(tmp_path / "t", interrupted())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([], "no request is left to write"),
        ([plain(2), plain(2)], "row 2: arrival is before the one above"),
        ([make_trace(np.array([0]))], "row 0: has neither"),
        ([make_trace(np.array([1]), duration_ns=np.array([1]))], "first arrival is at 1 ns"),
    ],
)
def test_unlawful_trace_is_not_written(tmp_path, chunks, message):
    with pytest.raises(DescriptionError, match=message):
        write_trace(tmp_path / "t", chunks)
    assert list(tmp_path.iterdir()) == []


def test_target_must_be_a_file_in_a_directory(tmp_path):
    with pytest.raises(DescriptionError, match="is a directory"):
        write_trace(tmp_path, [plain(2)], overwrite=True)
    with pytest.raises(DescriptionError, match="no such directory"):
        write_trace(tmp_path / "a" / "b", [plain(2)])
