"""The physical model against closed forms of queueing theory.

Each case compares a steady-state mean with theory inside a 99 % confidence interval from batch
means: after a warm-up the run is cut into batches long beside its correlation, whose means are
taken as independent. Seeds are fixed, so a case that agrees goes on to agree. Such an interval
misses once in a hundred: after a change of lengths or seeds, judge a miss by a longer run, not by
another seed.

Sources: Kleinrock, Queueing Systems, vol. 1, sections 3.5 and 3.7 (Erlang C and B), and vol. 2,
section 4.4 (processor sharing); Little, Operations Research 9(3), 1961; Law, Simulation Modeling
and Analysis, 5th ed., section 9.5.3 (batch means).
"""

from collections import deque
from math import factorial
from typing import NamedTuple

import numpy as np
import pytest
from scipy.stats import t as student_t

from inferx.core.rng import stream
from inferx.core.units import NS_PER_MS, NS_PER_S
from inferx.sim.clock import SimClock
from inferx.sim.device import Flow, Link
from inferx.sim.serving import GpuMeter, PodServer

BATCHES = 20
SERVICE_MS = 10


class Rates(NamedTuple):
    prefill_tokens_per_s: int = 1
    decode_base_ns: int = 0
    decode_per_request_ns: int = 1_000


def batch_means(values, batches=BATCHES, warm_up=0.1):
    """Return the mean and the half-width of its 99 % interval."""
    kept = np.asarray(values[int(len(values) * warm_up) :], dtype=float)
    means = np.array([batch.mean() for batch in np.array_split(kept, batches)])
    half = student_t.ppf(0.995, batches - 1) * means.std(ddof=1) / batches**0.5
    return means.mean(), half


def assert_agrees(values, expected):
    mean, half = batch_means(values)
    assert abs(mean - expected) <= half, f"{mean:.4f} +- {half:.4f}, expected {expected:.4f}"
    assert half < 0.2 * expected, "an interval that wide tells nothing"


def poisson_ms(name, rate_per_ms, count):
    gaps = stream(7, f"{name}/arrivals").exponential(1 / rate_per_ms, count)
    return np.cumsum(gaps)


def services_ms(name, shape, count):
    rng = stream(7, f"{name}/services")
    match shape:
        case "exponential":
            return rng.exponential(SERVICE_MS, count)
        case "constant":
            return np.full(count, float(SERVICE_MS))
        case "hyperexponential":  # Balanced means, squared coefficient of variation 4.
            p = (1 + (3 / 5) ** 0.5) / 2
            fast = rng.random(count) < p
            means = np.where(fast, SERVICE_MS / (2 * p), SERVICE_MS / (2 * (1 - p)))
            return rng.exponential(1.0, count) * means
        case "erlang-4":
            return rng.gamma(4, SERVICE_MS / 4, count)


def replay(clock, arrivals_ms, arrive):
    """Call `arrive(row)` at each arrival, with one timer ahead."""
    at_ns = [round(float(at) * NS_PER_MS) for at in arrivals_ms]

    def step():
        row = step.row
        step.row = row + 1
        if row + 1 < len(at_ns):
            clock.after(at_ns[row + 1] - at_ns[row], step)
        arrive(row)

    step.row = 0
    clock.after(at_ns[0], step)
    clock.run()
    return at_ns


class OnePod:
    """A pod on one GPU; sojourn times by request, and the integral of requests inside."""

    def __init__(self, count):
        self.clock = SimClock()
        self.meter = GpuMeter()
        self.ended_ns = [0] * count
        self.area_ns = self.last_ns = 0
        self.after_end = lambda _request: None
        self.pod = PodServer(
            self.clock,
            [self.meter],
            Rates(),
            interference=1.0,
            on_first=lambda _request: None,
            on_finished=self._finished,
        )

    def count(self, change):
        now_ns = self.clock.now_ns()
        self.area_ns += (self.pod.inflight - change) * (now_ns - self.last_ns)
        self.last_ns = now_ns

    def admit(self, request, *, tokens=0, duration_ns=0):
        self.pod.admit(request, 0, tokens, duration_ns)
        self.count(+1)

    def _finished(self, request):
        self.count(-1)
        self.ended_ns[request] = self.clock.now_ns()
        self.after_end(request)


@pytest.mark.parametrize("shape", ["exponential", "constant", "hyperexponential", "erlang-4"])
def test_decode_is_processor_sharing_and_insensitive_to_the_distribution(shape):
    """M/G/1-PS: E[T] = E[S] / (1 - rho), whatever the law of S; utilisation rho; Little's law."""
    count, rho = 40_000, 0.6
    arrivals = poisson_ms(shape, rho / SERVICE_MS, count)
    work = [1 + round(ms * NS_PER_MS / 1_000) for ms in services_ms(shape, shape, count)]
    world = OnePod(count)
    at_ns = replay(world.clock, arrivals, lambda row: world.admit(row, tokens=1 + work[row]))
    sojourn_ms = (np.array(world.ended_ns) - at_ns) / NS_PER_MS
    assert_agrees(sojourn_ms, SERVICE_MS / (1 - rho))
    assert world.area_ns == sum(world.ended_ns) - sum(at_ns), "Little's law holds on every path"
    span_ns = world.clock.now_ns()
    busy = world.meter.busy_ns(span_ns) / span_ns
    assert busy == pytest.approx(sum(work) * 1_000 / span_ns, rel=1e-6), "work is conserved"
    assert world.area_ns / span_ns == pytest.approx(rho / (1 - rho), rel=0.1)


def test_processor_sharing_is_fair_to_every_size():
    """M/M/1-PS: a request of size x stays x / (1 - rho) on average."""
    count, rho = 60_000, 0.6
    arrivals = poisson_ms("fair", rho / SERVICE_MS, count)
    work_ms = services_ms("fair", "exponential", count)
    tokens = [2 + round(ms * NS_PER_MS / 1_000) for ms in work_ms]
    world = OnePod(count)
    at_ns = replay(world.clock, arrivals, lambda row: world.admit(row, tokens=tokens[row]))
    slowdown = (np.array(world.ended_ns) - at_ns) / NS_PER_MS / work_ms
    for low, high in ((2, 6), (6, 14), (14, 100)):
        assert_agrees(slowdown[(work_ms > low) & (work_ms < high)], 1 / (1 - rho))


def erlang_b(servers, load):
    terms = [load**k / factorial(k) for k in range(servers + 1)]
    return terms[-1] / sum(terms)


def erlang_c(servers, load):
    blocked = erlang_b(servers, load)
    return blocked / (1 - load / servers * (1 - blocked))


@pytest.mark.parametrize(("slots", "rho"), [(1, 0.6), (4, 0.75), (8, 0.8)])
def test_slots_with_a_queue_wait_as_erlang_c_says(slots, rho):
    """M/M/c: E[W] = C(c, a) E[S] / (c - a), and P(W > 0) = C(c, a)."""
    count, load = 200_000, slots * rho
    arrivals = poisson_ms(f"c{slots}", load / SERVICE_MS, count)
    work_ns = [round(ms * NS_PER_MS) for ms in services_ms(f"c{slots}", "exponential", count)]
    world, queue, begun_ns = OnePod(count), deque(), [0] * count

    def begin(row):
        begun_ns[row] = world.clock.now_ns()
        world.admit(row, duration_ns=work_ns[row])

    def arrive(row):
        if world.pod.inflight < slots:
            begin(row)
        else:
            queue.append(row)

    world.after_end = lambda _row: begin(queue.popleft()) if queue else None
    at_ns = replay(world.clock, arrivals, arrive)
    waited_ms = (np.array(begun_ns) - at_ns) / NS_PER_MS
    assert_agrees(waited_ms, erlang_c(slots, load) * SERVICE_MS / (slots - load))
    assert_agrees(waited_ms > 0, erlang_c(slots, load))
    assert world.area_ns == sum(world.ended_ns) - sum(begun_ns), "Little's law, in the slots"


@pytest.mark.parametrize("shape", ["exponential", "constant"])
def test_slots_without_a_queue_lose_what_erlang_b_says(shape):
    """M/G/c/c: the loss is insensitive to the law of S."""
    count, slots, load = 50_000, 5, 4.0
    arrivals = poisson_ms(f"b{shape}", load / SERVICE_MS, count)
    work = services_ms(f"b{shape}", shape, count)
    world, lost = OnePod(count), np.zeros(count)

    def arrive(row):
        if world.pod.inflight == slots:
            lost[row] = 1
        else:
            world.admit(row, duration_ns=round(work[row] * NS_PER_MS))

    replay(world.clock, arrivals, arrive)
    assert_agrees(lost, erlang_b(slots, load))


def test_prefill_waits_as_pollaczek_and_khinchine_say():
    """M/D/1, first come first served: E[T] = E[S] (1 + rho / (2 (1 - rho)))."""
    count, rho = 40_000, 0.7
    clock, first_ns = SimClock(), [0] * count
    pod = PodServer(
        clock,
        [GpuMeter()],
        Rates(prefill_tokens_per_s=100_000),
        interference=0.0,
        on_first=lambda row: first_ns.__setitem__(row, clock.now_ns()),
        on_finished=lambda _row: None,
    )
    arrivals = poisson_ms("prefill", rho / SERVICE_MS, count)
    at_ns = replay(clock, arrivals, lambda row: pod.admit(row, 1_000, 1, 0))
    sojourn_ms = (np.array(first_ns) - at_ns) / NS_PER_MS
    assert_agrees(sojourn_ms, SERVICE_MS * (1 + rho / (2 * (1 - rho))))


@pytest.mark.parametrize("shape", ["constant", "exponential"])
def test_flows_share_a_link_as_a_processor(shape):
    """M/G/1-PS again: equal shares of a link, and what it moves is what arrived."""
    count, rho, rate = 50_000, 0.5, 10**9
    clock, link, ended_ns = SimClock(), Link("nvme", rate), [0] * count
    sizes = [round(ms * rate / 1_000) for ms in services_ms(f"link{shape}", shape, count)]

    def arrive(row):
        def done(_flow):
            ended_ns[row] = clock.now_ns()

        Flow(clock, (link,), size_bytes=sizes[row], done=done)

    arrivals = poisson_ms(f"link{shape}", rho / SERVICE_MS, count)
    at_ns = replay(clock, arrivals, arrive)
    assert_agrees((np.array(ended_ns) - at_ns) / NS_PER_MS, SERVICE_MS / (1 - rho))
    assert link.moved_bytes == sum(sizes)
    assert clock.now_ns() >= sum(sizes) * NS_PER_S // rate
