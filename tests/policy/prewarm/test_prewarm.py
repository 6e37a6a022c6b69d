"""The prewarmers, each against what its source says."""

import math
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from small_cluster import add, cluster, function

from inferx.core.events import LoadReported
from inferx.core.rng import stream
from inferx.core.types import RouterId
from inferx.core.view import ClusterView
from inferx.load import load_bundle
from inferx.policy import NS_PER_S, FunctionId, NodeId, Promote, Tier
from inferx.policy.parts.bringing import bring_up, pods_short
from inferx.policy.parts.counts import PeriodCounts
from inferx.policy.parts.start_times import StartTimes
from inferx.policy.prewarm.boot_window import EDGES, law, odds
from inferx.policy.prewarm.fourier import extrapolate
from inferx.policy.prewarm.holt_winters import HoltWinters
from inferx.policy.prewarm.newsvendor import fractile
from inferx.sim.driver import simulate
from inferx.sim.profile import load_profile
from inferx.sim.workload.trace import make_trace
from inferx.sim.world import World
from inferx.spec.cluster import load_cluster
from inferx.spec.template import auto_functions

RNG = stream(1, "t")


def came(functions, arrivals):
    """Return a router's report of a second in which so many requests came."""
    none = (0,) * len(arrivals)
    return LoadReported(RouterId(0), NS_PER_S, tuple(functions), tuple(arrivals), none, none)


def several(*sizes, most=4, slots=10):
    """Return functions of so many GiB, with several pods of several slots."""
    return [
        msgspec.structs.replace(function(f"f{f}", gib), max_replica=most, slots=slots)
        for f, gib in enumerate(sizes)
    ]


# -- where to ---
def test_a_pod_comes_up_where_its_state_is_and_a_gpu_is_free():
    c = cluster(several(60, 60), nodes=3, gpus=1)
    c.nvme[1, 0] = c.nvme[1, 1] = c.nvme[2, 1] = True
    view = ClusterView(c, snapshots=True)
    assert bring_up([0, 1, 1, 0], view, moves=8) == [
        Promote(FunctionId(0), NodeId(1), Tier.HBM),
        Promote(FunctionId(1), NodeId(2), Tier.HBM),
        Promote(FunctionId(1), NodeId(0), Tier.HBM),
    ]
    assert len(bring_up([0, 1, 1, 0], view, moves=2)) == 2
    assert bring_up([0], view, moves=0) == []


@given(
    st.lists(st.sampled_from([10, 30, 50, 80]), min_size=1, max_size=4),
    st.lists(st.integers(0, 3), max_size=8),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=6),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=6),
    st.integers(1, 4),
)
def test_bring_up_places_as_a_loop_over_nodes_does(sizes, wanted, there, stored, moves):
    functions = several(*sizes)
    wanted = [f % len(sizes) for f in wanted]
    c = cluster(functions, nodes=3, gpus=2)
    for pod, (f, gpu) in enumerate(there):
        if c.gpu_hbm_open[gpu] >= functions[f % len(sizes)].hbm_bytes:
            add(c, pod, f % len(sizes), [gpu])
    for at, f in stored:
        c.nvme[at, f % len(sizes)] = True
    view = ClusterView(c, snapshots=True)
    free, milli = c.gpu_hbm_open.tolist(), c.gpu_milli_open.tolist()
    expected = []
    for f in wanted[: 4 * moves]:
        spec, starts = functions[f], view.node_restore_ns(FunctionId(f)).tolist()
        fits = [g for g in range(6) if free[g] >= spec.hbm_bytes and milli[g] >= spec.milli_gpu]
        if fits and len(expected) < moves:
            gpu = min(fits, key=lambda g: (starts[g // 2], g))
            free[gpu] -= spec.hbm_bytes
            milli[gpu] -= spec.milli_gpu
            expected.append(Promote(FunctionId(f), NodeId(gpu // 2), Tier.HBM))
    assert bring_up(wanted, view, moves=moves) == expected


@given(st.lists(st.tuples(st.floats(-5, 90), st.integers(0, 3)), min_size=1, max_size=6))
def test_pods_short_are_those_that_a_loop_counts(cases):
    c = cluster(several(*[1] * len(cases)), nodes=4, gpus=8)
    for f, (_, live) in enumerate(cases):
        c.fn_ready[f] = live
    told = pods_short(np.array([x for x, _ in cases]), ClusterView(c, snapshots=True), moves=10)
    expected = []
    for f in sorted(range(len(cases)), key=lambda f: -cases[f][0]):
        requests, live = cases[f]
        pods = min(4, math.ceil(round(max(0.0, requests)) / 10))
        expected += [f] * max(0, pods - live)
    assert told == expected


def test_start_times_come_round_to_every_function():
    c = cluster(several(10, 20, 40), nodes=2)
    view = ClusterView(c, snapshots=True)
    start = StartTimes(refresh=1)
    cold = start.look(view).copy()
    c.nvme[0, :] = True
    for _ in range(2):
        start.look(view)
    warm = [view.node_restore_ns(FunctionId(f)).min() / NS_PER_S for f in range(3)]
    assert start.look(view).tolist() == warm
    assert (start.look(view) < cold).all()


# -- counts ---
@given(
    st.lists(
        st.tuples(st.integers(0, 90), st.integers(0, 2), st.integers(0, 9), st.booleans()),
        max_size=20,
    )
)
def test_periods_are_handed_out_once_each_and_in_order(steps):
    counts, told, got, now_s, first = PeriodCounts(10 * NS_PER_S, most=1000), {}, [], 0, None
    for gap_s, f, arrivals, ask in steps:
        now_s += gap_s
        first = now_s // 10 if first is None else first
        counts.observe(now_s * NS_PER_S, came([f], [arrivals]))
        told.setdefault(now_s // 10, [0, 0, 0])[f] += arrivals
        if ask:
            got += counts.ended(now_s * NS_PER_S, 3)
    got += counts.ended((now_s + 10) * NS_PER_S, 3)
    expected = [] if first is None else range(first, now_s // 10 + 1)
    assert [y.tolist() for y in got] == [told.get(k, [0, 0, 0]) for k in expected]


def test_a_long_silence_hands_out_no_more_than_is_kept():
    counts = PeriodCounts(NS_PER_S, most=3)
    counts.observe(0, came([0], [5]))
    assert [y.tolist() for y in counts.ended(10**6 * NS_PER_S, 1)] == [[0], [0], [0]]


# -- Fourier ---
def test_a_quadratic_trend_is_carried_on_exactly():
    """Roy, Patel, Tiwari 2022, ASPLOS, pp. 753-767: f(t) = a t^2 + b t + c, nothing periodic."""
    t = np.arange(62.0)
    y = 0.01 * t**2 - 0.3 * t + 5
    told = extrapolate(y[None, :60], 2, harmonics=10, degree=2)
    assert told[0] == pytest.approx(y[60:])


def test_harmonics_of_the_window_are_carried_on_exactly():
    """Roy, Patel, Tiwari 2022, ASPLOS, pp. 753-767, the FFT part: periods of 5, 12 and 20 minutes,
    all of which divide the window of 60.
    """
    t = np.arange(70.0)
    waves = ((3, 5, 0.3), (7, 12, 1.0), (2, 20, -2.0))
    y = 9 + sum(a * np.cos(2 * np.pi * t / period + phase) for a, period, phase in waves)
    told = extrapolate(y[None, :60], 10, harmonics=3, degree=0)
    assert told[0] == pytest.approx(y[60:])
    # Two harmonics are not enough for three.
    assert extrapolate(y[None, :60], 10, harmonics=2, degree=0)[0] != pytest.approx(y[60:])


@given(
    st.integers(4, 24).flatmap(
        lambda n: st.lists(
            st.lists(st.integers(0, 9), min_size=n, max_size=n), min_size=1, max_size=4
        )
    ),
    st.integers(1, 14),
    st.integers(0, 2),
)
def test_extrapolate_equals_a_discrete_transform_by_hand(rows, harmonics, degree):
    told = extrapolate(np.array(rows, float), 2, harmonics=harmonics, degree=degree)
    for y, got in zip(rows, told, strict=True):
        n = len(y)
        trend = np.polynomial.Polynomial.fit(range(n), y, degree)
        rest = [y[t] - trend(t) for t in range(n)]
        bins = {
            k: sum(rest[t] * np.exp(-2j * np.pi * k * t / n) for t in range(n))
            / n
            * (1 if 2 * k == n else 2)
            for k in range(1, n // 2 + 1)
        }
        ranks = sorted(bins, key=lambda k: -abs(bins[k]))
        size = [abs(bins[k]) for k in ranks]
        # Two harmonics of one strength that is rounding alone have no order.
        assume(harmonics >= len(ranks) or size[harmonics - 1] - size[harmonics] > 1e-6)
        for h in range(2):
            waves = sum(bins[k] * np.exp(2j * np.pi * k * (n + h) / n) for k in ranks[:harmonics])
            expected = trend(n + h) + complex(waves).real
            assert got[h] == pytest.approx(expected, abs=1e-6)


def test_fourier_brings_a_periodic_function_up_before_its_minute():
    """Every fifth minute 25 requests: three pods of ten slots the minute before, none after."""
    c = cluster(several(10), nodes=1)
    view = ClusterView(c, snapshots=True)
    prewarm = load_bundle("fourier", {"degree": 0}).prewarm
    up = []
    for minute in range(120):
        c.now_ns = minute * 60 * NS_PER_S
        prewarm.observe(c.now_ns, came([0], [25 if minute % 5 == 0 else 0]))
        c.now_ns += 30 * NS_PER_S
        if minute >= 60:
            up.append(len(prewarm.promote(view, RNG)))
    # Asked in minute m, it looks at m and m + 1.
    assert up == [3, 0, 0, 0, 3] * 12


# -- Holt-Winters ---
def by_the_book(ys, alpha, beta, gamma, level, trend, season):
    """Apply the equations one number at a time; return each forecast for the next period."""
    season, told = list(season), []
    for t, y in enumerate(ys):
        told.append(level + trend + season[t % len(season)])
        old, was = season[t % len(season)], level
        level = alpha * (y - old) + (1 - alpha) * (level + trend)
        trend = beta * (level - was) + (1 - beta) * trend
        season[t % len(season)] = gamma * (y - level) + (1 - gamma) * old
    return told


WEIGHTS = st.floats(0, 1)


@given(WEIGHTS, WEIGHTS, WEIGHTS, st.lists(st.integers(-9, 9), min_size=2, max_size=7))
def test_trend_and_season_are_forecast_exactly(alpha, beta, gamma, season):
    """A fixed point of Winters 1960, Management Science 6(3), pp. 324-342, whatever the weights.

    From the true level, trend and season, every forecast at every distance is exact.
    """
    p = len(season)
    y = [10 + 0.5 * t + season[t % p] for t in range(40)]
    model = HoltWinters(
        alpha, beta, gamma, np.array([9.5]), np.array([0.5]), np.array([season], float), primed=True
    )
    for t in range(30):
        for h in range(1, p + 1):
            assert model.forecast(h)[0] == pytest.approx(y[t - 1 + h])
        model.learn(np.array([y[t]]))


@given(
    st.lists(st.lists(st.integers(0, 20), min_size=12, max_size=12), min_size=1, max_size=3),
    WEIGHTS,
    WEIGHTS,
    WEIGHTS,
)
def test_many_series_are_smoothed_as_each_by_the_book(rows, alpha, beta, gamma):
    many = np.array(rows, float)
    n = len(rows)
    model = HoltWinters(
        alpha, beta, gamma, np.full(n, 3.0), np.full(n, 0.2), np.ones((n, 4)), primed=True
    )
    told = []
    for t in range(12):
        told.append(model.forecast(1))
        model.learn(many[:, t])
    for row, y in enumerate(rows):
        expected = by_the_book(y, alpha, beta, gamma, 3.0, 0.2, [1.0] * 4)
        assert [float(x[row]) for x in told] == pytest.approx(expected)


def test_holt_winters_learns_a_season_from_nothing_with_brutlags_constants():
    """Brutlag 2000, LISA, pp. 139-146: alpha 0.1, beta 0.0035, gamma 0.1."""
    bundle = load_bundle("holt-winters", {"season": 6})
    model = bundle.prewarm.model
    assert (model.alpha, model.beta, model.gamma) == (0.1, 0.0035, 0.1)
    c = cluster(several(10), nodes=1)
    view = ClusterView(c, snapshots=True)
    assert bundle.prewarm.promote(view, RNG) == ()
    up = []
    for minute in range(600):
        c.now_ns = minute * 60 * NS_PER_S
        bundle.prewarm.observe(c.now_ns, came([0], [20 if minute % 6 == 0 else 0]))
        c.now_ns += 30 * NS_PER_S
        up.append(len(bundle.prewarm.promote(view, RNG)))
    assert up[-12:] == [2, 0, 0, 0, 0, 2] * 2


# -- newsvendor ---
def tails(mean, most):
    """Return P(N > k) for k up to `most`."""
    pmf, left, told = math.exp(-mean), 1.0, []
    for k in range(most):
        left -= pmf
        told.append(left)
        pmf *= mean / (k + 1)
    return told


@given(st.floats(0.01, 60), st.floats(0.001, 0.9))
def test_the_fractile_is_the_first_that_a_loop_finds(mean, tail):
    loop = tails(mean, 200)
    k = fractile(mean, tail)
    assume(abs(loop[k] - tail) > 1e-9)
    assert k == next(k for k, left in enumerate(loop) if left <= tail)


@given(st.floats(0.1, 30), st.floats(0.05, 10), st.floats(0.05, 100))
def test_the_fractile_costs_least(mean, idle, miss):
    """Arrow, Harris and Marschak 1951, Econometrica 19(3), pp. 250-272: the critical fractile
    minimises the expected cost.

    Cost of k: idle for each that is not asked for, miss for each request too many.
    """
    n = np.arange(200)
    logs = n * math.log(mean) - mean - np.array([math.lgamma(k + 1) for k in n])
    pmf = np.exp(logs)
    cost = [
        float((pmf * (idle * np.maximum(k - n, 0) + miss * np.maximum(n - k, 0))).sum())
        for k in range(100)
    ]
    k = fractile(mean, idle / (idle + miss))
    assert cost[k] == pytest.approx(min(cost), rel=1e-9)


def test_the_fractile_of_a_published_exercise():
    """Cachon and Terwiesch, "Matching Supply with Demand", the exercise on Schmears Inc., part d.

    Demand 1.5 a day over a lead time of three days and one more; holding 0.01, stock-out 6.
    """
    k = fractile(6.0, 0.01 / 6.01)
    assert k == 14
    assert tails(6.0, 15)[14] <= 0.01 / 6.01 < tails(6.0, 15)[13]


def test_a_large_mean_stays_exact():
    """At 5,000 the exponential underflows; the normal quantile is near: 5,000 + 1.645 * 70.7."""
    assert fractile(5_000.0, 0.05) == pytest.approx(5_000 + 1.645 * math.sqrt(5_000), abs=2)
    assert fractile(0.0, 0.05) == 0


def test_the_buffer_counts_free_slots():
    c = cluster(several(10, 10, 10), nodes=2)
    c.now_ns = 1000 * NS_PER_S
    for f, gap_s in ((0, 1), (1, 5), (2, 900)):
        c.arrivals.learn(f, 1, c.now_ns - gap_s * NS_PER_S, within_ns=NS_PER_S)
        c.arrivals.learn(f, 1, c.now_ns, within_ns=NS_PER_S)
    view = ClusterView(c, snapshots=True)
    prewarm = load_bundle("newsvendor").prewarm
    wanted = [math.ceil(fractile(float(mean), 0.05) / 10) for mean in prewarm.demand(view)]
    assert wanted[0] > wanted[1] > wanted[2] >= 0
    assert prewarm.short(view) == [0] * min(4, wanted[0]) + [1] * wanted[1] + [2] * wanted[2]
    c.fn_ready[1], c.fn_inflight[1] = 4, 10
    assert 1 not in prewarm.short(view)
    assert len(prewarm.promote(view, RNG)) == 4


# -- arrival in the boot window ---
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 5)), min_size=1, max_size=6),
    st.floats(0, 2_000),
    st.floats(0, 300),
    st.floats(1, 300),
)
def test_odds_equal_sums_over_evenly_filled_bins(gaps, silence, start, hold):
    counts = np.zeros((1, len(EDGES) - 1))
    for at, many in gaps:
        counts[0, at] += many

    def beyond(x):
        """Return how many gaps exceed x."""
        total = 0.0
        for low, high, many in zip(EDGES, EDGES[1:], counts[0], strict=False):
            total += many * min(1.0, max(0.0, (high - x) / (high - low)))
        return total

    # Straight between the bins' edges: trapezia are exact.
    inside = [float(edge) for edge in EDGES if silence < edge < silence + hold]
    stops = [silence, *inside, silence + hold]
    held = sum((beyond(x) + beyond(y)) / 2 * (y - x) for x, y in pairwise(stops))
    chance, wait = odds(*law(counts), np.array([0]), np.array([silence]), np.array([start]), hold)
    longer = beyond(silence)
    if longer <= 0:
        assert chance[0] == wait[0] == 0
        return
    assume(longer > 1e-3)
    assert chance[0] == pytest.approx((longer - beyond(silence + start)) / longer, abs=1e-6)
    assert wait[0] == pytest.approx(held / longer, rel=1e-6, abs=1e-6)


def test_odds_of_memoryless_gaps_are_the_exponential_ones():
    """1 - exp(-t / mean) and mean (1 - exp(-h / mean)), at every silence."""
    gaps = stream(1, "gaps").exponential(100.0, 200_000)
    counts = np.histogram(gaps, EDGES)[0].astype(float)[None, :]
    silence = np.array([0.0, 30.0, 100.0, 200.0])
    chance, wait = odds(*law(counts), np.zeros(4, int), silence, np.full(4, 20.0), 60.0)
    assert chance == pytest.approx(1 - math.exp(-0.2), rel=0.12)
    assert wait == pytest.approx(100 * (1 - math.exp(-0.6)), rel=0.05)


def test_a_punctual_function_is_brought_up_just_before_it_is_asked_for():
    """Once in 300 s: the rule waits as long as it may, which a fixed hold cannot."""
    c = cluster(several(10), nodes=1)
    view = ClusterView(c, snapshots=True)
    prewarm = load_bundle("boot-window").prewarm
    up_s = []
    for second in range(3_000):
        c.now_ns = second * NS_PER_S
        if second % 300 == 0:
            prewarm.observe(c.now_ns, came([0], [1]))
        if second > 1_500 and prewarm.promote(view, RNG):
            up_s.append(second % 300)
    assert up_s
    start_s = StartTimes().look(view)[0]
    earliest = EDGES[np.searchsorted(EDGES, 300, side="right") - 1] - start_s
    assert min(up_s) >= earliest - 1
    c.fn_starting[0] = 1
    assert not any(prewarm.worth(view) > 0)


def test_a_function_that_is_up_or_hardly_known_is_left_alone():
    c = cluster(several(10, 10), nodes=1)
    view = ClusterView(c, snapshots=True)
    prewarm = load_bundle("boot-window", {"hold": 0.001}).prewarm
    for second in range(0, 100, 10):
        c.now_ns = second * NS_PER_S
        prewarm.observe(c.now_ns, came([0], [1]))
        prewarm.observe(c.now_ns, came([1], [int(second < 30)]))
    assert prewarm.worth(view)[0] > 0
    assert prewarm.worth(view)[1] == -np.inf
    add(c, 0, 0, [0])
    assert not prewarm.promote(view, RNG)


# -- in the kernel ---
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("fourier", {"degree": 0}),
        ("holt-winters", {"season": 5}),
        ("newsvendor", {"miss": 99.0}),
        ("boot-window", {"hold": 0.03}),
    ],
)
def test_prewarming_takes_cold_starts_from_a_punctual_function(name, settings):
    """Asked every five minutes on a node to itself: the plain hold of a minute always misses."""
    arrival_ns = np.arange(60, dtype=np.int64) * 300 * NS_PER_S + 30 * NS_PER_S
    trace = make_trace(
        arrival_ns=arrival_ns,
        function=np.zeros(60, np.int32),
        input_tokens=np.full(60, 100, np.int32),
        output_tokens=np.full(60, 10, np.int32),
        names=["f0"],
    )

    def waits(bundle):
        world = World(
            nodes=load_cluster("p5.48xlarge=1"),
            functions=auto_functions(["f0"], seed=1, template="auto:7b"),
            profile=load_profile("criu-memfd"),
            prepared="nvme",
        )
        q = simulate(world, [trace], bundle, seed=1).requests
        return float(np.median((q.started_ns - q.arrived_ns)[30:])) / NS_PER_S

    plain = waits(load_bundle("plain"))
    assert plain > 0.5
    assert waits(load_bundle(name, settings)) < 0.1 * plain


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("fourier", "period_s", 0),
        ("fourier", "window", 3),
        ("fourier", "harmonics", 0),
        ("fourier", "degree", 4),
        ("fourier", "least", 61),
        ("fourier", "moves", -1),
        ("holt-winters", "period_s", 0),
        ("holt-winters", "season", 1),
        ("holt-winters", "alpha", 2.0),
        ("holt-winters", "moves", -1),
        ("newsvendor", "idle", 0.0),
        ("newsvendor", "miss", -1.0),
        ("newsvendor", "moves", 0),
        ("newsvendor", "settle_s", -1.0),
        ("boot-window", "cold", 0.0),
        ("boot-window", "hold", 0.0),
        ("boot-window", "hold_s", 0.0),
        ("boot-window", "least", 0),
        ("boot-window", "moves", -1),
        ("boot-window", "period_s", 0.0),
        ("boot-window", "settle_s", -1.0),
    ],
)
def test_a_setting_out_of_range_is_refused(name, setting, value):
    with pytest.raises(Exception, match=setting):
        load_bundle(name, {setting: value})
