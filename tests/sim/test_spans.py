"""Packed spans read as the rows that were written."""

import pickle
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferx.sim.record import SpanRow
from inferx.sim.spans import SpanLog, column, states

BIG, SMALL = st.integers(-1, 2**62), st.integers(-1, 2**31 - 1)
WORDS = st.sampled_from(["idle", "working", "restoring", "snapshot"])
ROWS = st.lists(
    st.builds(SpanRow, BIG, BIG, SMALL, SMALL, BIG, SMALL, WORDS, SMALL, BIG, BIG, BIG, SMALL)
)


@given(ROWS)
def test_what_was_written_is_read_back_row_by_row_and_by_column(rows):
    log = SpanLog()
    for row in rows:
        log.add(*astuple(row))
    assert list(log) == rows
    assert len(log) == len(rows)
    assert log[1:3] == rows[1:3]
    assert list(pickle.loads(pickle.dumps(log))) == rows
    for name in SpanRow.__slots__:
        if name != "state":
            mine, theirs = column(log, name, np.int64), column(rows, name, np.int64)
            assert mine.tolist() == theirs.tolist() == [getattr(row, name) for row in rows]
    for codes, words in (states(log), states(rows)):
        assert [words[code] for code in codes] == [row.state for row in rows]
    # Reading does not end the writing.
    log.add(0, 1, 0, 0, 0, 0, "idle", 0, 0, 0)
    assert log[-1] == SpanRow(0, 1, 0, 0, 0, 0, "idle", 0, 0, 0)
    with pytest.raises(IndexError):
        log[len(log)]
