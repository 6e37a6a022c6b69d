"""Fair shares between tenants: of a function's slots, and of the cluster's room."""

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given
from kernel_world import function, node
from one_queue import OneQueue
from small_cluster import add, cluster, suspend, wants
from small_cluster import function as small_function

from inferx.core.commands import Create
from inferx.core.events import LeaseAsked, NodeJoined
from inferx.core.machine.scheduler import Scheduler
from inferx.core.rng import stream
from inferx.core.types import FunctionId, NodeId, RouterId
from inferx.core.units import GIB
from inferx.core.view import ClusterView
from inferx.load import load_bundle
from inferx.policy.parts.weights import parse_weights
from inferx.policy.queueing.virtual_token_counter import bundle as counter_bundle


def queueing(name, **settings):
    return load_bundle(name, settings).queueing


# -- weighted fair ---
def test_eleven_sessions_are_served_as_by_weighted_fair_queueing():
    """Bennett, Zhang 1996, INFOCOM, pp. 120-128, the example of eleven sessions.

    The first has half of the server and sends eleven packets, ten others have a twentieth each and
    send one. Fair queueing sends ten of session 1 back to back, then one of each other, then the
    last.
    """
    weights = "1:0.5," + ",".join(f"{t}:0.05" for t in range(2, 12))
    q = OneQueue(queueing("weighted-fair", weights=weights), open_=False)
    for tenant in [1] * 11 + list(range(2, 12)):
        q.arrive(tenant=tenant)
    q.open()
    q.drain()
    assert q.tenants() == [1] * 10 + list(range(2, 12)) + [1]


WEIGHTS = {0: 1.0, 1: 2.0, 2: 0.5}
MOVES = st.lists(
    st.tuples(st.sampled_from(["arrive", "arrive", "end"]), st.integers(0, 2), st.integers(0, 40)),
    max_size=120,
)


def backlogged(q, moves, each):
    """Do as the moves say; tell `each` after every one of them how many of each tenant wait."""
    for what, tenant, size in moves:
        if what == "arrive":
            q.arrive(tenant=tenant, input_tokens=size)
        elif q.running:
            q.end(q.running[size % len(q.running)], tokens=size)
        began = set(q.started)
        waits = [r.tenant for r in q.requests if r.request not in began]
        each({tenant: waits.count(tenant) for tenant in WEIGHTS})


@given(MOVES, st.integers(1, 4))
def test_tenants_with_a_backlog_get_shares_by_weight_within_a_request_of_each(moves, slots):
    """Golestani 1994, INFOCOM, pp. 636-646: while f and m are backlogged, |W_f / r_f - W_m / r_m|
    is at most l_f / r_f + l_m / r_m, with packets of length l.
    """
    text = ",".join(f"{t}:{w}" for t, w in WEIGHTS.items())
    q = OneQueue(queueing("weighted-fair", weights=text), slots=slots)
    since = {}

    def each(waiting):
        tenants = q.tenants()
        served = {t: tenants.count(t) / w for t, w in WEIGHTS.items()}
        for f, m in ((0, 1), (0, 2), (1, 2)):
            if waiting[f] and waiting[m]:
                gaps = since.setdefault((f, m), [])
                gaps.append(served[f] - served[m])
                bound = 1 / WEIGHTS[f] + 1 / WEIGHTS[m]
                assert max(gaps) - min(gaps) <= bound + 1e-9
            else:
                since.pop((f, m), None)

    backlogged(q, moves, each)


@given(MOVES)
def test_weighted_fair_equals_the_textbook_with_a_tag_a_request(moves):
    """The twin: every request has a virtual finish of its own from its arrival on."""
    text = ",".join(f"{t}:{w}" for t, w in WEIGHTS.items())
    q = OneQueue(queueing("weighted-fair", weights=text))
    now, last, finish, order = 0.0, {}, {}, []
    for what, tenant, _ in moves:
        if what == "arrive":
            name = q.arrive(tenant=tenant)
            finish[name] = max(now, last.get(tenant, 0.0)) + 1 / WEIGHTS[tenant]
            last[tenant] = finish[name]
        elif q.running:
            q.end()
        if len(q.started) > len(order):
            order.append(min(finish, key=lambda name: (finish[name], name)))
            now = finish.pop(order[-1])
        assert q.started == order


def test_a_tenant_that_was_away_has_no_more_than_its_share():
    q = OneQueue(queueing("weighted-fair"))
    q.arrive(tenant=1)
    for _ in range(20):
        q.arrive(tenant=0)
    for _ in range(10):
        q.end()
    for _ in range(10):
        q.arrive(tenant=1)
    for _ in range(10):
        q.end()
    assert q.tenants()[-10:].count(1) == 5


# -- virtual token counter ---
@given(MOVES, st.integers(1, 4))
def test_the_service_of_two_tenants_with_a_backlog_differs_by_no_more_than_is_proven(moves, slots):
    """Sheng et al. 2024, OSDI, pp. 965-988, section 4, the theorem on backlogged clients.

    |W_f - W_g| over any interval is at most 2 max(w_p L_input, w_q M), M the tokens in a batch.
    """
    policy = queueing("virtual-token-counter")
    q = OneQueue(policy, slots=slots)
    longest = 40
    bound = 2 * max(1 * longest, 2 * slots * (longest + longest))
    served, since = dict.fromkeys(WEIGHTS, 0.0), {}
    known = {"started": policy.started, "ended": policy.ended}

    class Meter:
        arrived, next_request, next_want = policy.arrived, policy.next_request, policy.next_want

        def started(self, request, view):
            served[request.tenant] += request.input_tokens
            known["started"](request, view)

        def ended(self, request, tokens, view):
            served[request.tenant] += 2 * tokens
            known["ended"](request, tokens, view)

    q = OneQueue(Meter(), slots=slots)

    def each(waiting):
        for f, g in ((0, 1), (0, 2), (1, 2)):
            if waiting[f] and waiting[g]:
                gaps = since.setdefault((f, g), [])
                gaps.append(served[f] - served[g])
                assert max(gaps) - min(gaps) <= bound
                between = abs(policy.counter(0, f) - policy.counter(0, g))
                assert between <= bound / 2
            else:
                since.pop((f, g), None)

    backlogged(q, moves, each)


def overload(policy, requests=400):
    """One slot; tenant 0 asks twice as often as tenant 1, both for more than their share."""
    q = OneQueue(policy)
    for i in range(requests):
        q.arrive(tenant=int(i % 3 == 0), input_tokens=10)
        if i % 3 == 2:
            q.end(tokens=5)
    return q.tenants().count(0), q.tenants().count(1)


def test_tenants_that_ask_for_too_much_get_equal_service_and_by_age_they_do_not():
    """Sheng et al. 2024, OSDI, pp. 965-988, the figures of section 5.2, in shape: two overloaded
    clients of unequal rates get equal service under VTC, and service by their rates when first come
    is first served.
    """
    one, two = overload(queueing("virtual-token-counter"))
    assert abs(one - two) <= 1
    one, two = overload(None)
    assert one / two == pytest.approx(2.0, rel=0.05)
    one, two = overload(queueing("virtual-token-counter", weights="0:3"))
    assert one / two == pytest.approx(3.0, rel=0.1)


def test_who_comes_back_is_lifted_and_keeps_no_credit():
    policy = queueing("virtual-token-counter", w_in=1.0, w_out=0.0)
    q = OneQueue(policy)
    q.arrive(tenant=0, input_tokens=10)
    assert policy.counter(0, 0) == 10.0
    # Nobody waits: to the tenant who was the last to leave the queue.
    q.arrive(tenant=1, input_tokens=10)
    assert policy.counter(0, 1) == 10.0
    q.arrive(tenant=0, input_tokens=50)
    q.end()
    q.end()
    assert [policy.counter(0, t) for t in (0, 1)] == [60.0, 20.0]
    # To the least of those who wait, and never down.
    q.arrive(tenant=0, input_tokens=1)
    q.arrive(tenant=2, input_tokens=1)
    assert policy.counter(0, 2) == 60.0
    q.arrive(tenant=1, input_tokens=1)
    assert policy.counter(0, 1) == 60.0


def test_the_lift_is_to_the_least_of_several():
    policy = queueing("virtual-token-counter")
    q = OneQueue(policy, open_=False)
    for tenant, tokens in ((0, 9), (1, 4), (0, 1), (1, 1)):
        q.arrive(tenant=tenant, input_tokens=tokens)
    q.open()
    q.end()
    assert [policy.counter(0, t) for t in (0, 1)] == [9.0, 4.0]
    q.arrive(tenant=2)
    assert policy.counter(0, 2) == 4.0


def test_without_tokens_the_order_is_that_of_age():
    q = OneQueue(queueing("virtual-token-counter"))
    for tenant in (0, 0, 1, 0, 2):
        q.arrive(tenant=tenant)
    q.drain()
    assert q.started == [0, 1, 2, 3, 4]


# -- dominant resource ---
def filled(*asks, weights=""):
    """Let tenants A and B ask for five pods each before the machine is there; return the starts.

    <9 CPU, 18 GB>: nine GPUs are the CPUs, host memory is the memory.
    """
    machine = node("m", gpus=9, host_bytes=18 * GIB)
    rest = {
        "milli_gpu": 1000,
        "hbm_bytes": GIB,
        "device_bytes": GIB,
        "slots": 1,
        "max_replica": 5,
    }
    specs = [
        function("a", tenant="A", gpus=1, host_bytes=4 * GIB, **rest),
        function("b", tenant="B", gpus=3, host_bytes=GIB, **rest),
    ]
    bundle = load_bundle("dominant-resource", {"weights": weights})
    scheduler = Scheduler([machine], specs, bundle, stream(1, "t"))
    for sequence, f in enumerate(asks, 1):
        scheduler.step(0, [LeaseAsked(RouterId(0), FunctionId(f), 5, 0, 0, sequence)])
    step = scheduler.step(1, [NodeJoined(NodeId(0), 0)])
    return "".join("AB"[c.function] for c in step.commands if isinstance(c, Create))


def test_the_example_of_dominant_resource_fairness():
    """Ghodsi et al. 2011, NSDI, pp. 323-336, section 4.1 and table 1: of <9 CPU, 18 GB>, with tasks
    of <1, 4> for A and of <3, 1> for B, A gets three and B two, both with two thirds of their
    dominant resource.
    """
    assert filled(1, 0) == "BAABA"
    assert filled(0, 1) == "ABABA"


def test_weights_divide_the_dominant_shares():
    # A third of B's would be next, and finds no three CPUs.
    assert filled(0, 1, weights="B:4") == "ABBAA"


TENANTS = "xyxz"


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 7), st.booleans()), max_size=16),
    st.permutations(range(4)),
    st.integers(2, 4),
)
def test_dominant_resource_equals_a_loop_over_pods(pods, order, asking):
    c = cluster(
        [
            msgspec.structs.replace(
                small_function(str(f), gib=1 + f, milli=20 * (4 - f), gpus=1 + f % 2),
                tenant=tenant,
                host_bytes=(1 + f * f) * GIB,
            )
            for f, tenant in enumerate(TENANTS)
        ]
    )
    used = {tenant: [0.0, 0.0, 0.0] for tenant in TENANTS}
    for pod, (f, gpu, asleep) in enumerate(pods):
        spec = c.functions[f]
        there = add(c, pod, f, [gpu, gpu ^ 1][: spec.gpus])
        if asleep:
            suspend(c, there)
        held = used[spec.tenant]
        held[0] += 0 if asleep else spec.hbm_bytes * spec.gpus / (8 * 80 * GIB)
        held[1] += 0 if asleep else spec.milli_gpu * spec.gpus / 8_000
        held[2] += there.host_charged / (2 * 512 * GIB)
    naive = {t: max(held) / (2 if t == "y" else 1) for t, held in used.items()}
    policy = queueing("dominant-resource", weights="y:2")
    view = ClusterView(c, snapshots=True)
    assert policy.shares(view).tolist() == pytest.approx([naive[t] for t in "xyz"])
    line = order[:asking]
    first = line[policy.next_want(wants(c, *line), view)]
    least = min(naive[TENANTS[f]] for f in line)
    near = [f for f in line if naive[TENANTS[f]] <= least * (1 + 1e-12)]
    assert first in near
    # Tenants apart, ties are exact: the first in line of a tenant.
    assert first == next(f for f in line if TENANTS[f] == TENANTS[first])


# -- settings ---
@pytest.mark.parametrize("text", ["2", ":2", "a:", "a:0", "a:-1", "a:inf", "a:nan", "a:1,a:2"])
def test_weights_that_cannot_be_read_are_named(text):
    with pytest.raises(ValueError, match="expected TENANT:WEIGHT once, above 0"):
        parse_weights(text)


def test_prices_have_limits():
    with pytest.raises(ValueError, match="w_out is -1; expected 0 to 1e9"):
        counter_bundle(w_out=-1)


def test_the_question_that_a_rule_is_not_about_goes_by_age():
    assert queueing("dominant-resource").next_request([None, None], None) == 0
    for name in ("weighted-fair", "virtual-token-counter"):
        assert queueing(name).next_want([None, None], None) == 0
