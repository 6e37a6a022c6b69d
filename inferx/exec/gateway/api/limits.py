"""Every bound of the API, by name."""

from typing import Final

from inferx.exec.state.objects.kinds import OBJECT_BYTES_LIMIT

__all__ = [
    "BODY_BYTES",
    "HEARTBEAT_S",
    "LEADER_S",
    "LOG_READERS",
    "READY_S",
    "STOP_S",
    "VIEW_FRESH_S",
    "WATCHES",
]

BODY_BYTES: Final = 2 * OBJECT_BYTES_LIMIT
"""An object with room for how its author writes it."""
WATCHES: Final = 256
"""Watches that one gateway serves at once."""
HEARTBEAT_S: Final = 10.0
"""Between two lines of a watch in which nothing happens; its caller's rights are looked at anew."""
LOG_READERS: Final = 64
"""Pods' outputs that one gateway passes on at once."""
LEADER_S: Final = 5.0
"""For the leader's answer."""
VIEW_FRESH_S: Final = 0.5
"""Callers within as long share one answer of the leader's."""
READY_S: Final = 2.0
"""For the store to answer whether it does."""
STOP_S: Final = 5.0
"""For what is being answered, when the gateway ends."""
