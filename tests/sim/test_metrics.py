import runpy
from array import array
from dataclasses import replace
from fractions import Fraction
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferx.core.units import GIB, NS_PER_S
from inferx.sim.metrics import Decile, SummaryRow, quantile_ns, result_sha256, summarise
from inferx.sim.occupancy import GROUP_OF_STATE, Spans, fragmentation_pct, gpu_rows, state_pct
from inferx.sim.oracle.regret import Regret
from inferx.sim.record import Cause, Outcome, RequestColumns, RunRecord, SpanRow
from inferx.sim.stats import PairedDifference
from inferx.sim.tables import SCHEMAS

_factory = runpy.run_path(str(Path(__file__).with_name("synthetic_record.py")))
make_record, functions_of, nodes_of = (
    _factory[name] for name in ("make_record", "functions_of", "nodes_of")
)
S = NS_PER_S


def tiny(rows, *, gpus=2, span_s=100, spans=()):
    """One row: (function, arrived, started, first, finished, outcome, cause, tokens out), in s."""
    table = [np.array([row[i] for row in rows], np.int64) for i in range(len(TINY))]
    columns = dict(zip(TINY, table, strict=True))
    times = {
        name: np.where(columns[name] < 0, -1, columns[name] * S)
        for name in ("arrived_ns", "started_ns", "first_ns", "finished_ns")
    }
    return RunRecord(
        policy="p",
        seed=1,
        span_ns=span_s * S,
        nodes=nodes_of(gpus),
        functions=functions_of(4),
        requests=RequestColumns(
            function=columns["function"].astype(np.int32),
            input_tokens=np.full(len(rows), 7, np.int32),
            output_tokens=columns["output_tokens"].astype(np.int32),
            outcome=columns["outcome"].astype(np.int8),
            cause=columns["cause"].astype(np.int8),
            pod=np.zeros(len(rows), np.int64),
            **times,
        ),
        decisions=[],
        spans=list(spans),
        gpu_busy_ns=np.array([30 * S, 10 * S], np.int64)[:gpus],
        gpu_allocated_milli_ns=np.array([50_000.0 * S, 30_000.0 * S])[:gpus],
        gpu_resident_byte_ns=np.array([40.0 * GIB * 100 * S, 0.0])[:gpus],
    )


TINY = (
    "function",
    "arrived_ns",
    "started_ns",
    "first_ns",
    "finished_ns",
    "outcome",
    "cause",
    "output_tokens",
)
FIVE = [
    (0, 0, 4, 5, 9, Outcome.FINISHED, Cause.COLD, 5),
    (0, 1, 1, 2, 3, Outcome.FINISHED, Cause.WARM, 2),
    (1, 2, -1, -1, -1, Outcome.REFUSED, Cause.WARM, 0),
    (1, 3, 5, 6, -1, Outcome.UNFINISHED, Cause.RESUME, 9),
    (1, 4, 4, 4, 8, Outcome.FINISHED, Cause.WARM, 0),
]


def test_every_number_of_a_small_run_is_the_one_worked_out_by_hand():
    row = summarise(tiny(FIVE))
    assert (row.arrived, row.finished, row.refused, row.aborted, row.unfinished) == (5, 3, 1, 0, 1)
    assert (row.ttft_s.p50, row.ttft_s.p99) == (1.0, 5.0)  # 0 (no tokens), 1, 5.
    assert (row.e2e_s.p50, row.e2e_s.p99) == (4.0, 9.0)  # 2, 4, 9.
    assert (row.queue_s.p50, row.queue_s.p99) == (0.0, 4.0)
    assert row.tpot_s.p50 == 1.0  # (9 - 5) / 4 and (3 - 2) / 1.
    assert row.cold_starts == 2
    assert row.cold_start_ratio == 0.5  # Of four that started.
    assert row.cold_starts_by_cause == {
        "resume": 1,
        "restore-nvme": 0,
        "restore-remote": 0,
        "cold": 1,
    }
    assert row.cold_ttft_s.p50 == 5.0
    assert row.gpu_busy_pct == pytest.approx(20.0)
    assert row.gpu_allocated_pct == pytest.approx(40.0)
    assert row.gpu_resident_pct == pytest.approx(25.0)
    assert row.gpu_busy_of_allocated_pct == pytest.approx(50.0)
    assert row.slo_met == 2
    assert row.goodput_per_gpu_hour == pytest.approx(2 / (2 * 100 / 3600))
    assert row.cost_usd == pytest.approx(32.77 * 100 / 3600)
    # Function 0 met one of two, function 1 one of three.
    assert row.fairness_jain == pytest.approx((1 / 2 + 1 / 3) ** 2 / (2 * (1 / 4 + 1 / 9)))


def test_json_keeps_the_agreed_fields_in_front():
    import msgspec

    fields = list(msgspec.to_builtins(summarise(tiny(FIVE))))
    assert fields[:17] == [
        "policy",
        "seed",
        "arrived",
        "finished",
        "refused",
        "aborted",
        "unfinished",
        "cold_starts",
        "ttft_s",
        "e2e_s",
        "queue_s",
        "gpu_allocated_pct",
        "gpu_resident_pct",
        "gpu_busy_pct",
        "goodput_per_gpu_hour",
        "cost_usd",
        "result_sha256",
    ]


def test_warm_up_leaves_requests_out_of_quantiles_and_in_the_counts():
    row = summarise(tiny(FIVE), warmup_ns=1 * S)
    assert (row.arrived, row.finished, row.measured, row.cold_starts) == (5, 3, 2, 2)
    assert row.ttft_s.p99 == 1.0
    assert row.cold_ttft_s.p50 is None
    assert row.slo_met == 2


def test_a_run_without_requests_has_no_quantiles_and_no_ratios():
    row = summarise(tiny([]))
    assert row.ttft_s.p50 is row.cold_start_ratio is row.slo_met_ratio is row.fairness_jain is None
    assert (row.arrived, row.goodput_per_gpu_hour) == (0, 0.0)


def test_a_finished_request_may_not_go_back_in_time():
    rows = [(0, 5, 4, 6, 7, Outcome.FINISHED, Cause.WARM, 1)]
    with pytest.raises(AssertionError, match="back in time"):
        summarise(tiny(rows))


def test_an_outcome_outside_the_closed_set_breaks_conservation():
    record = tiny(FIVE)
    record.requests.outcome[0] = 7
    with pytest.raises(AssertionError, match="arrived = finished"):
        summarise(record)


def test_cold_weighted_ttft_counts_the_request_after_a_silence_and_the_refused_one_as_timed_out():
    done, refused = Outcome.FINISHED, Outcome.REFUSED
    busy = [(0, at, at, at, at, done, Cause.WARM, 0) for at in range(1, 51)]
    record = tiny(
        [
            (0, 0, 2, 2, 2, done, Cause.COLD, 0),
            *busy,
            (1, 50, 57, 57, 60, done, Cause.COLD, 0),
            (2, 51, -1, -1, -1, refused, Cause.WARM, 0),
        ]
    )
    # 600 of weight waited 2 s, 50 nothing, 600 waited 7 s, and 600 the queue timeout of 30 s.
    found = summarise(record).cold_weighted_ttft_s
    assert (found.p50, found.p99) == (7.0, 30.0)
    # After a warm-up the silences are those of the whole trace.
    late = summarise(record, warmup_ns=50 * S).cold_weighted_ttft_s
    assert (late.p50, late.p99) == (7.0, 30.0)
    assert summarise(tiny([])).cold_weighted_ttft_s.p50 is None


@given(st.lists(st.integers(0, 10**15), min_size=1), st.integers(1, 1000))
def test_a_quantile_is_the_value_that_a_sorted_list_gives(values, per_mille):
    found = quantile_ns(np.sort(np.array(values)), per_mille)
    assert found == sorted(values)[ceil(Fraction(per_mille, 1000) * len(values)) - 1]


@pytest.mark.parametrize("per_mille", [500, 900, 990])
@pytest.mark.parametrize("count", [1, 2, 7, 10, 99, 100, 101, 1000])
def test_a_quantile_is_numpys_inverted_cdf(count, per_mille):
    values = np.random.default_rng(count).permutation(count) * 3 + 1
    theirs = np.quantile(values, per_mille / 1000, method="inverted_cdf")
    assert quantile_ns(np.sort(values), per_mille) == theirs


@given(st.integers(0, 2**32), st.integers(1, 60), st.booleans())
def test_arrivals_are_conserved_whatever_the_run(seed, requests, tiers):
    row = summarise(make_record(seed=seed, requests=requests, gpus=2, functions=5, tiers=tiers))
    assert row.arrived == row.finished + row.refused + row.aborted + row.unfinished == requests
    assert sum(row.cold_starts_by_cause.values()) == row.cold_starts <= row.started
    assert sum(decile.arrived for decile in row.popularity_deciles) == row.arrived
    assert row.slo_met <= row.finished
    shares = row.gpu_state_pct
    assert sum(shares.values()) <= 100.0 + 1e-9
    assert row.gpu_busy_pct <= row.gpu_allocated_pct + 1e-9


def test_the_hash_does_not_know_the_policys_name_or_the_seed():
    record = make_record(requests=50)
    before = result_sha256(record)
    record.policy, record.seed = "another", 9
    assert result_sha256(record) == before


@pytest.mark.parametrize(
    "column",
    [
        "function",
        "input_tokens",
        "output_tokens",
        "arrived_ns",
        "started_ns",
        "first_ns",
        "finished_ns",
        "outcome",
        "cause",
        "pod",
    ],
)
def test_the_hash_changes_with_any_value_of_any_request_column(column):
    record = make_record(requests=50)
    before = result_sha256(record)
    getattr(record.requests, column)[17] += 1
    assert result_sha256(record) != before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("at_ns", 1),
        ("kind", "defer"),
        ("function", 99),
        ("pod", 99),
        ("node", 9),
        ("gpus", (0, 1)),
        ("start", "warm"),
        ("reason", "other"),
        ("again_ns", (1 << 40,)),
    ],
)
def test_the_hash_changes_with_any_field_of_a_decision_but_its_explanation(name, value):
    record = make_record(requests=50)
    before = result_sha256(record)
    first = record.decisions[0]
    record.decisions[0] = replace(first, explain="{'score': 0.1}")
    assert result_sha256(record) == before
    record.decisions[0] = replace(first, **{name: value})
    assert result_sha256(record) != before


def test_a_repetition_of_one_decision_is_not_one_of_another():
    record = make_record(requests=50)
    a, b = record.decisions[:2]
    record.decisions[:2] = [replace(a, again_ns=(5,)), b]
    before = result_sha256(record)
    record.decisions[:2] = [a, replace(b, again_ns=(5,))]
    assert result_sha256(record) != before


def test_repetitions_count_as_decisions():
    record = make_record(requests=50)
    before = summarise(record).decisions_by_kind
    first = record.decisions[0]
    record.decisions[0] = replace(first, again_ns=array("q", [1 << 40, 1 << 41]))
    after = summarise(record).decisions_by_kind
    assert after == {**before, first.kind: before[first.kind] + 2}


def test_moving_a_letter_between_two_reasons_changes_the_hash():
    record = make_record(requests=50)
    a, b = record.decisions[:2]
    record.decisions[:2] = [replace(a, reason="ab"), replace(b, reason="c")]
    before = result_sha256(record)
    record.decisions[:2] = [replace(a, reason="a"), replace(b, reason="bc")]
    assert result_sha256(record) != before


def test_the_hash_is_a_published_constant():
    # Changes only with a new first line of the hash, said in docs/metrics.md.
    assert result_sha256(tiny(FIVE)) == (
        "a3636761b37610592679176e11e5e691cde5b944bafed4899c4c62a91a64b155"
    )


def span(a, b, gpu, state="idle", milli=1000, hbm=70 * GIB):
    return SpanRow(a * S, b * S, 0, gpu, 1, 0, state, milli, hbm, 0)


def test_every_pod_state_has_a_group():
    from inferx.core.lifecycle import PodState

    assert {state.name.lower() for state in PodState} <= GROUP_OF_STATE.keys()


def test_state_shares_weigh_a_slice_by_its_part_of_the_gpu():
    spans = Spans.of([span(0, 50, 0, "working"), span(0, 100, 1, "creating", milli=500)])
    shares = state_pct(spans, gpus=2, span_ns=100 * S)
    assert (shares["working"], shares["starting"], shares["idle"]) == (25.0, 25.0, 0.0)


def test_fragmentation_counts_what_is_free_but_too_small():
    functions, nodes = functions_of(4), nodes_of(2)
    big = np.array([1.0, 0.0, 0.0, 0.0])
    args = {"nodes": nodes, "functions": functions, "span_ns": 100 * S}
    # GPU 0 is half taken: a whole-GPU function cannot use its other half; GPU 1 is free.
    half = Spans.of([span(0, 100, 0, milli=500)])
    assert fragmentation_pct(half, weight=big, **args) == pytest.approx(100 * 500 / 1500)
    # A half-GPU function needs 30 GiB, and GPU 0 has 10 left.
    small = np.array([0.0, 0.0, 0.0, 1.0])
    assert fragmentation_pct(half, weight=small, **args) == pytest.approx(100 * 500 / 1500)
    roomy = Spans.of([span(0, 100, 0, milli=500, hbm=30 * GIB)])
    assert fragmentation_pct(roomy, weight=small, **args) == 0.0
    full = Spans.of([span(0, 100, 0), span(0, 100, 1)])
    assert fragmentation_pct(full, weight=big, **args) is None


def test_gpu_ids_run_node_by_node():
    assert gpu_rows(nodes_of(10)).tolist() == [0] * 8 + [1] * 2


def test_every_field_of_the_summary_is_defined_in_the_docs():
    import msgspec

    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    for kind in (SummaryRow, Decile, PairedDifference, Regret):
        for field in msgspec.structs.fields(kind):
            assert f"`{field.name}`" in text, f"docs/metrics.md does not define {field.name}"
    for schema in SCHEMAS.values():
        for name in schema.names:
            assert f"`{name}`" in text, f"docs/metrics.md does not define {name}"
