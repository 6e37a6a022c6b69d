"""The museum's table: its arithmetic, and that it is told which rows are whose."""

import math

import pytest

from inferx.spec.cluster import load_cluster
from studies.policies.cases import CASES
from studies.policies.document import SCORE, made_at, mean_of, ranked, times, verdict


def rows(**by_policy):
    return [
        {"policy": policy, "seed": seed, "cold_weighted_ttft_s": {"p99": p99}, "commit": "a" * 40}
        for policy, numbers in by_policy.items()
        for seed, p99 in enumerate(numbers)
    ]


def test_ratios_are_paired_by_seed_and_their_interval_is_students():
    mean, low, high = times(rows(default=[1, 10, 100], other=[2, 20, 200]), "other", SCORE)
    assert (mean, low, high) == pytest.approx((2, 2, 2))
    mean, low, high = times(rows(default=[1, 1, 1], other=[1, 2, 4]), "other", SCORE)
    half = 4.302653 * math.log(2) / math.sqrt(3)  # Two degrees of freedom.
    assert (mean, low, high) == pytest.approx((2, 2 * math.exp(-half), 2 * math.exp(half)))


def test_a_number_that_no_seed_has_ranks_last():
    assert mean_of(rows(default=[1.0]), "other", SCORE) == math.inf


def test_equals_are_ranked_by_name():
    many = {f"p{number}": [2.0] for number in range(20)}
    assert ranked(rows(**many, best=[1.0])) == ["best", *sorted(many)]


def test_wins_ties_and_losses_are_told_apart():
    table = rows(default=[10, 11, 12], worse=[20, 22, 24], same=[10, 11, 12], better=[5, 5.5, 6])
    said = verdict(table, {"target_s": 11.0, "default": 16, "worse": 32, "same": None})
    assert "better than 1 of 3; no difference: `same`; worse than: `better`" in said[0]
    assert "`worse` 32, `same` over 48" in said[-1]


def test_rows_made_later_are_named():
    table = rows(default=[1.0], plain=[1.0], lru=[1.0])
    table[0]["commit"] = "b" * 40
    assert made_at(table) == f"Made at commit {'a' * 12}; `default` at {'b' * 12}."


def test_a_larger_cluster_has_so_many_gpus(tmp_path):
    for case in CASES:
        nodes = load_cluster(str(case.larger(24, tmp_path)))
        assert sum(node.gpus for node in nodes) == 24
