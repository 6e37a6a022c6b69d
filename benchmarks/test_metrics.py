"""What counting costs a request of the gateway, beside the library's own counters."""

import time

from prometheus_client import CollectorRegistry, Counter, Histogram

from inferx.exec.metrics.gateway import GatewayCounts
from inferx.exec.metrics.histogram import LATENCY_S

NAME = ("public", "demo", "one")


class Answer:
    """What of a client's answer is read."""

    __slots__ = ("body_bytes", "counted", "status")

    def __init__(self) -> None:
        self.status = 200
        self.body_bytes = 300


def test_counting_a_request(benchmark) -> None:
    """Budget: 2 % of a request, which takes some 45 µs."""
    counts = GatewayCounts()
    counts.add(NAME)
    client = Answer()

    def count() -> None:
        # As `Proxy.serve` and `Exchange` do.
        counts.methods[b"POST"] += 1
        client.counted = counts.unnamed
        function = counts.function(NAME)
        client.counted = function.codes
        start = function.starts[False]
        start.connected(0.0004)
        start.first(0.012)
        start.whole(time.monotonic() - 1.0)
        counts.body_bytes_in += 120
        counts.body_bytes_out += client.body_bytes
        client.counted[client.status or 499] += 1

    benchmark(count)
    assert function_total(counts) > 0


def function_total(counts: GatewayCounts) -> int:
    return sum(one.starts[0].calls for one in counts.all())


def test_the_librarys_own_counters(benchmark) -> None:
    """The floor that was refused."""
    registry = CollectorRegistry()
    labels = ("tenant", "namespace", "funcname")
    calls = Counter("calls", "Calls.", (*labels, "status"), registry=registry)
    methods = Counter("methods", "Methods.", ("method",), registry=registry)
    bytes_in = Counter("bytes_in", "Bytes.", registry=registry)
    bytes_out = Counter("bytes_out", "Bytes.", registry=registry)
    histograms = [
        Histogram(name, "Seconds.", ("start",), buckets=LATENCY_S, registry=registry)
        for name in ("wait", "ttft", "latency")
    ]

    def count() -> None:
        methods.labels("POST").inc()
        calls.labels(*NAME, "200").inc()
        bytes_in.inc(120)
        bytes_out.inc(300)
        for histogram, value in zip(histograms, (0.0004, 0.012, 1.0), strict=True):
            histogram.labels("warm").observe(value)

    benchmark(count)
