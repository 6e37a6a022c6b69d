"""A pod's requests end when the model says, alone, together, and beside busy neighbours."""

from fractions import Fraction
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inferx.core.units import NS_PER_S
from inferx.sim.clock import SimClock
from inferx.sim.serving import GpuMeter, PodServer


class Rates(NamedTuple):
    prefill_tokens_per_s: int = 1_000_000
    decode_base_ns: int = 1000
    decode_per_request_ns: int = 100


class World:
    """Pods on GPUs; remembers first tokens and ends."""

    def __init__(self, pods, gpus=1, rates=Rates()):  # noqa: B008
        """`pods` are pairs of GPU rows and interference."""
        self.clock = SimClock()
        self.first, self.ended = {}, {}
        self.meters = [GpuMeter() for _ in range(gpus)]
        self.pods = [
            PodServer(
                self.clock,
                [self.meters[row] for row in rows],
                rates,
                interference=interference,
                on_first=lambda request: self.first.__setitem__(request, self.clock.now_ns()),
                on_finished=lambda request: self.ended.__setitem__(request, self.clock.now_ns()),
            )
            for rows, interference in pods
        ]

    def at(self, at_ns, call):
        self.clock.after(at_ns, call)

    def admit(self, at_ns, pod, request, *, prompt=0, output=0, duration=0):
        self.at(at_ns, lambda: self.pods[pod].admit(request, prompt, output, duration))


def alone(interference=1.0):
    return World([((0,), interference)])


def test_a_plain_request_takes_its_duration_whatever_else_is_in_its_pod():
    world = alone()
    world.admit(0, 0, 1, duration=500)
    world.admit(100, 0, 2, duration=100)
    world.admit(100, 0, 3, prompt=10, output=4)
    world.clock.run()
    assert (world.ended[1], world.ended[2]) == (500, 200)
    assert world.first.keys() == {3}


def test_a_token_request_alone_takes_prefill_and_its_further_tokens():
    world = alone()
    world.admit(0, 0, 1, prompt=7, output=11)
    world.clock.run()
    assert world.first == {1: 7_000}
    assert world.ended == {1: 7_000 + 10 * 1100}


def test_a_request_of_one_token_ends_with_its_first():
    world = alone()
    world.admit(0, 0, 1, prompt=7, output=1)
    world.clock.run()
    assert world.first == world.ended == {1: 7_000}


def test_prefill_is_first_come_first_served_and_does_not_stop_decode():
    world = alone()
    world.admit(0, 0, 1, prompt=10, output=11)
    world.admit(0, 0, 2, prompt=10, output=1)
    world.admit(1, 0, 3, prompt=5, output=1)
    world.clock.run()
    assert world.first == {1: 10_000, 2: 20_000, 3: 25_000}
    assert world.ended[1] == 10_000 + 10 * 1100


def test_decoding_together_slows_each_by_the_batch():
    world = alone()
    world.admit(0, 0, 1, output=101)
    world.admit(0, 0, 2, output=51)
    world.clock.run()
    assert world.ended == {2: 50 * 1200, 1: 50 * 1200 + 50 * 1100}


def test_requests_that_end_together_end_in_the_order_of_their_numbers():
    world = alone()
    for request in (5, 2, 9):
        world.admit(0, 0, request, duration=70)
    world.clock.run()
    assert list(world.ended) == [2, 5, 9]


def test_a_busy_neighbour_halves_time_slices_and_only_while_it_is_busy():
    world = World([((0,), 1.0), ((0,), 1.0)])
    world.admit(0, 0, 1, duration=1000)
    world.admit(400, 1, 2, duration=100)
    world.clock.run()
    assert world.ended == {2: 600, 1: 1100}


def test_interference_is_the_slowed_pods_own():
    world = World([((0,), 0.0), ((0,), 0.3)])
    world.admit(0, 0, 1, duration=1000)
    world.admit(0, 1, 2, duration=100)
    world.clock.run()
    assert world.ended == {1: 1000, 2: 130}


def test_a_pod_on_several_gpus_goes_as_fast_as_the_slowest():
    world = World([((0, 1), 1.0), ((1,), 1.0), ((1,), 1.0), ((0,), 1.0)], gpus=2)
    world.admit(0, 0, 1, duration=1000)
    world.admit(100, 3, 2, duration=100)
    world.admit(200, 1, 3, duration=1000)
    world.admit(200, 2, 4, duration=1000)
    world.clock.run()
    assert world.ended[1] == 200 + 850 * 3
    assert world.ended[2] == 300


def test_a_pod_that_was_slowed_is_fast_again_after_it_was_idle():
    world = World([((0,), 1.0), ((0,), 1.0)])
    world.admit(0, 0, 1, duration=100)
    world.admit(0, 1, 2, duration=1000)
    world.admit(2000, 0, 3, duration=100)
    world.admit(2000, 0, 4, prompt=1, output=2)
    world.clock.run()
    assert world.ended[1] == 200
    assert world.ended[3] == 2100
    assert world.ended[4] == 2000 + 1000 + 1100


def test_prefill_is_rescaled_when_a_neighbour_comes_and_goes():
    world = World([((0,), 1.0), ((0,), 1.0)])
    world.admit(0, 0, 1, prompt=10, output=1)
    world.admit(4_000, 1, 2, duration=1_000)
    world.clock.run()
    assert world.ended == {2: 6_000, 1: 11_000}


def test_the_meter_counts_time_with_work_once():
    world = World([((0,), 0.0), ((0,), 0.0)])
    world.admit(100, 0, 1, duration=100)
    world.admit(150, 1, 2, duration=100)
    world.admit(400, 0, 3, duration=50)
    seen = []
    world.at(425, lambda: seen.append((world.meters[0].busy_pods, world.meters[0].busy_ns(425))))
    world.clock.run()
    assert seen == [(1, 175)]
    assert world.meters[0].busy_ns(world.clock.now_ns()) == 200
    assert world.meters[0].busy_pods == 0


def test_aborting_returns_everything_inside_and_calls_nobody():
    world = World([((0,), 1.0), ((0,), 1.0)])
    world.admit(0, 0, 9, duration=10_000)
    world.admit(0, 0, 3, prompt=0, output=100)
    world.admit(1, 0, 7, prompt=50, output=100)
    world.admit(2, 0, 5, prompt=50, output=100)
    world.admit(0, 1, 1, duration=1_000)
    dropped = []
    world.at(500, lambda: dropped.extend(world.pods[0].abort_all()))
    world.clock.run()
    assert dropped == [3, 5, 7, 9]
    assert world.ended == {1: 1250}, "its neighbour is gone"
    assert (world.pods[0].inflight, world.pods[0].abort_all()) == (0, [])
    assert world.meters[0].busy_ns(world.clock.now_ns()) == 1250


def test_stale_timers_of_what_was_aborted_end_nothing():
    world = alone()
    world.admit(0, 0, 1, duration=100)
    world.admit(0, 0, 2, prompt=1, output=5)
    world.at(50, world.pods[0].abort_all)
    world.admit(60, 0, 3, duration=100)
    world.admit(60, 0, 4, prompt=2, output=1)
    world.clock.run()
    assert world.ended == {3: 160, 4: 2_060}


def test_the_end_of_a_request_may_admit_the_next_or_abort_the_pod():
    world = alone()
    pod = world.pods[0]

    def follow(request):
        world.ended[request] = world.clock.now_ns()
        if request == 1:
            pod.admit(2, 0, 0, 50)
            pod.admit(3, 0, 0, 70)
        if request == 2:
            assert pod.abort_all() == [3]

    pod._on_finished = follow
    world.admit(0, 0, 1, duration=100)
    world.clock.run()
    assert world.ended == {1: 100, 2: 150}
    assert world.meters[0].busy_ns(world.clock.now_ns()) == 150


def test_a_lone_request_costs_two_timers():
    world = alone()
    world.pods[0].admit(1, 10, 10, 0)
    world.clock.run()
    assert next(world.clock._ids) == 2


def naive(pods, rates, arrivals):
    """Step from change to change with exact fractions and full rescans."""
    time, first, ended = Fraction(0), {}, {}
    arrivals = sorted(arrivals, key=lambda a: a[0])
    prefill = [[] for _ in pods]
    decode, lanes = [{} for _ in pods], [{} for _ in pods]
    while True:
        busy = [bool(prefill[p] or decode[p] or lanes[p]) for p in range(len(pods))]
        ends = [(Fraction(arrivals[0][0]) - time, None, None, None)] if arrivals else []
        spans = []
        for p, (rows, interference) in enumerate(pods):
            beside = max(
                sum(busy[q] and row in pods[q][0] for q in range(len(pods)) if q != p)
                for row in rows
            )
            slow = 1 + Fraction(interference) * beside
            cost = (rates.decode_base_ns + rates.decode_per_request_ns * len(decode[p])) * slow
            spans.append((slow, cost))
            if prefill[p]:
                ends.append((prefill[p][0][1] * slow, p, "prefill", prefill[p][0][0]))
            ends += [(left * cost, p, "decode", r) for r, left in decode[p].items()]
            ends += [(left * slow, p, "lane", r) for r, left in lanes[p].items()]
        if not ends:
            return first, ended
        step, pod, what, request = min(ends, key=lambda e: (e[0], e[3] is not None, e[3] or 0))
        time += step
        for p, (slow, cost) in enumerate(spans):
            if prefill[p]:
                prefill[p][0][1] -= step / slow
            for r in decode[p]:
                decode[p][r] -= step / cost
            for r in lanes[p]:
                lanes[p][r] -= step / slow
        if what is None:
            _, pod, request, prompt, output, duration = arrivals.pop(0)
            if output:
                work = Fraction(prompt * NS_PER_S, rates.prefill_tokens_per_s)
                prefill[pod].append([request, work, output])
            else:
                lanes[pod][request] = Fraction(duration)
        elif what == "prefill":
            _, _, output = prefill[pod].pop(0)
            first[request] = time
            if output > 1:
                decode[pod][request] = Fraction(output - 1)
            else:
                ended[request] = time
        else:
            del (decode if what == "decode" else lanes)[pod][request]
            ended[request] = time


ARRIVALS = st.lists(
    st.tuples(
        st.integers(0, 400_000),
        st.integers(0, 3),
        st.integers(0, 100),
        st.integers(0, 60),
        st.integers(1, 100_000),
    ),
    max_size=25,
)


@given(ARRIVALS)
@example([(0, 0, 5, 10, 1), (0, 1, 5, 10, 1), (0, 2, 0, 0, 9), (20_000, 0, 50, 2, 1)])
@settings(max_examples=80, deadline=None)
def test_virtual_time_agrees_with_a_naive_rescan(drawn):
    pods = [((0,), 1.0), ((0, 1), 0.5), ((1,), 0.0), ((1,), 1.0)]
    rates = Rates()
    arrivals = [(at, pod, row, *rest) for row, (at, pod, *rest) in enumerate(drawn)]
    first, ended = naive(pods, rates, arrivals)
    world = World(pods, gpus=2, rates=rates)
    for at, pod, request, prompt, output, duration in arrivals:
        world.admit(at, pod, request, prompt=prompt, output=output, duration=duration)
    world.clock.run()
    assert world.first.keys() == first.keys()
    assert world.ended.keys() == ended.keys() == set(range(len(arrivals)))
    for ours, oracle in ((world.first, first), (world.ended, ended)):
        for request, at in oracle.items():
            assert ours[request] == pytest.approx(float(at), abs=50), request
    assert all(pod.inflight == 0 for pod in world.pods)
    assert all(meter.busy_pods == 0 for meter in world.meters)
