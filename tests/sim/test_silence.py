import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inferx.core.units import NS_PER_S
from inferx.sim.metrics import quantile_ns
from inferx.sim.silence import SILENCE_CAP_NS, silence_us, weighted_quantile_ns

ARRIVALS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 900 * NS_PER_S)), max_size=40).map(
    lambda rows: sorted(rows, key=lambda row: row[1])
)
WEIGHED = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), max_size=30)


@given(ARRIVALS)
def test_silence_is_what_a_walk_over_the_requests_finds(rows):
    last, expected = {}, []
    for function, at in rows:
        silent = at - last[function] if function in last else SILENCE_CAP_NS
        expected.append(min(silent, SILENCE_CAP_NS) // 1_000)
        last[function] = at
    function = np.array([row[0] for row in rows], np.int32)
    arrived = np.array([row[1] for row in rows], np.int64)
    assert silence_us(function, arrived).tolist() == expected


@given(WEIGHED, st.integers(1, 1000))
def test_a_weighted_quantile_is_that_of_values_repeated_as_often_as_they_weigh(rows, per_mille):
    values = np.array([row[0] for row in rows], np.int64)
    weights = np.array([row[1] for row in rows], np.int64)
    repeated = np.sort(np.repeat(values, weights))
    assert weighted_quantile_ns(values, weights, per_mille) == quantile_ns(repeated, per_mille)


def test_two_weeks_of_fifteen_million_requests_do_not_overflow():
    count = 15_000_000
    assert int(np.iinfo(np.int64).max) > count * (SILENCE_CAP_NS // 1_000)
