"""Metrics as they are declared, and their lines of Prometheus' text.

Lines are written here and not by the library, which takes twelve times as long: a gateway of a
thousand functions has 70,000. The tests hold them to what the library writes and reads.
"""

from collections.abc import Iterable
from functools import cache
from typing import Final, Literal, NamedTuple

from inferx.exec.metrics.histogram import Histogram

__all__ = ["OTHER", "REASONS_KEPT", "Counts", "Family", "Kind", "Piece"]

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]
"""A sample's values of its family's labels, in their order."""

OTHER: Final = "other"
"""Stands for what a label has no room for."""
REASONS_KEPT: Final = 64
"""Values of a label that a policy may make up."""


class Piece(NamedTuple):
    """Some lines of a family's; pieces of one family that follow each other are one."""

    family: "Family"
    lines: str


class Family(NamedTuple):
    """One metric.

    Attributes:
        name: Without the `_total` that a counter ends in when it is read.
        says: Its help, in a line.
    """

    name: str
    kind: Kind
    says: str
    labels: Labels = ()

    @property
    def told(self) -> str:
        """The name as it is read."""
        return f"{self.name}_total" if self.kind == "counter" else self.name

    def head(self) -> str:
        """Return the lines that come first."""
        says = self.says.replace("\\", r"\\").replace("\n", r"\n")
        return f"# HELP {self.told} {says}\n# TYPE {self.told} {self.kind}\n"

    def of(self, values: Iterable[tuple[Labels, float]] = ()) -> Piece:
        """Return values of a counter or gauge."""
        assert self.kind != "histogram", f"{self.name} is a histogram"
        name = self.told
        lines = [f"{name}{self._labelled(labels)} {value:.17g}\n" for labels, value in values]
        return Piece(self, "".join(lines))

    def one(self, value: float) -> Piece:
        """Return the value of a counter or gauge without labels."""
        return self.of((((), value),))

    def spread(
        self, values: Iterable[tuple[Labels, Histogram]] = (), *, scale: float = 1.0
    ) -> Piece:
        """Return histograms, with their bounds and sums times `scale`."""
        assert self.kind == "histogram", f"{self.name} is no histogram"
        lines: list[str] = []
        for labels, histogram in values:
            braced = self._labelled(labels)
            before = f"{self.name}_bucket{braced[:-1]}," if braced else f"{self.name}_bucket{{"
            so_far = 0
            for bound, count in zip(
                _bounds(histogram.bounds, scale), histogram.counts, strict=True
            ):
                so_far += count
                lines.append(f'{before}le="{bound}"}} {so_far}\n')
            lines.append(f"{self.name}_count{braced} {so_far}\n")
            lines.append(f"{self.name}_sum{braced} {histogram.sum * scale:.17g}\n")
        return Piece(self, "".join(lines))

    def _labelled(self, values: Labels) -> str:
        if not values:
            assert not self.labels, f"{self.name} has labels"
            return ""
        pairs = zip(self.labels, values, strict=True)
        return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


@cache
def _bounds(bounds: tuple[float, ...], scale: float) -> tuple[str, ...]:
    return (*(f"{bound * scale:.12g}" for bound in bounds), "+Inf")


class Counts(dict[str, int]):
    """Counts by a text that is mostly of a closed set; what makes the set too large is `OTHER`."""

    def add(self, key: str, by: int = 1) -> None:
        """Count."""
        if key not in self and len(self) >= REASONS_KEPT:
            key = OTHER
        self[key] = self.get(key, 0) + by

    def by_label(self, *before: str) -> list[tuple[Labels, float]]:
        """Return the counts with their labels' values, `before` first."""
        return [((*before, key), value) for key, value in sorted(self.items())]
