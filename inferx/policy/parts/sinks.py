"""Where a pod that leaves its GPU may go, as a setting."""

from inferx.policy import Tier

__all__ = ["SINKS", "sink_tier"]

SINKS: dict[str, Tier] = {"dram": Tier.DRAM, "nvme": Tier.NVME, "absent": Tier.ABSENT}
"""Where a pod that leaves its GPU may go, as settings call it."""


def sink_tier(then: str) -> Tier:
    """Return the tier that a setting names.

    Raises:
        ValueError: It names none.
    """
    if then not in SINKS:
        raise ValueError(f"then is {then!r}; expected one of {', '.join(SINKS)}")
    return SINKS[then]
