"""Generators: rates, variation, popularity and lengths as asked for; each part on its own seed."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferx.core.errors import DescriptionError
from inferx.core.rng import stream
from inferx.core.units import NS_PER_S
from inferx.sim.workload.arrivals import Diurnal, Gamma, Mmpp, Poisson, Weibull
from inferx.sim.workload.generate import Fixed, LogNormal, Plan, generate
from inferx.sim.workload.grammar import parse_arrivals, parse_popularity, parse_size
from inferx.sim.workload.popularity import Popularity
from inferx.sim.workload.trace import CHUNK_ROWS, concat

PROCESSES = {
    "poisson": Poisson(rate=20),
    "gamma": Gamma(rate=20, cv=3),
    "regular": Gamma(rate=20, cv=0.1),
    "weibull": Weibull(rate=20, cv=3),
    "diurnal": Diurnal(rate=20, amplitude=1, period=600),
    "mmpp": Mmpp(rates=(2, 80), stays=(30, 10)),
    "three": Mmpp(rates=(0, 10, 90), stays=(5, 10, 5)),
}


def plan(arrivals=PROCESSES["poisson"], *, span_s: float = 60.0, **changes) -> Plan:
    given_ = {"input": Fixed(value=100), "output": LogNormal(mean=200, p99=800)} | changes
    popularity = given_.pop("popularity", Popularity(functions=20, alpha=1.1))
    return Plan(
        arrivals=arrivals, popularity=popularity, span_ns=round(span_s * NS_PER_S), **given_
    )


@pytest.mark.parametrize("name", PROCESSES)
def test_mean_rate_and_order_are_as_asked(name):
    process = PROCESSES[name]
    span_ns = 12_000 * NS_PER_S
    chunks = list(process.times(stream(5, "x"), span_ns))
    times = np.concatenate(chunks)
    assert max(map(len, chunks)) <= CHUNK_ROWS
    assert (np.diff(times) >= 0).all()
    assert times[0] >= 0
    assert times[-1] < span_ns
    assert len(times) / 12_000 == pytest.approx(process.rate, rel=0.06)


@pytest.mark.parametrize(
    "process",
    [Poisson(rate=5), Gamma(rate=5, cv=4), Weibull(rate=5, cv=4), Weibull(rate=5, cv=0.2)],
)
def test_gaps_vary_as_asked(process):
    times = np.concatenate(list(process.times(stream(1, "x"), 40_000 * NS_PER_S)))
    gaps = np.diff(times)
    assert gaps.std() / gaps.mean() == pytest.approx(getattr(process, "cv", 1.0), rel=0.05)


def test_diurnal_rate_follows_the_sine():
    times = np.concatenate(
        list(Diurnal(rate=50, amplitude=0.8, period=400).times(stream(1, "x"), 40_000 * NS_PER_S))
    )
    quarter = np.bincount((times // (100 * NS_PER_S)) % 4) / 10_000
    mean = 0.8 * 2 / np.pi
    assert quarter == pytest.approx(
        50 * np.array([1 + mean, 1 + mean, 1 - mean, 1 - mean]), rel=0.03
    )


def test_mmpp_does_not_depend_on_how_high_its_rates_are():
    busy = Mmpp(rates=(0, 100_000), stays=(1, 1000))
    chunk = next(busy.times(stream(1, "x"), 10_000 * NS_PER_S))
    assert len(chunk) == CHUNK_ROWS


@given(st.sampled_from(sorted(PROCESSES)), st.integers(0, 2**63), st.floats(0.001, 30))
@settings(max_examples=30, deadline=None)
def test_generated_trace_is_lawful_and_repeats(name, seed, span_s):
    made = concat(generate(plan(PROCESSES[name], span_s=span_s), seed))
    made.validate()
    assert made.span_ns < span_s * NS_PER_S + 1
    assert made.sha256() == concat(generate(plan(PROCESSES[name], span_s=span_s), seed)).sha256()


def test_each_part_has_its_own_stream():
    base = concat(generate(plan(), 1))
    other = concat(
        generate(plan(input=LogNormal(mean=5, p99=9), popularity=Popularity(functions=3)), 1)
    )
    assert np.array_equal(base.arrival_ns, other.arrival_ns)
    assert np.array_equal(base.output_tokens, other.output_tokens)
    assert not np.array_equal(base.function, other.function)
    assert not np.array_equal(base.arrival_ns, concat(generate(plan(), 2)).arrival_ns)


def test_longer_span_begins_like_the_shorter_one():
    short, long = concat(generate(plan(), 1)), concat(generate(plan(span_s=600), 1))
    for name, column in short.columns().items():
        assert np.array_equal(column, getattr(long, name)[: len(short)])


def test_lengths_have_the_mean_and_the_percentile_asked_for():
    drawn = LogNormal(mean=1000, p99=4000).draw(stream(1, "x"), 400_000)
    assert drawn.mean() == pytest.approx(1000, rel=0.01)
    assert np.quantile(drawn, 0.99) == pytest.approx(4000, rel=0.02)


def test_plain_requests_and_tenants():
    made = concat(
        generate(
            plan(input=None, output=None, service=LogNormal(mean=0.001, p99=0.01), tenants=3), 1
        )
    )
    made.validate()
    assert made.tenants == ("t00", "t01", "t02")
    assert np.array_equal(made.tenant, made.function % 3)
    assert made.duration_ns.min() == 1_000_000


def test_generation_streams():
    endless = generate(plan(Poisson(rate=1e6), span_s=1e9), 1)
    for chunk in itertools.islice(endless, 3):
        assert len(chunk) == CHUNK_ROWS


@pytest.mark.parametrize(
    ("text", "process"),
    [
        ("poisson:5", Poisson(rate=5)),
        ("gamma:rate=5,cv=4", Gamma(rate=5, cv=4)),
        ("gamma:cv=4,rate=5", Gamma(rate=5, cv=4)),
        ("weibull:5,0.5", Weibull(rate=5, cv=0.5)),
        ("diurnal:5", Diurnal(rate=5)),
        ("diurnal:5,period=60", Diurnal(rate=5, period=60)),
        ("mmpp:rates=1/20,stays=600/30", Mmpp(rates=(1, 20), stays=(600, 30))),
    ],
)
def test_arrivals_are_parsed(text, process):
    assert parse_arrivals(text) == process


def test_sizes_and_popularity_are_parsed():
    assert parse_size("12.5") == parse_size("fixed:12.5") == Fixed(value=12.5)
    assert parse_size("lognormal:1000,4000") == LogNormal(mean=1000, p99=4000)
    assert parse_popularity("uniform", 5) == Popularity(functions=5)
    assert parse_popularity("zipf:1.1,sticky=0.5", 5) == Popularity(
        functions=5, alpha=1.1, sticky=0.5
    )


@pytest.mark.parametrize(
    "text",
    ["", "gauss:1", "gamma:5", "gamma:5,4,3", "gamma:5,x", "gamma:5,cv=4,cv=4", "gamma:5,size=4",
     "gamma:nan,4", "gamma:0,4", "gamma:5,1000", "gamma:-5,4", "poisson:inf", "mmpp:1/2,3",
     "mmpp:0/0,1/1", "mmpp:1/2,0/1", "mmpp:1,1", "diurnal:5,2", "diurnal:5,0.5,0", "weibull:1,0"],
)  # fmt: skip
def test_bad_arrivals_are_one_error(text):
    with pytest.raises(DescriptionError, match=f"arrivals '{text}': .*expected"):
        parse_arrivals(text)


@pytest.mark.parametrize(
    "text", ["", "lognormal:1000", "lognormal:4000,1000", "lognormal:1,99", "-5", "0", "fixed:nan"]
)
def test_bad_sizes_are_one_error(text):
    with pytest.raises(DescriptionError, match=f"size '{text}': .*expected"):
        parse_size(text)


@pytest.mark.parametrize("text", ["zipf", "zipf:11", "zipf:1,sticky=1", "uniform:alpha=1", "x"])
def test_bad_popularity_is_one_error(text):
    with pytest.raises(DescriptionError, match=f"popularity '{text}': .*expected"):
        parse_popularity(text, 5)


@pytest.mark.parametrize(
    "changes",
    [
        {"span_s": 0},
        {"input": None},
        {"service": Fixed(value=1)},
        {"input": None, "output": None},
        {"tenants": 0},
        {"tenants": 21},
    ],
)
def test_contradictory_plan_is_an_error(changes):
    with pytest.raises(DescriptionError, match="expected"):
        plan(**changes)
