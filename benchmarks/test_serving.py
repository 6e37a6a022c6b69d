"""What serving costs beside its floor: two bare SimPy timeouts a request.

Run: `pytest benchmarks/test_serving.py -s`. No absolute time is asserted; the printed ratio is of
the least of interleaved repeats, both sides measured in one process.
"""

import gc
from time import perf_counter_ns
from typing import NamedTuple

import pytest
import simpy

from inferx.sim.clock import SimClock
from inferx.sim.device import Flow, Link
from inferx.sim.serving import GpuMeter, PodServer

REQUESTS = 20_000
REPEATS = 5


class Rates(NamedTuple):
    prefill_tokens_per_s: int = 20_000
    decode_base_ns: int = 10_000_000
    decode_per_request_ns: int = 300_000


def floor():
    """Two timeouts a request, one after the other."""
    env = simpy.Environment()
    left = 2 * REQUESTS

    def fire(_event):
        nonlocal left
        left -= 1
        if left > 0:
            env.timeout(10).callbacks.append(fire)

    env.timeout(10).callbacks.append(fire)
    env.run()


def serve(concurrency, *, pods=1, interference=1.0, output_tokens=120):
    """Serve closed loops of `concurrency` requests on pods that share one GPU."""
    clock, meter, left = SimClock(), GpuMeter(), REQUESTS

    def start():
        def finished(request):
            nonlocal left
            left -= 1
            if left > 0:
                pod.admit(request + concurrency, 500, output_tokens, 10**9)

        pod = PodServer(
            clock,
            [meter],
            Rates(),
            interference=interference,
            on_first=lambda _request: None,
            on_finished=finished,
        )
        for request in range(concurrency):
            pod.admit(request, 500 + request, output_tokens, 10**9 + request)

    for _ in range(pods):
        start()
    clock.run()


def flows(concurrency):
    """Closed loops of transfers over one link."""
    clock, link, left = SimClock(), Link("nvme", 10**10), REQUESTS // 10

    def land(flow):
        nonlocal left
        left -= 1
        if left > 0:
            Flow(clock, (link,), size_bytes=flow.size_bytes, done=land)

    for row in range(concurrency):
        Flow(clock, (link,), size_bytes=10**9 + row * 10**8, done=land)
    clock.run()


CASES = {
    "tokens, 1 inside": lambda: serve(1),
    "tokens, 4 inside": lambda: serve(4),
    "tokens, 32 inside": lambda: serve(32),
    "tokens, 2 pods x 4, time-sliced": lambda: serve(4, pods=2),
    "plain, 1 inside": lambda: serve(1, output_tokens=0),
    "plain, 8 inside": lambda: serve(8, output_tokens=0),
}


@pytest.mark.benchmark(group="serving")
@pytest.mark.parametrize("case", ["floor: two bare timeouts", *CASES])
def test_serving(benchmark, case):
    benchmark.pedantic(CASES.get(case, floor), rounds=REPEATS, warmup_rounds=1)


@pytest.mark.benchmark(group="links")
@pytest.mark.parametrize("concurrency", [1, 8, 64])
def test_links(benchmark, concurrency):
    benchmark.pedantic(flows, args=(concurrency,), rounds=3, warmup_rounds=1)


def test_ratio_to_the_floor(capsys):
    best = {}
    gc.collect()
    gc.disable()
    try:
        for _ in range(REPEATS):
            for name, call in {"floor": floor, **CASES}.items():
                began_ns = perf_counter_ns()
                call()
                taken_ns = perf_counter_ns() - began_ns
                best[name] = min(best.get(name, taken_ns), taken_ns)
    finally:
        gc.enable()
    with capsys.disabled():
        print()
        for name, taken_ns in best.items():
            us = taken_ns / REQUESTS / 1000
            print(f"{name:32} {us:6.2f} us/request {taken_ns / best['floor']:6.2f} x floor")
    assert best["floor"] > 0
