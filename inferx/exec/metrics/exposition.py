"""From pieces of metrics to Prometheus' text, a slice at a time: others have their turn between."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import Final, Protocol

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from inferx.exec.metrics.families import Piece

__all__ = ["CONTENT_TYPE", "MetricSource", "exposition"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
SLICE_S: Final = 0.001


class MetricSource(Protocol):
    """Part of what a service tells."""

    def pieces(self) -> AsyncIterator[Piece | Metric]:
        """Yield lines of our families, and metrics that are the library's own."""
        ...


class _One(Collector):
    """What the library takes for a registry."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return (self._metric,)


async def exposition(sources: Iterable[MetricSource]) -> bytes:
    """Return all that sources tell, as text."""
    parts: list[bytes] = []
    name = ""
    began_s = time.monotonic()
    for source in sources:
        async for piece in source.pieces():
            if isinstance(piece, Metric):
                parts.append(generate_latest(_One(piece)))
            else:
                if piece.family.name != name:
                    name = piece.family.name
                    parts.append(piece.family.head().encode())
                parts.append(piece.lines.encode())
            if time.monotonic() - began_s >= SLICE_S:
                await asyncio.sleep(0)
                began_s = time.monotonic()
    return b"".join(parts)
