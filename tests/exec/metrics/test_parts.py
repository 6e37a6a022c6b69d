"""Histograms against counting, slices against the library's own text, labels that stay few."""

import asyncio
import itertools
import math
import re
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from inferx.exec.metrics import exposition as module
from inferx.exec.metrics.exposition import exposition
from inferx.exec.metrics.families import OTHER, REASONS_KEPT, Counts, Family, Piece
from inferx.exec.metrics.histogram import LATENCY_S, LINEAR_S, QUICK_S, Histogram

COUNTER = Family("some", "counter", "What it\nsays.", ("one", "two"))
GAUGE = Family("more", "gauge", "Says.", ("one",))
SPREAD = Family("much_seconds", "histogram", "Says.", ("one",))
BOUNDS = st.sampled_from((LATENCY_S, LINEAR_S, QUICK_S))
SECONDS = st.floats(0, 300, allow_nan=False)
NUMBERS = st.integers(0, 1 << 53) | st.floats(0, 1e18)


TEXT = st.text(
    st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs", "Cc")), max_size=8
)


class Pieces:
    def __init__(self, pieces: list[Piece | Metric]) -> None:
        self._pieces = pieces

    async def pieces(self) -> AsyncIterator[Piece | Metric]:
        for piece in self._pieces:
            yield piece


def written(*pieces: Piece | Metric) -> str:
    return asyncio.run(exposition([Pieces(list(pieces))])).decode()


class Whole(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics


@given(BOUNDS, st.lists(SECONDS | st.sampled_from(LATENCY_S), max_size=60))
def test_a_histogram_counts_what_does_not_exceed_each_bound(
    bounds: tuple[float, ...], values: list[float]
) -> None:
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    [family] = text_string_to_metric_families(written(SPREAD.spread(((("",), histogram),))))
    told = {one.labels["le"]: one.value for one in family.samples if "le" in one.labels}
    assert list(told)[-1] == "+Inf"
    for bound in (*bounds, math.inf):
        name = "+Inf" if bound == math.inf else f"{bound:.12g}"
        assert told[name] == sum(value <= bound for value in values)
    assert histogram.sum == pytest.approx(math.fsum(values))


@given(st.lists(SECONDS, max_size=20), st.lists(SECONDS, max_size=20))
def test_histograms_add_up(some: list[float], more: list[float]) -> None:
    one, other, both = Histogram(LATENCY_S), Histogram(LATENCY_S), Histogram(LATENCY_S)
    for histogram, values in ((one, some), (other, more), (both, some + more)):
        for value in values:
            histogram.observe(value)
    one.add(other)
    assert one.counts == both.counts
    assert one.sum == pytest.approx(both.sum)


def test_buckets_in_another_unit_keep_the_references_bounds() -> None:
    piece = SPREAD.spread(((("",), Histogram(LATENCY_S)),), scale=1e3)
    assert re.findall(r'le="([^"]*)"', piece.lines)[:15] == [str(2**k) for k in range(15)]
    piece = SPREAD.spread(((("",), Histogram(LINEAR_S)),))
    assert re.findall(r'le="([^"]*)"', piece.lines)[:4] == ["0", "0.5", "1", "1.5"]


@given(
    st.lists(st.lists(st.tuples(st.tuples(TEXT, TEXT), NUMBERS), max_size=3), min_size=1),
    st.lists(st.tuples(TEXT, st.lists(SECONDS, max_size=3)), max_size=4),
)
def test_pieces_are_read_as_what_the_library_writes_of_the_whole(
    pieces: list[list[tuple[tuple[str, str], float]]], spread: list[tuple[str, list[float]]]
) -> None:
    histograms: list[tuple[tuple[str, ...], Histogram]] = []
    theirs = HistogramMetricFamily(SPREAD.name, SPREAD.says, labels=SPREAD.labels)
    for label, values in spread:
        histogram = Histogram(QUICK_S)
        for value in values:
            histogram.observe(value)
        histograms.append(((label,), histogram))
        bounds = [*(f"{bound:.12g}" for bound in QUICK_S), "+Inf"]
        buckets = list(zip(bounds, itertools.accumulate(histogram.counts), strict=True))
        theirs.add_metric((label,), buckets, histogram.sum)
    counter = CounterMetricFamily(COUNTER.name, COUNTER.says, labels=COUNTER.labels)
    for labels, value in itertools.chain(*pieces):
        counter.add_metric(labels, value)
    gauge = GaugeMetricFamily(GAUGE.name, GAUGE.says, labels=GAUGE.labels)
    text = written(
        *(COUNTER.of(piece) for piece in pieces),
        GAUGE.of(),
        gauge,
        *(SPREAD.spread((one,)) for one in histograms or ()),
        SPREAD.spread(),
    )
    whole = generate_latest(Whole([counter, gauge, gauge, theirs])).decode()
    assert comments(text) == comments(whole)
    assert list(text_string_to_metric_families(text)) == list(text_string_to_metric_families(whole))


def comments(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("#")]


def test_others_have_their_turn_while_a_long_page_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SLICE_S", 0.0)
    source = Pieces([GAUGE.of((((str(number),), 1),)) for number in range(100)])

    async def main() -> int:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.create_task(count())
        await exposition([source])
        counting.cancel()
        return turns

    assert asyncio.run(main()) >= 99


def test_what_a_policy_makes_up_cannot_make_labels_without_end() -> None:
    counts = Counts()
    for number in range(10 * REASONS_KEPT):
        counts.add(f"reason {number}")
        counts.add("reason 0")
    assert len(counts) == REASONS_KEPT + 1
    assert counts[OTHER] == 9 * REASONS_KEPT
    assert counts["reason 0"] == 10 * REASONS_KEPT + 1
