"""What every service tells: its process, Python, its version, and how late its event loop is."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import Metric

from inferx import __version__
from inferx.exec.metrics.families import Family, Piece
from inferx.exec.metrics.histogram import QUICK_S, Histogram

__all__ = ["FAMILIES", "ProcessSource"]

LOOK_S: Final = 0.25
"""How often the loop's lateness is looked at."""

BUILD: Final = Family(
    "inferx_build_info",
    "gauge",
    "1; which version runs, as what.",
    ("version", "component", "policy"),
)
LAG: Final = Family(
    "inferx_event_loop_lag_seconds",
    "histogram",
    "How much later than asked for the event loop woke a sleeper, four times a second.",
)
FAMILIES: Final = (BUILD, LAG)


class ProcessSource:
    """One process's.

    Args:
        service: What it runs.
        policy: Name of its policy bundle; empty where it has none.
    """

    def __init__(self, service: str, policy: str = "") -> None:
        self._labels = (__version__, service, policy)
        self._lag = Histogram(QUICK_S)
        # The library's own, with its own names; not in its global registry, which tests share.
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    async def run(self) -> None:
        """Look at the loop until cancelled."""
        now_s = asyncio.get_running_loop().time
        while True:
            due_s = now_s() + LOOK_S
            await asyncio.sleep(LOOK_S)
            self._lag.observe(max(0.0, now_s() - due_s))

    async def pieces(self) -> AsyncIterator[Piece | Metric]:
        """See `MetricSource`."""
        yield BUILD.of(((self._labels, 1),))
        yield LAG.spread((((), self._lag),))
        for metric in self._registry.collect():
            yield metric
