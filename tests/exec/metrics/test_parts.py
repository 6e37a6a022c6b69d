"""Histograms against counting, slices against the library's own text, labels that stay few."""

import asyncio
import math
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from inferx.exec.metrics.exposition import exposition
from inferx.exec.metrics.families import OTHER, REASONS_KEPT, Counts, Family
from inferx.exec.metrics.histogram import LATENCY_S, LINEAR_S, QUICK_S, Histogram

BOUNDS = st.sampled_from((LATENCY_S, LINEAR_S, QUICK_S))
SECONDS = st.floats(0, 300, allow_nan=False)


@given(BOUNDS, st.lists(SECONDS | st.sampled_from(LATENCY_S), max_size=60))
def test_a_histogram_counts_what_does_not_exceed_each_bound(
    bounds: tuple[float, ...], values: list[float]
) -> None:
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    told = dict(histogram.cumulated())
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
    told = [name for name, _ in Histogram(LATENCY_S).cumulated(1e3)]
    assert told[:15] == [str(2**k) for k in range(15)]
    assert [name for name, _ in Histogram(LINEAR_S).cumulated()][:4] == ["0", "0.5", "1", "1.5"]


class Pieces:
    def __init__(self, pieces: list[Metric]) -> None:
        self._pieces = pieces

    async def pieces(self) -> AsyncIterator[Metric]:
        for piece in self._pieces:
            yield piece


class Whole(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics


COUNTER = Family("some", "counter", "What it\nsays.", ("one", "two"))
GAUGE = Family("more", "gauge", "Says.", ("one",))
SPREAD = Family("much_seconds", "histogram", "Says.", ("one",))
TEXT = st.text(
    st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs", "Cc")), max_size=8
)


@given(
    st.lists(st.lists(st.tuples(st.tuples(TEXT, TEXT), st.integers(0, 9)), max_size=3), min_size=1),
    st.lists(st.tuples(TEXT, st.lists(SECONDS, max_size=3)), max_size=4),
)
def test_pieces_are_written_as_the_library_writes_the_whole(
    pieces: list[list[tuple[tuple[str, str], int]]], spread: list[tuple[str, list[float]]]
) -> None:
    histograms: list[tuple[tuple[str, ...], Histogram]] = []
    for label, values in spread:
        histogram = Histogram(QUICK_S)
        for value in values:
            histogram.observe(value)
        histograms.append(((label,), histogram))
    whole = [
        COUNTER.of(one for piece in pieces for one in piece),
        GAUGE.of(),
        SPREAD.spread(histograms),
    ]
    sliced = [
        *(COUNTER.of(piece) for piece in pieces),
        GAUGE.of(),
        SPREAD.spread(),
        *(SPREAD.spread((one,)) for one in histograms),
    ]
    text = asyncio.run(exposition([Pieces(sliced[:2]), Pieces(sliced[2:])]))
    assert text == generate_latest(Whole(whole))
    told = list(text_string_to_metric_families(text.decode()))
    assert [one.name for one in told] == ["some", "more", "much_seconds"]


def test_others_have_their_turn_while_a_long_page_is_written() -> None:
    histograms = [((str(number),), Histogram(LATENCY_S)) for number in range(2_000)]
    source = Pieces([SPREAD.spread((one,)) for one in histograms])

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

    # A page of 40,000 lines takes longer than a hundred slices on any machine.
    assert asyncio.run(main()) > 20


def test_what_a_policy_makes_up_cannot_make_labels_without_end() -> None:
    counts = Counts()
    for number in range(10 * REASONS_KEPT):
        counts.add(f"reason {number}")
        counts.add("reason 0")
    assert len(counts) == REASONS_KEPT + 1
    assert counts[OTHER] == 9 * REASONS_KEPT
    assert counts["reason 0"] == 10 * REASONS_KEPT + 1
