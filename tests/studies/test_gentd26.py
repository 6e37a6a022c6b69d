"""Keep-alive and LRU through the whole simulator: exactly what arithmetic counts."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from inferx.core.rng import stream
from inferx.core.units import NS_PER_S
from inferx.sim.workload.read import read_trace
from inferx.sim.workload.reuse import reuse
from inferx.sim.workload.trace import make_trace
from studies.gentd26 import CASES, PUBLISHED, RESULTS, TRACE, Case, by_arithmetic, counted, instant


@pytest.fixture(scope="module")
def log():
    folder = os.environ.get("INFERX_TRACE_DIR")
    if folder is None:
        pytest.skip("INFERX_TRACE_DIR is not set")
    path = Path(folder) / TRACE
    if not path.exists():
        pytest.skip(f"{TRACE} is not in INFERX_TRACE_DIR")
    return read_trace(path)


@pytest.mark.parametrize("case", [Case("keep-alive", 1_800), Case("slots", 16)], ids=str)
def test_the_public_log_is_counted_as_published(log, case):
    """26,798 requests of 86 models. The cheapest case of either kind; the study runs all."""
    assert counted(case, log)["cold_starts"] == PUBLISHED[case.kind, case.value]


def test_arithmetic_counts_the_public_log_as_published(log):
    assert by_arithmetic(log) == PUBLISHED


def test_the_kept_results_are_the_published_ones_in_every_case():
    kept = json.loads((RESULTS / "data" / "keep-alive.json").read_text())["rows"]
    assert {(row["kind"], row["value"]): row["cold_starts"] for row in kept} == PUBLISHED
    assert [row["case"] for row in kept] == [case.title for case in CASES]
    assert all(row["pods_started"] == row["cold_starts"] for row in kept)


@pytest.mark.parametrize("case", [Case("keep-alive", 3), Case("slots", 3)], ids=str)
def test_a_made_up_log_with_many_ties_is_counted_by_the_simulator_as_by_arithmetic(case):
    rng = stream(7, "log")
    gaps = rng.choice([0, 0, 1, 2, 3], 400)
    at = (np.cumsum(gaps) - gaps[0]) * NS_PER_S
    functions = (8 * rng.random(400) ** 2).astype(np.int32)
    names = [f"f{i}" for i in range(8)]
    trace = make_trace(at, function=functions, duration_ns=np.ones(400), names=names)
    found = reuse([trace], keep_alive_ns=[3 * NS_PER_S], slots=[3])
    expected = {
        "keep-alive": found.cold_starts_by_keep_alive_ns[3 * NS_PER_S],
        "slots": found.lru_misses_by_slots[3],
    }
    assert 50 < expected[case.kind] < 350
    assert counted(case, trace)["cold_starts"] == expected[case.kind]


def test_rows_of_one_stamp_are_spread_in_their_order():
    spread = instant(make_trace(np.array([0, 0, 0, 1, 2, 2]) * NS_PER_S, duration_ns=np.full(6, 7)))
    since_ns = [0, 1_000, 2_000, NS_PER_S, 2 * NS_PER_S, 2 * NS_PER_S + 1_000]
    assert spread.arrival_ns.tolist() == since_ns
    assert spread.duration_ns.tolist() == [1] * 6


def test_too_many_rows_of_one_stamp_are_refused():
    rows = 500_000
    with pytest.raises(ValueError, match="500000 rows have one stamp"):
        instant(make_trace(np.zeros(rows, np.int64), duration_ns=np.ones(rows)))
