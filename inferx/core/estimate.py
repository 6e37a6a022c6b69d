"""What the kernel learns from events: arrival rates and start-up times. Policies see nothing else.

Start-up time is affine in bytes for each way of starting and each group of nodes; the prior is
the node's declared bandwidth, and every observed start moves it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from inferx.core.types import F64, I64, FunctionSpec, NodeSpec, Tier
from inferx.core.units import GIB, NS_PER_S

__all__ = ["ArrivalEstimate", "StartEstimate", "moved_bytes"]

_GAP_MEMORY = 0.8
"""Weight that the past keeps when one arrival is learned."""


class ArrivalEstimate:
    """Arrival rate of each function: the reciprocal of an exponentially weighted gap.

    A function that falls silent fades: its gap is never shorter than the present silence.
    """

    __slots__ = ("_gap_ns", "_last_ns", "_rates", "_rates_ns", "_seen")

    def __init__(self, functions: int = 0) -> None:
        self._gap_ns: F64 = np.full(functions, np.inf)
        self._last_ns: I64 = np.zeros(functions, np.int64)
        self._seen: I64 = np.zeros(functions, np.int64)
        self._rates: F64 = np.zeros(0)
        self._rates_ns = -1
        """When the rates were asked for; below 0 if something was learned since."""

    def grow(self, more: int) -> None:
        """Take in functions that were never asked for."""
        self._rates_ns = -1
        self._gap_ns = np.append(self._gap_ns, np.full(more, np.inf))
        self._last_ns = np.append(self._last_ns, np.zeros(more, np.int64))
        self._seen = np.append(self._seen, np.zeros(more, np.int64))

    def learn(self, function: int, arrivals: int, now_ns: int, *, within_ns: int) -> None:
        """Learn that `arrivals` requests came since the last time, the latest about now.

        All of them came in the latest `within_ns`. That is what the first ones tell their gap by:
        before them there is no last time, and a clock's own beginning means nothing.
        """
        self._rates_ns = -1
        gap = float(max(1, now_ns - int(self._last_ns[function]))) / arrivals
        seen = int(self._seen[function])
        if seen == 0:
            # One request tells no gap; the second one will.
            self._gap_ns[function] = np.inf if arrivals == 1 else max(1, within_ns) / arrivals
        elif not np.isfinite(self._gap_ns[function]):
            self._gap_ns[function] = gap
        else:
            keep = _GAP_MEMORY**arrivals
            self._gap_ns[function] = keep * float(self._gap_ns[function]) + (1 - keep) * gap
        self._seen[function] = seen + arrivals
        self._last_ns[function] = now_ns

    def per_s(self, now_ns: int) -> F64:
        """Arrivals per second now, not to be written to. Shape (functions,)."""
        if self._rates_ns != now_ns:
            silence = (now_ns - self._last_ns).astype(np.float64)
            self._rates = NS_PER_S / np.maximum(self._gap_ns, np.maximum(silence, 1.0))
            self._rates.flags.writeable = False
            self._rates_ns = now_ns
        return self._rates

    def one_per_s(self, function: int, now_ns: int) -> float:
        """Arrivals per second of one function now."""
        silence = max(1, now_ns - int(self._last_ns[function]))
        return NS_PER_S / max(float(self._gap_ns[function]), float(silence))

    def last_ns(self) -> I64:
        """When each function was last asked for; 0 if never. Shape (functions,)."""
        return self._last_ns


_START_FIXED_S: dict[Tier, float] = {Tier.ABSENT: 30.0, Tier.REMOTE: 3.0, Tier.NVME: 2.0}
"""Prior of the fixed part by source tier; a resume from DRAM gets half a second."""
_FORGET = 0.95
_TIERS_BELOW_HBM = 4


def moved_bytes(function: FunctionSpec, source: Tier) -> int:
    """Bytes that a start from `source` has to move: the estimate's regressor."""
    if source is Tier.ABSENT:
        return function.weight_bytes
    if source is Tier.DRAM:
        return function.device_bytes
    return function.snapshot_bytes


@dataclass(slots=True)
class _Affine:
    """Exponentially forgetting least squares of `y = fixed + slope * x`; x in GiB, y in seconds."""

    n: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0

    def add(self, x: float, y: float, weight: float) -> None:
        self.n += weight
        self.x += weight * x
        self.y += weight * y
        self.xx += weight * x * x
        self.xy += weight * x * y

    def forget(self) -> None:
        self.n *= _FORGET
        self.x *= _FORGET
        self.y *= _FORGET
        self.xx *= _FORGET
        self.xy *= _FORGET

    def line(self) -> tuple[float, float]:
        """Return the fixed part and the slope; neither is negative."""
        spread = self.n * self.xx - self.x * self.x
        slope = max(0.0, (self.n * self.xy - self.x * self.y) / spread) if spread > 1e-9 else 0.0
        fixed = (self.y - slope * self.x) / self.n
        if fixed < 0.0:
            fixed, slope = 0.0, self.xy / self.xx
        return fixed, slope


@dataclass(slots=True)
class StartEstimate:
    """Expected start-up time by source tier and group of nodes.

    Attributes:
        version: Grows with every observation, so that derived tables know when they are stale.
        versions: The version at which each fit last changed.
    """

    version: int = 0
    versions: dict[tuple[Tier, int], int] = field(default_factory=dict[tuple[Tier, int], int])
    _fits: dict[tuple[Tier, int], _Affine] = field(default_factory=dict[tuple[Tier, int], _Affine])

    def add_groups(self, representatives: Sequence[NodeSpec]) -> None:
        """Take in groups of nodes by one of each, after those that are known.

        A group starts from its declared bandwidths, as two weak observations.
        """
        first = len(self._fits) // _TIERS_BELOW_HBM
        for group, node in enumerate(representatives, first):
            links = node.links
            pcie = max(links.pcie_gpu, GIB)
            speeds = {
                Tier.ABSENT: max(min(links.network or pcie, links.nvme_write or pcie), GIB // 8),
                Tier.REMOTE: max(links.network, GIB // 8),
                Tier.NVME: max(links.nvme_read or links.ebs, GIB // 8),
                Tier.DRAM: pcie,
            }
            for tier, speed in speeds.items():
                fit = _Affine()
                fixed = _START_FIXED_S.get(tier, 0.5)
                for x in (1.0, 64.0):
                    fit.add(x, fixed + x * GIB / speed, weight=0.5)
                self._fits[tier, group] = fit
                self.versions[tier, group] = self.version

    def learn(self, source: Tier, group: int, function: FunctionSpec, duration_ns: int) -> None:
        """Learn from one finished start."""
        fit = self._fits[source, group]
        fit.forget()
        fit.add(moved_bytes(function, source) / GIB, duration_ns / NS_PER_S, weight=1.0)
        self.version += 1
        self.versions[source, group] = self.version

    def start_ns(self, source: Tier, group: int, function: FunctionSpec) -> int:
        """Return the expected time to ready from `source` on a node of `group`."""
        fixed, slope = self._fits[source, group].line()
        return int((fixed + slope * (moved_bytes(function, source) / GIB)) * NS_PER_S)

    def starts_ns(self, source: Tier, group: int, moved_gib: F64) -> I64:
        """Return the same of many functions, which would move so many GiB. Shape (functions,)."""
        fixed, slope = self._fits[source, group].line()
        many: I64 = ((fixed + slope * moved_gib) * NS_PER_S).astype(np.int64)
        return many
