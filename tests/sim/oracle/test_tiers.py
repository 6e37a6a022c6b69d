"""Host memory as a place to keep what leaves its GPUs: the bound on demand where it is short."""

from dataclasses import replace
from itertools import pairwise, product

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inferx.core.types import FunctionSpec
from inferx.sim.oracle.keep_alive import on_demand_wait_s
from inferx.sim.oracle.room import Room
from inferx.sim.oracle.tiers import tiers_of
from inferx.sim.oracle.work import Work, clusters
from inferx.spec.cluster import load_cluster

RESUME_S, BELOW_S, LATEST_S = 2.0, 5.0, 5.0


def work_of(rows, *, sizes, total, states, host):
    """Requests (function, second). A pod takes `sizes` of the GPUs, its state `states` of `host`.

    A start as late as the timeout is free, since a start from below takes as long as that.
    """
    rows = sorted(rows, key=lambda row: row[1])
    functions = [
        FunctionSpec(name=f"f{i}", hbm_bytes=1, device_bytes=state, host_bytes=0, weight_bytes=1)
        for i, state in enumerate(states)
    ]
    nodes = [msgspec.structs.replace(load_cluster("g6e.2xlarge=1")[0], host_bytes=host)]
    room = Room(("hbm",), np.array([sizes], np.float64), np.array([float(total)]))
    count = len(sizes)
    return Work(
        function=np.array([row[0] for row in rows], np.int32),
        arrival_s=np.array([row[1] for row in rows], np.float64),
        service_s=np.zeros(len(rows)),
        counts=np.ones(len(rows), np.bool_),
        start_s=np.full(count, RESUME_S),
        below_s=np.full(count, BELOW_S),
        first_s=np.full(count, BELOW_S),
        prepared=True,
        timeout_s=np.full(count, LATEST_S),
        never=np.zeros(count, np.bool_),
        room=room,
        tiers=tiers_of(functions, nodes, room),
    )


def test_of_two_functions_host_memory_holds_one_and_the_other_starts_from_below():
    # Three functions, asked at 0 s and at 100 s. One stays on the GPU, one lies in host memory and
    # resumes in 2 s; the third has no place, and takes 5 s. Each one's first start takes 5 s.
    rows = [(f, at) for f in range(3) for at in (0.0, 100.0)]
    found = on_demand_wait_s(work_of(rows, sizes=[1] * 3, total=1, states=[10] * 3, host=10))
    assert found.suspending_s == pytest.approx(3 * 5.0 + 0.0 + 2.0 + 5.0, rel=1e-5)
    # Who copies states into host memory just in time finds room for both, one after the other; and
    # has done so before the first requests, but for the first starts, which cannot be over sooner.
    assert found.wait_s == pytest.approx(3 * 5.0 + 0.0 + 2.0 + 2.0, rel=1e-5)


def test_where_host_memory_holds_everything_it_is_no_bound():
    rows = [(f, at + 0.1 * f) for f in range(4) for at in (0.0, 9.0, 40.0, 100.0)]
    work = work_of(rows, sizes=[1, 2, 2, 3], total=3, states=[10, 4, 7, 2], host=23)
    ample = on_demand_wait_s(work)
    assert on_demand_wait_s(replace(work, tiers=replace(work.tiers, asleep=np.zeros(4)))) == ample
    short = on_demand_wait_s(
        work_of(rows, sizes=[1, 2, 2, 3], total=3, states=[10, 4, 7, 2], host=5)
    )
    assert short.wait_s == ample.wait_s
    assert short.suspending_s > ample.suspending_s + 1.0


def gaps_of(work):
    """What is waited for first starts; of each silence: function, when it may be kept from, end."""
    first_s, gaps = 0.0, []
    for group in clusters(work):
        at = work.arrival_s[group.requests]
        missed = [float(np.clip(t - (at - at[0]), 0, None).sum()) for t in (RESUME_S, BELOW_S)]
        if group.last_before < 0:
            first_s += float(np.clip(max(BELOW_S, at[0] + BELOW_S) - at, 0, None).sum())
        else:
            begin = float(work.arrival_s[group.last_before]) + LATEST_S
            gaps.append((group.function, begin, float(at[0]), *missed))
    return first_s, gaps


def cheapest(work, *, total, states, host):
    """The least sum of waits if each silence is spent in one way, whatever is tried.

    On GPUs; in host memory, from its beginning or from a later mark on and on GPUs before; or
    neither.
    """
    first_s, gaps = gaps_of(work)
    marks = sorted({mark for gap in gaps for mark in gap[1:3]})
    spans = [(low + high) / 2 for low, high in pairwise(marks)]
    ways = []
    for _, begin, end, resumed, missed in gaps:
        inside = [mark for mark in marks if begin <= mark < end][:2]
        ways.append([(end, end, 0.0), (begin, begin, missed), *((m, end, resumed) for m in inside)])
    best = np.inf
    for chosen in product(*ways):
        held = [(gap, way) for gap, way in zip(gaps, chosen, strict=True) if gap[1] < gap[2]]
        on_gpus = [sum(work.room.taken[0, g[0]] for g, w in held if g[1] < t < w[0]) for t in spans]
        asleep = [sum(states[g[0]] for g, w in held if w[0] < t < w[1]) for t in spans]
        if max(on_gpus, default=0) <= total and max(asleep, default=0) <= host:
            best = min(best, sum(way[2] for way in chosen))
    return first_s + best


SIZES = st.lists(st.integers(1, 3), min_size=3, max_size=3)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40)), min_size=4, max_size=8),
    SIZES,
    st.integers(1, 4),
    SIZES,
    st.integers(1, 5),
)
def test_keeping_fractions_in_either_place_is_at_most_keeping_whole(
    rows, sizes, total, states, host
):
    work = work_of(
        [(f, float(at)) for f, at in rows], sizes=sizes, total=total, states=states, host=host
    )
    found = on_demand_wait_s(work)
    assert found.wait_s <= found.suspending_s
    assert found.suspending_s <= cheapest(work, total=total, states=states, host=host) + 1e-6


@given(
    st.lists(
        st.tuples(
            st.integers(1, 9), st.integers(0, 9), st.integers(1, 9), *[st.integers(0, 2)] * 2
        ),
        min_size=2,
        max_size=5,
    )
)
@example([(1, 9, 1, 0, 0), (9, 1, 1, 0, 2)])
def test_whatever_is_on_gpus_and_asleep_at_once_meets_the_inequalities(rows):
    """A cluster that is just large enough; rows are hbm, device and host bytes, pods in either."""
    hbm, device, live, awake, asleep = np.array(rows, np.float64).T
    functions = [
        FunctionSpec(name="f", hbm_bytes=h, device_bytes=d, host_bytes=c, weight_bytes=1)
        for h, d, c, *_ in rows
    ]
    host = max(1, int(live @ (awake + asleep) + device @ asleep))
    nodes = [msgspec.structs.replace(load_cluster("g6e.2xlarge=1")[0], host_bytes=host)]
    room = Room(("hbm",), hbm[None], np.array([max(1.0, float(hbm @ awake))]))
    tiers = tiers_of(functions, nodes, room)
    assert (tiers.awake @ awake + tiers.either @ asleep <= tiers.total + 1e-9).all()
    assert (tiers.either @ (awake + asleep) <= tiers.total + 1e-9).all()
