"""Transforms: lawful, seeded, and blind to where chunks were cut."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferx.core.errors import DescriptionError
from inferx.core.rng import stream
from inferx.sim.workload.popularity import FunctionDraw, Popularity
from inferx.sim.workload.splice import splice
from inferx.sim.workload.trace import Trace, chunks_of, concat, make_trace
from inferx.sim.workload.transform import (
    assign,
    cut,
    jitter,
    parse_assign,
    sample_functions,
    sample_requests,
    scale,
)

ARRIVALS = st.lists(st.integers(0, 10**6), min_size=1, max_size=50).map(sorted)


def trace_of(arrivals: list[int], functions: int = 5, prefix: str = "g") -> Trace:
    count = len(arrivals)
    return make_trace(
        np.array(arrivals, np.int64) - arrivals[0],
        function=np.arange(count) * 7 % functions,
        input_tokens=np.arange(count),
        output_tokens=np.arange(count) + 1,
        names=[f"{prefix}{i}" for i in range(functions)],
    )


STEPS = {
    "scale": lambda chunks: scale(chunks, 1.7),
    "cut": lambda chunks: cut(chunks, 1000, 500_000),
    "sample requests": lambda chunks: sample_requests(chunks, 0.5, 1),
    "sample functions": lambda chunks: sample_functions(chunks, 0.5, 1),
    "jitter": lambda chunks: jitter(chunks, 3000, 1),
    "assign": lambda chunks: assign(chunks, Popularity(functions=9, alpha=1.1, sticky=0.4), 1),
    "splice": lambda chunks: splice([chunks]),
}


@given(arrivals=ARRIVALS, rows=st.integers(1, 20), step=st.sampled_from(sorted(STEPS)))
def test_result_is_lawful_and_does_not_depend_on_chunks(arrivals, rows, step):
    trace = trace_of(arrivals)
    whole = concat(STEPS[step]([trace]))
    parts = concat(STEPS[step](chunks_of(trace, rows)))
    whole.validate()
    # No row left means no chunk, hence no names: two empty traces may differ in those.
    assert len(whole) == len(parts)
    assert not len(whole) or whole.sha256() == parts.sha256()


@given(ARRIVALS, st.integers(1, 60), st.floats(0, 2), st.integers(0, 9))
def test_assign_changes_nothing_but_functions(arrivals, functions, alpha, seed):
    trace = trace_of(arrivals)
    spread = assign(trace, Popularity(functions=functions, alpha=alpha), seed)
    assert spread.names == tuple(f"f{i:04d}" for i in range(functions))
    assert (spread.function < functions).all()
    for name, column in trace.columns().items():
        if name != "function":
            assert np.array_equal(getattr(spread, name), column)
    assert (
        spread.sha256()
        == assign(trace, Popularity(functions=functions, alpha=alpha), seed).sha256()
    )


def test_assign_depends_on_the_seed_and_follows_the_shares():
    trace = trace_of(list(range(50_000)))
    spec = parse_assign("zipf:1.1,50")
    one, two = assign(trace, spec, 1), assign(trace, spec, 2)
    assert one.sha256() != two.sha256()
    observed = np.bincount(one.function, minlength=50) / len(one)
    # Four standard errors of the largest share.
    assert np.abs(observed - spec.shares()).max() < 4 * np.sqrt(0.25 / len(one))


def test_sticky_makes_runs_and_keeps_shares():
    spec = Popularity(functions=20, alpha=1.0, sticky=0.75)
    drawn = FunctionDraw(spec, stream(3, "x")).next(200_000)
    shares = spec.shares()
    repeats = float((drawn[1:] == drawn[:-1]).mean())
    assert repeats == pytest.approx(0.75 + 0.25 * float((shares**2).sum()), abs=0.01)
    observed = np.bincount(drawn, minlength=20) / len(drawn)
    assert np.abs(observed - shares).max() < 0.01


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("zipf:1.1,50", Popularity(functions=50, alpha=1.1)),
        ("uniform:7", Popularity(functions=7)),
    ],
)
def test_assign_is_parsed(text, spec):
    assert parse_assign(text) == spec


@pytest.mark.parametrize(
    "text",
    ["", "zipf", "zipf:1", "zipf:x,5", "zipf:1,5.5", "zipf:1,0", "zipf:nan,5", "zipf:-1,5",
     "zipf:1,9999999", "uniform:", "uniform:0", "uniform:5,5", "pareto:1,5"],
)  # fmt: skip
def test_bad_assign_is_one_error(text):
    with pytest.raises(DescriptionError, match=f"assign '{text}'.*expected"):
        parse_assign(text)


def test_scale_divides_times():
    assert concat(scale([trace_of([0, 10, 30])], 2)).arrival_ns.tolist() == [0, 5, 15]
    assert concat(scale([trace_of([0, 10, 30])], 0.5)).arrival_ns.tolist() == [0, 20, 60]


def test_cut_keeps_the_window_and_stops_reading_behind_it():
    def endless():
        for i in range(10):
            assert i < 4, "read on for nothing"
            part = trace_of(list(range(10)))
            yield make_trace(part.arrival_ns + 10 * i, duration_ns=np.ones(10))

    kept = concat(cut(endless(), 15, 25))
    assert kept.arrival_ns.tolist() == list(range(10))


def test_sampling_keeps_whole_functions_and_renumbers_them():
    trace = trace_of(list(range(300)), functions=30)
    kept = concat(sample_functions([trace], 0.4, 5))
    assert 0 < len(kept.names) < 30
    before = Counter(trace.names[f] for f in trace.function)
    after = Counter(kept.names[f] for f in kept.function)
    assert after == {name: before[name] for name in kept.names}


def test_sampling_requests_keeps_about_the_fraction():
    kept = concat(sample_requests([trace_of(list(range(100_000)))], 0.1, 1))
    assert len(kept) == pytest.approx(10_000, abs=400)


@given(ARRIVALS, st.integers(1, 10**5), st.integers(0, 5))
def test_jitter_delays_each_request_by_less_than_the_width(arrivals, width_ns, seed):
    trace = trace_of(arrivals)
    moved = concat(jitter(chunks_of(trace, 7), width_ns, seed))
    # Output tokens tell the requests apart.
    original = dict(zip(trace.output_tokens.tolist(), trace.arrival_ns.tolist(), strict=True))
    delays = [
        at - original[token]
        for at, token in zip(moved.arrival_ns.tolist(), moved.output_tokens.tolist(), strict=True)
    ]
    assert len(delays) == len(original)
    assert max(delays) - min(delays) < width_ns


@pytest.mark.parametrize(
    "step",
    [
        lambda chunks: scale(chunks, 0),
        lambda chunks: scale(chunks, float("nan")),
        lambda chunks: scale(chunks, 1e-300),
        lambda chunks: cut(chunks, 5, 5),
        lambda chunks: cut(chunks, -1, 5),
        lambda chunks: sample_requests(chunks, 0, 1),
        lambda chunks: sample_functions(chunks, 1.5, 1),
        lambda chunks: jitter(chunks, 0, 1),
        lambda chunks: splice([chunks], starts_ns=[0, 1]),
        lambda chunks: splice([chunks], starts_ns=[-1]),
    ],
)
def test_senseless_parameter_is_an_error(step):
    with pytest.raises(DescriptionError):
        list(step([trace_of([0, 1])]))


@given(
    st.lists(ARRIVALS, min_size=1, max_size=4), st.integers(1, 20), st.integers(0, 500), st.data()
)
def test_splice_is_a_stable_merge(parts, rows, start_ns, data):
    traces = [
        trace_of(arrivals, data.draw(st.integers(1, 4)), prefix="gh"[i % 2])
        for i, arrivals in enumerate(parts)
    ]
    starts = [start_ns * i for i in range(len(traces))]
    merged = concat(splice([chunks_of(t, rows) for t in traces], starts_ns=starts))
    merged.validate()
    expected = sorted(
        (
            (at + start, i, row)
            for i, (trace, start) in enumerate(zip(traces, starts, strict=True))
            for row, at in enumerate(trace.arrival_ns.tolist())
        ),
    )
    assert merged.arrival_ns.tolist() == [at - expected[0][0] for at, _, _ in expected]
    assert [merged.names[f] for f in merged.function] == [
        traces[i].names[traces[i].function[row]] for _, i, row in expected
    ]
    assert len(set(merged.names)) == len(merged.names)
