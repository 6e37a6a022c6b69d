"""Metrics as they are declared: name, type, labels, and what they say."""

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric

from inferx.exec.metrics.histogram import Histogram

__all__ = ["OTHER", "REASONS_KEPT", "Counts", "Family", "Kind"]

Kind = Literal["counter", "gauge", "histogram"]

OTHER: Final = "other"
"""Stands for what a label has no room for."""
REASONS_KEPT: Final = 64
"""Values of a label that a policy may make up."""


class Family(NamedTuple):
    """One metric.

    Attributes:
        name: Without the `_total` that a counter ends in when it is read.
        says: Its help, in a line.
    """

    name: str
    kind: Kind
    says: str
    labels: tuple[str, ...] = ()

    def of(self, values: Iterable[tuple[tuple[str, ...], float]] = ()) -> Metric:
        """Return a counter or gauge with some values by label values; pieces may follow pieces."""
        make = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        assert self.kind != "histogram", f"{self.name} is a histogram"
        metric = make(self.name, self.says, labels=self.labels)
        for labels, value in values:
            metric.add_metric(labels, value)
        return metric

    def one(self, value: float) -> Metric:
        """Return a counter or gauge without labels."""
        return self.of((((), value),))

    def spread(self, values: Iterable[tuple[tuple[str, ...], Histogram]] = ()) -> Metric:
        """Return a histogram by label values."""
        assert self.kind == "histogram", f"{self.name} is no histogram"
        metric = HistogramMetricFamily(self.name, self.says, labels=self.labels)
        for labels, histogram in values:
            metric.add_metric(labels, histogram.cumulated(), histogram.sum)
        return metric


class Counts(dict[str, int]):
    """Counts by a text that is mostly of a closed set; what makes the set too large is `OTHER`."""

    def add(self, key: str, by: int = 1) -> None:
        """Count."""
        if key not in self and len(self) >= REASONS_KEPT:
            key = OTHER
        self[key] = self.get(key, 0) + by

    def by_label(self, *before: str) -> Iterable[tuple[tuple[str, ...], float]]:
        """Yield the counts with their labels' values, `before` first."""
        return [((*before, key), value) for key, value in sorted(self.items())]
