"""How much somebody may ask for: requests and tokens a period, and requests at once.

What is declared; `limiter.py` holds to it.
"""

from typing import Final

import msgspec

from inferx.core.units import NS_PER_S

__all__ = ["LARGEST", "UNLIMITED", "Limits", "Rate"]

LARGEST: Final = 1 << 40
"""Of a rate's counts. Beyond it a number is a slip, and no limit."""


class Rate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """So many a period, on average, and so many at once after a quiet time."""

    count: int
    period_ns: int
    burst: int

    def __post_init__(self) -> None:
        """Refuse what no bucket can hold to; decoders turn this into their own error."""
        for name, value in (("count", self.count), ("burst", self.burst)):
            if not 1 <= value <= LARGEST:
                raise ValueError(f"{name} of a rate: {value}; expected 1 to {LARGEST}")
        if not 1 <= self.period_ns <= 86_400 * NS_PER_S:
            msg = f"period_ns of a rate: {self.period_ns}; expected 1 ns to one day"
            raise ValueError(msg)


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of one tenant or of one key; None is no limit.

    Attributes:
        requests: Begun in a period.
        tokens: Input and output together, in a period.
        concurrent: Requests at once, waiting ones included.
    """

    requests: Rate | None = None
    tokens: Rate | None = None
    concurrent: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is no limit."""
        if self.concurrent is not None and not 1 <= self.concurrent <= LARGEST:
            raise ValueError(f"concurrent: {self.concurrent}; expected 1 to {LARGEST}")


UNLIMITED: Final = Limits()
