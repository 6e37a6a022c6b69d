"""From pieces of metrics to Prometheus' text: the library writes it, a slice at a time.

Writing all of a thousand functions at once would hold the event loop for a third of a second; here
others have their turn every millisecond.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import Final, Protocol

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

__all__ = ["CONTENT_TYPE", "MetricSource", "exposition"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
SLICE_S: Final = 0.001


class MetricSource(Protocol):
    """Part of what a service tells."""

    def pieces(self) -> AsyncIterator[Metric]:
        """Yield metrics; one with the name of the one before goes on with it."""
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
            text = generate_latest(_One(piece))
            if piece.name == name:
                # Help and type stand once, before the first piece.
                text = text.split(b"\n", 2)[2]
            name = piece.name
            parts.append(text)
            if time.monotonic() - began_s >= SLICE_S:
                await asyncio.sleep(0)
                began_s = time.monotonic()
    return b"".join(parts)
