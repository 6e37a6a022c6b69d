"""How long to wait before the next try: longer each time, up to a bound, and never in step."""

import random

__all__ = ["Backoff"]


class Backoff:
    """Waits that double from `least_s` to `most_s`, each shortened by chance by up to a half."""

    __slots__ = ("_least_s", "_most_s", "_rng", "_wait_s")

    def __init__(self, least_s: float, most_s: float, rng: random.Random) -> None:
        self._least_s = least_s
        self._most_s = most_s
        self._rng = rng
        self._wait_s = least_s

    def next_s(self) -> float:
        """Return how long to wait this time, in seconds."""
        wait_s = self._wait_s * self._rng.uniform(0.5, 1.0)
        self._wait_s = min(self._wait_s * 2, self._most_s)
        return wait_s

    def reset(self) -> None:
        """Begin anew: it went well."""
        self._wait_s = self._least_s
