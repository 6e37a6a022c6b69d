"""Which pod, by published rules: each does what its paper proves."""

import heapq
from dataclasses import dataclass

import hypothesis.strategies as st
import pytest
from hypothesis import given

from inferx.core.events import RequestArrived
from inferx.core.rng import stream
from inferx.core.types import FunctionId, PodId, RequestId
from inferx.load import load_bundle
from inferx.policy.routing.session_affine import weight


@dataclass
class Pod:
    """A pod as a router shows it."""

    id: PodId
    inflight: int = 0
    free_slots: int = 1


def request(tenant=0, function=0):
    return RequestArrived(RequestId(0), FunctionId(function), 0, tenant)


def pods(*ids):
    return [Pod(PodId(i)) for i in ids]


def routing(name):
    return load_bundle(name).routing


def mean_time_in_system(policy, *, servers, load, customers, seed):
    """Random arrivals at servers with queues of their own and exponential service of mean 1.

    The policy chooses among all servers, full or not. The first fifth of the customers is left out.
    """
    rng = stream(seed, "servers")
    at = rng.exponential(1.0 / (load * servers), customers).cumsum()
    service = rng.exponential(1.0, customers)
    candidates, free_at = pods(*range(servers)), [0.0] * servers
    ends, total, warm = [], 0.0, customers // 5
    asked = request()
    for i, (now, work) in enumerate(zip(at.tolist(), service.tolist(), strict=True)):
        while ends and ends[0][0] <= now:
            candidates[heapq.heappop(ends)[1]].inflight -= 1
        chosen = policy.route(asked, candidates, None, rng)
        candidates[chosen].inflight += 1
        free_at[chosen] = max(now, free_at[chosen]) + work
        heapq.heappush(ends, (free_at[chosen], chosen))
        if i >= warm:
            total += free_at[chosen] - now
    return total / (customers - warm)


# -- power of two ---
@pytest.mark.parametrize("load", [0.7, 0.9])
def test_the_supermarket_model_has_its_fixed_point(load):
    """Mitzenmacher 2001, IEEE TPDS 12(10), p. 1099, corollary 2: the mean time in the supermarket
    model with d = 2 is the sum over i >= 1 of load^(2^i - 2); one choice takes 1 / (1 - load).
    """
    mean = mean_time_in_system(
        routing("power-of-two"), servers=200, load=load, customers=60_000, seed=3
    )
    fixed_point = sum(load ** (2**i - 2) for i in range(1, 12))
    assert mean == pytest.approx(fixed_point, rel=0.05)
    assert mean < 0.6 / (1 - load)


class Draws:
    """A generator that gives what it is told."""

    def __init__(self, value):
        self.value = value

    def random(self):
        return self.value


@given(st.lists(st.integers(0, 4), min_size=2, max_size=7), st.data())
def test_power_of_two_equals_two_draws_and_a_comparison(inflight, data):
    count = len(inflight)
    one, two = (data.draw(st.integers(0, count - 1)) for _ in range(2))
    candidates = [Pod(PodId(i), n) for i, n in enumerate(inflight)]
    rng = Draws((one * count + two + 0.5) / count**2)
    chosen = routing("power-of-two").route(request(), candidates, None, rng)
    assert chosen == (two if inflight[two] < inflight[one] else one)


# -- round robin ---
def test_round_robin_smooths_arrivals_as_erlang_says():
    """Ephremides, Varaiya, Walrand 1980, IEEE TAC 25(4), pp. 690-693: turns are better than chance.

    Of n servers in turn, each sees the sum of n gaps: a GI/M/1 queue of Erlang-n arrivals. The
    time in system is 1 / (1 - s) and s solves s = (n load / (n load + 1 - s))^n.
    """
    servers, load = 4, 0.8
    mean = mean_time_in_system(
        routing("round-robin"), servers=servers, load=load, customers=60_000, seed=5
    )
    root = 0.5
    for _ in range(500):
        root = (servers * load / (servers * load + 1 - root)) ** servers
    assert mean == pytest.approx(1 / (1 - root), rel=0.05)
    assert mean < 0.8 / (1 - load)


@given(st.lists(st.sets(st.integers(0, 6), min_size=2), min_size=1, max_size=30))
def test_round_robin_takes_the_next_id_of_those_that_are_free(rounds):
    policy = routing("round-robin")
    last = -1
    for free in rounds:
        # The order of the candidates says nothing.
        candidates = pods(*sorted(free, key=lambda i: (i * 5) % 7))
        chosen = candidates[policy.route(request(), candidates, None, None)].id
        assert chosen == min((i for i in free if i > last), default=min(free))
        last = chosen


def test_each_function_has_its_own_turn():
    policy = routing("round-robin")
    turns = [policy.route(request(function=f), pods(1, 2), None, None) for f in (0, 1, 0, 1, 0)]
    assert turns == [0, 0, 1, 1, 0]


# -- session affine ---
TENANTS = range(4_000)


def mapping(ids):
    policy = routing("session-affine")
    candidates = pods(*ids)
    return {t: candidates[policy.route(request(t), candidates, None, None)].id for t in TENANTS}


@pytest.mark.parametrize("gone", [3, 11, 40])
def test_where_a_pod_leaves_only_its_tenants_move_and_to_all_others_alike(gone):
    """Thaler, Ravishankar 1998, IEEE/ACM ToN 6(1), pp. 1-14, minimal disruption: of m servers, the
    one that fails had about one in m of the keys, and only those are mapped anew; and the loads
    stay balanced.
    """
    ids = (3, 8, 11, 14, 25, 26, 31, 40)
    before, after = mapping(ids), mapping([i for i in ids if i != gone])
    moved = [t for t in TENANTS if before[t] != after[t]]
    assert moved == [t for t in TENANTS if before[t] == gone]
    for loads, count in ((before, 8), (after, 7)):
        share = [list(loads.values()).count(i) * count / len(TENANTS) for i in set(loads.values())]
        assert len(share) == count
        assert min(share) > 0.85
        assert max(share) < 1.15


def test_the_weight_is_that_of_the_paper():
    """RFC 8584, section 3.2, after Thaler, Ravishankar 1998, pp. 1-14.

    W = (A (A s + B xor D) + B) mod 2^31.
    """
    a, b = 1103515245, 12345
    for digest, pod in ((0, 0), (1, 1), (2**31 - 1, 77), (123456789, 10**6)):
        assert weight(digest, pod) == (a * ((a * pod + b) ^ digest) + b) % 2**31


@given(st.integers(-5, 1 << 40), st.lists(st.integers(0, 60), min_size=2, unique=True))
def test_the_order_of_the_candidates_and_other_tenants_do_not_matter(tenant, ids):
    policy = routing("session-affine")
    chosen = {
        candidates[policy.route(request(tenant), candidates, None, None)].id
        for candidates in (pods(*ids), pods(*reversed(ids)), pods(*sorted(ids)))
    }
    assert len(chosen) == 1
