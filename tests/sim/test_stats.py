import runpy
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as theirs

from inferx.sim.metrics import summarise
from inferx.sim.stats import (
    PAIRED_METRICS,
    compare,
    holm,
    mean_interval,
    metric,
    student_t_quantile,
    student_t_two_sided,
)

make_record = runpy.run_path(str(Path(__file__).with_name("synthetic_record.py")))["make_record"]
SMALL = {"requests": 120, "gpus": 2, "functions": 6}


def rows_of(policies, seeds):
    return [
        summarise(make_record(policy, seed, hold_s=hold, **SMALL))
        for policy, hold in policies.items()
        for seed in seeds
    ]


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 9, 10, 29, 30, 99, 100, 1001])
@pytest.mark.parametrize("t", [0.0, 1e-3, 0.3, 1.0, 2.5, 12.0, -2.0])
def test_students_tail_is_scipys(df, t):
    expected = 2 * theirs.t.sf(abs(t), df)
    assert student_t_two_sided(t, df) == pytest.approx(expected, abs=1e-13)


def test_students_tail_with_one_degree_is_cauchys():
    for t in (1e-9, 1e-6, 1e-3, 1.0, 1e3):
        assert student_t_two_sided(t, 1) == pytest.approx(1 - 2 / np.pi * np.arctan(t), abs=1e-15)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 9, 10, 29, 100, 999])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
def test_students_quantile_is_scipys(df, confidence):
    expected = theirs.t.ppf((1 + confidence) / 2, df)
    assert student_t_quantile(df, confidence) == pytest.approx(expected, rel=1e-9)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12))
def test_an_interval_over_seeds_is_scipys(values):
    found = mean_interval(values)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    half = theirs.sem(values) * theirs.t.ppf(0.975, len(values) - 1)
    assert found.half_width == pytest.approx(half, abs=1e-6)


def test_paired_differences_are_scipys_paired_t_test():
    rows = rows_of({"base": 5.0, "other": 60.0}, [1, 2, 3, 4, 5])
    pairs = {pair.metric: pair for pair in compare(rows, "base")}
    assert list(pairs) == list(PAIRED_METRICS)
    pair = pairs["ttft_s.p50"]
    ours = [metric(row, "ttft_s.p50") for row in rows if row.policy == "other"]
    base = [metric(row, "ttft_s.p50") for row in rows if row.policy == "base"]
    expected = theirs.ttest_rel(ours, base)
    interval = expected.confidence_interval(0.95)
    assert pair.n == 5
    assert pair.note == ""
    assert pair.mean_difference == pytest.approx(np.mean(ours) - np.mean(base))
    assert pair.p_value == pytest.approx(expected.pvalue)
    assert (pair.ci95_low, pair.ci95_high) == pytest.approx((interval.low, interval.high))
    assert pair.correlation == pytest.approx(theirs.pearsonr(ours, base).statistic)
    assert pair.p_holm == pair.p_value  # One comparison needs no correction.


def test_one_seed_gives_a_difference_and_no_interval():
    rows = rows_of({"base": 5.0, "other": 60.0}, [1])
    for pair in compare(rows, "base"):
        assert pair.note == "n=1"
        assert pair.mean_difference is not None
        assert pair.ci95_low is pair.ci95_high is pair.p_value is pair.p_holm is None
        assert pair.correlation is None


def test_only_seeds_that_both_policies_ran_are_paired():
    rows = rows_of({"base": 5.0}, [1, 2, 3]) + rows_of({"other": 60.0}, [2, 3, 4])
    assert {pair.n for pair in compare(rows, "base")} == {2}


def test_a_missing_value_on_one_side_leaves_no_pair():
    row = rows_of({"base": 5.0}, [1])[0]
    other = msgspec.structs.replace(row, policy="other", cold_start_ratio=None)
    pair = compare([row, other], "base", ["cold_start_ratio"])[0]
    assert (pair.n, pair.mean_difference, pair.note) == (0, None, "n=0")


def test_equal_runs_differ_by_nothing_for_certain():
    base = rows_of({"base": 5.0}, [1, 2, 3])
    other = [msgspec.structs.replace(row, policy="other") for row in base]
    for pair in compare(base + other, "base"):
        assert (pair.mean_difference, pair.p_value) == (0.0, 1.0)


def test_an_unknown_baseline_compares_nothing():
    assert compare(rows_of({"base": 5.0}, [1]), "nobody") == []


def test_holm_over_policies_is_the_published_step_down():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    rows = rows_of({"base": 5.0, "a": 60.0, "b": 600.0}, [1, 2, 3])
    pairs = [pair for pair in compare(rows, "base") if pair.metric == "ttft_s.p50"]
    assert [pair.p_holm for pair in pairs] == holm([pair.p_value for pair in pairs])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(values):
    found = holm(values)
    assert all(0 <= old <= new <= 1 for old, new in zip(values, found, strict=True))
    order = np.argsort(values, kind="stable")
    assert (np.diff(np.array(found)[order]) >= 0).all()
