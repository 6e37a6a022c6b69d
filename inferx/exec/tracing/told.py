"""What a pod's answer tells of its own part of a trace.

`traceresponse` (W3C Trace Context, Level 2's draft) has the pod's own span; `Server-Timing` (W3C)
has how long parts of it took. What a tenant's program says is believed of its own part alone: an id
within the request's trace, and a few numbers.
"""

import re
import secrets
import time
from collections.abc import Sequence
from typing import Final

from inferx.exec.tracing.context import parse

__all__ = ["Part", "told_by_pod"]

TIMINGS_LIMIT: Final = 8
TEXT_LIMIT: Final = 512
_TIMING: Final = re.compile(
    r"\s*([a-z][a-z0-9_]{0,31})\s*;\s*dur=([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*"
)


def told_by_pod(
    headers: Sequence[tuple[bytes, bytes]], trace_id: int
) -> tuple[int, dict[str, float]]:
    """Return the id of a pod's span and its timings in ms; 0 where it tells of no span."""
    span_id, timings = 0, ""
    for name, value in headers:
        low = name.lower()
        if low == b"traceresponse":
            told = parse(value.decode("latin-1"))
            if told is not None and told.trace_id == trace_id:
                span_id = told.span_id
        elif low == b"server-timing":
            timings = value[:TEXT_LIMIT].decode("latin-1")
    if not span_id:
        return 0, {}
    found = [_TIMING.fullmatch(one) for one in timings.split(",")[:TIMINGS_LIMIT]]
    return span_id, {f"pod.{one[1]}_ms": float(one[2]) for one in found if one is not None}


class Part:
    """A pod's part of a request: its own span, and how long each stretch of it took.

    Args:
        asked: The request's `traceparent`; a part that nobody records measures nothing.
    """

    __slots__ = ("_caller", "_laps", "_since")

    def __init__(self, asked: str | None) -> None:
        caller = parse(asked)
        self._caller = caller if caller is not None and caller.sampled else None
        self._laps: list[tuple[str, float]] = []
        self._since = time.monotonic()

    def lap(self, name: str) -> None:
        """End a stretch: from the one before, or the beginning."""
        if self._caller is not None:
            now = time.monotonic()
            self._laps.append((name, now - self._since))
            self._since = now

    def headers(self) -> dict[str, str]:
        """Return the headers that tell it; none where nobody records it."""
        if self._caller is None:
            return {}
        # Of the kernel's randomness: pods that were restored from one snapshot share all other.
        own = self._caller._replace(span_id=int.from_bytes(secrets.token_bytes(8)) or 1)
        laps = ", ".join(f"{name};dur={1e3 * took_s:.3f}" for name, took_s in self._laps)
        return {"traceresponse": own.header, "Server-Timing": laps}
