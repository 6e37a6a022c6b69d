"""The external sort against numpy's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferx.sim.workload import order as order_module
from inferx.sim.workload.order import in_order
from inferx.sim.workload.source import Rows


def pieces(arrivals: list[int], rows: int):
    for at in range(0, len(arrivals), rows):
        part = np.array(arrivals[at : at + rows], np.int64)
        # The place in the file rides along, to see that ties keep it.
        yield Rows(
            at_ns=part,
            function=np.arange(at, at + len(part), dtype=np.int32),
            duration_ns=part + 1,
            place=str,
        )


@given(
    st.lists(st.integers(-9, 9), max_size=60),
    st.integers(1, 7),
    st.integers(1, 20),
    st.integers(1, 9),
)
def test_sorted_like_a_stable_sort_in_memory(arrivals, rows, run_rows, chunk_rows):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order_module, "CHUNK_ROWS", chunk_rows)
        out = list(in_order(pieces(arrivals, rows), run_rows=run_rows))
    expected = np.argsort(np.array(arrivals, np.int64), kind="stable").tolist()
    assert [int(f) for part in out for f in part.function] == expected
    assert [int(d) for part in out for d in part.duration_ns] == [arrivals[i] + 1 for i in expected]


def test_pieces_stay_bounded_when_all_arrive_at_once(monkeypatch):
    monkeypatch.setattr(order_module, "CHUNK_ROWS", 100)
    out = list(in_order(pieces([5] * 5000, 50), run_rows=500))
    assert max(len(part.at_ns) for part in out) <= 100
    assert np.array_equal(np.concatenate([part.function for part in out]), np.arange(5000))


def test_sorted_row_has_no_place_in_the_file():
    (part,) = in_order(pieces([2, 1], 2))
    with pytest.raises(AssertionError, match="was sorted"):
        part.place(0)
