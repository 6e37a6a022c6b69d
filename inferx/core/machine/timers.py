"""What the scheduler machine is to do at an instant: holds that end, the control loop, starts anew.

Law: timers of one instant fire in the order in which they were armed.
"""

import heapq
from typing import Final

from inferx.core.types import Tier

__all__ = ["HOLD", "TICK", "WANT", "Timers"]

HOLD: Final = 0
"""A pod has been kept for as long as its policy said; its key is the pod, its token the hold's."""
TICK: Final = 1
"""The control loop's next turn."""
WANT: Final = 2
"""A function whose start failed may be started again; its key is the function."""


class Timers:
    """A heap of plain integers."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, int, int, int]] = []
        self._count = 0

    @property
    def next_ns(self) -> int | None:
        """When the next one is due."""
        return self._heap[0][0] if self._heap else None

    def arm(
        self, at_ns: int, kind: int, key: int = 0, token: int = 0, to: Tier = Tier.ABSENT
    ) -> None:
        """Have something done at an instant; the token tells whether it still means anything."""
        self._count += 1
        heapq.heappush(self._heap, (at_ns, self._count, kind, key, token * len(Tier) + to))

    def take(self) -> tuple[int, int, int, Tier]:
        """Take the next one: its kind, key, token, and tier."""
        _, _, kind, key, packed = heapq.heappop(self._heap)
        token, to = divmod(packed, len(Tier))
        return kind, key, token, Tier(to)
