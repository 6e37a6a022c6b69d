"""Figures of a trace against plain numpy over the whole of it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferx.core.units import NS_PER_S
from inferx.sim.workload.stats import RELATIVE_ERROR, gini, trace_stats, zipf_alpha
from inferx.sim.workload.trace import chunks_of, make_trace


@given(
    st.lists(st.integers(0, 5 * NS_PER_S), min_size=2, max_size=80).filter(any),
    st.integers(1, 30),
)
def test_figures_equal_numpy_over_the_whole(gaps, rows):
    arrival = np.cumsum([0, *gaps])
    count = len(arrival)
    function = np.arange(count) * 5 % 7 % 4
    trace = make_trace(
        arrival,
        function=function,
        duration_ns=np.where(np.arange(count) % 3 == 0, 0, np.arange(count) + 1),
        output_tokens=np.where(np.arange(count) % 3 == 0, np.arange(count) + 1, 0),
        names=("a", "b", "c", "d"),
    )
    stats = trace_stats(chunks_of(trace, rows))
    assert stats.sha256 == trace.sha256()
    assert stats.requests == count
    assert stats.token_requests == math.ceil(count / 3)
    assert stats.span_ns == trace.span_ns
    assert stats.rate == pytest.approx(len(gaps) / (sum(gaps) / NS_PER_S))
    for within, width in ((stats.second, NS_PER_S), (stats.minute, 60 * NS_PER_S)):
        counts = np.bincount(arrival // width)
        assert within.peak == counts.max()
        assert within.mean == pytest.approx(counts.mean())
        assert within.dispersion == pytest.approx(counts.var() / counts.mean(), abs=1e-9)
    whole = np.array(gaps) / NS_PER_S
    assert stats.gaps.cv == pytest.approx(whole.std() / whole.mean(), abs=1e-6)
    assert stats.gaps.tied_share == pytest.approx((whole == 0).mean())
    own = [np.diff(arrival[function == f]) for f in range(4)]
    cvs = [gap.std() / gap.mean() for gap in own if len(gap) >= 2 and gap.any()]
    if cvs:
        assert stats.gaps.per_function_cv_p50 == pytest.approx(np.quantile(cvs, 0.5), abs=1e-6)
        assert stats.gaps.per_function_cv_p90 == pytest.approx(np.quantile(cvs, 0.9), abs=1e-6)
    counts = np.bincount(function, minlength=4)
    assert stats.functions.count == (counts > 0).sum()
    assert stats.functions.top1 == pytest.approx(counts.max() / count)
    assert dict(stats.functions.first) == {"abcd"[i]: int(n) for i, n in enumerate(counts) if n}
    assert stats.load == pytest.approx(trace.duration_ns.sum() / trace.span_ns)


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=200))
def test_quantiles_are_within_the_stated_error(sizes):
    trace = make_trace(
        np.zeros(len(sizes), np.int64),
        input_tokens=np.array(sizes) - 1,
        output_tokens=np.array(sizes),
    )
    found = trace_stats([trace]).output_tokens
    assert found is not None
    assert found.max == max(sizes)
    assert found.mean == pytest.approx(np.mean(sizes))
    for share, value in ((0.5, found.p50), (0.9, found.p90), (0.99, found.p99)):
        exact = np.quantile(sizes, share, method="inverted_cdf")
        assert value == pytest.approx(exact, rel=RELATIVE_ERROR * 1.001)


def test_single_request_and_none_have_no_rates():
    one = trace_stats([make_trace(np.zeros(1, np.int64), duration_ns=np.ones(1))])
    assert math.isnan(one.rate)
    assert math.isnan(one.gaps.cv)
    assert one.second.peak == 1
    assert one.input_tokens is None
    none = trace_stats([])
    assert none.requests == 0
    assert none.functions.count == 0


def test_gini_and_zipf_of_known_shares():
    assert gini(np.array([3, 3, 3])) == pytest.approx(0)
    assert gini(np.array([0, 0, 0, 8])) == pytest.approx(0.75)
    assert math.isnan(gini(np.zeros(0, np.int64)))
    exact = np.rint(1e9 * np.arange(1, 101, dtype=float) ** -1.3).astype(np.int64)
    assert zipf_alpha(exact) == pytest.approx(1.3, abs=1e-4)
    assert math.isnan(zipf_alpha(np.array([1, 2])))
