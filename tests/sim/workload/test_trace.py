"""The layout's laws and its hash."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferx.core.errors import DescriptionError
from inferx.sim.workload.trace import Trace, TraceHash, chunks_of, concat, make_trace


def tokens(arrivals: list[int], **columns) -> Trace:
    ones = np.ones(len(arrivals), np.int32)
    given = {"input_tokens": ones, "output_tokens": ones} | columns
    return make_trace(np.array(arrivals, np.int64), **given)


def test_lawful_trace_has_no_flaw():
    trace = tokens([0, 5, 5, 9])
    trace.validate()
    assert len(trace) == 4
    assert trace.span_ns == 9


@pytest.mark.parametrize(
    ("columns", "row", "what"),
    [
        ({"arrival_ns": np.array([0, 2, 1])}, 2, "before the one above"),
        ({"arrival_ns": np.array([-1, 0, 1])}, 0, "negative"),
        ({"arrival_ns": np.array([0, 1, 1 << 62])}, 2, "146 years"),
        ({"arrival_ns": np.array([1, 1, 1])}, 0, "first arrival is at 1 ns"),
        ({"function": np.array([0, 1, 0], np.int32)}, 1, "function has no name"),
        ({"function": np.array([0, 0, -1], np.int32)}, 2, "function has no name"),
        ({"tenant": np.array([0, 0, 7], np.int32)}, 2, "tenant has no name"),
        ({"input_tokens": np.array([0, -1, 0], np.int32)}, 1, "input_tokens is out of range"),
        ({"output_tokens": np.array([1, 1, 2_000_000_000], np.int32)}, 2, "out of range"),
        ({"output_tokens": np.array([1, 0, 1], np.int32)}, 1, "neither output tokens nor"),
        ({"duration_ns": np.array([0, 0, 4])}, 2, "both tokens and a duration"),
        ({"duration_ns": np.array([0, -4, 0])}, 1, "duration_ns is out of range"),
        ({"priority": np.array([0, 0, 0])}, 0, "priority is int64"),
        ({"tenant": np.array([0, 0], np.int32)}, 0, r"tenant is int32 of shape \(2,\)"),
    ],
)
def test_each_broken_law_is_told_with_its_row(columns, row, what):
    lawful = tokens([0, 1, 2])
    broken = Trace(**(lawful.columns() | columns), names=lawful.names, tenants=lawful.tenants)
    with pytest.raises(DescriptionError, match=f"row {row}: .*{what}"):
        broken.validate()


def test_plain_request_may_not_have_input_tokens():
    plain = make_trace(np.zeros(1, np.int64), input_tokens=np.ones(1), duration_ns=np.ones(1))
    assert plain.flaw() == (0, "has input tokens but no output tokens; expected both")


def test_request_needs_tokens_or_a_duration():
    nothing = make_trace(np.zeros(1, np.int64))
    assert nothing.flaw() == (0, "has neither output tokens nor a duration; expected one of them")


def test_chunk_need_not_begin_at_zero():
    chunk = tokens([7, 8])
    assert chunk.flaw(whole=False) is None
    assert chunk.flaw() is not None


@given(st.lists(st.integers(0, 10**12), max_size=40).map(sorted), st.integers(1, 50))
def test_hash_does_not_depend_on_chunks(arrivals, rows):
    trace = tokens(arrivals)
    parts = list(chunks_of(trace, rows))
    assert all(len(part) <= rows for part in parts)
    assert concat(parts).sha256() == trace.sha256()
    digest = TraceHash()
    for part in parts:
        digest.update(part)
    assert digest.hexdigest(trace.names, trace.tenants) == trace.sha256()


def test_hash_tells_names_and_columns_apart():
    trace = tokens([0, 1])
    hashes = {
        trace.sha256(),
        tokens([0, 2]).sha256(),
        tokens([0, 1], priority=np.array([0, 1])).sha256(),
        make_trace(
            trace.arrival_ns,
            input_tokens=trace.input_tokens,
            output_tokens=trace.output_tokens,
            names=("other",),
        ).sha256(),
    }
    assert len(hashes) == 4


def test_concat_takes_the_longest_names_and_refuses_strangers():
    one = make_trace(np.zeros(1, np.int64), duration_ns=np.ones(1), names=("a",))
    two = make_trace(np.ones(1, np.int64), duration_ns=np.ones(1), names=("a", "b"))
    assert concat([one, two]).names == ("a", "b")
    assert len(concat([])) == 0
    with pytest.raises(AssertionError, match="different traces"):
        concat([two, one])
