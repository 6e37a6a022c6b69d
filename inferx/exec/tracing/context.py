"""What of a trace crosses a wire: `traceparent`, as W3C's Trace Context has it."""

import random
import re
from typing import Final, NamedTuple

__all__ = ["TraceContext", "new_span_id", "new_trace_id", "parse"]

_VERSION_0: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_LIMIT: Final = 512
"""A later version may say more than the first; not without bound."""
_SAMPLED: Final = 1


class TraceContext(NamedTuple):
    """One span of a trace, and whether somebody records the trace."""

    trace_id: int
    span_id: int
    sampled: bool

    @property
    def header(self) -> str:
        """Return it as `traceparent`."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"


def parse(text: str | None) -> TraceContext | None:
    """Return what a `traceparent` says; None where it says nothing that holds."""
    if not text or len(text) > _LIMIT:
        return None
    found = _VERSION_0.fullmatch(text)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more):
        return None
    context = TraceContext(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & _SAMPLED))
    return context if context.trace_id and context.span_id else None


def new_trace_id() -> int:
    """Return an id to be told apart by, not one that cannot be guessed: that would cost more."""
    return random.getrandbits(128) or 1


def new_span_id() -> int:
    """Return an id that is unique within its trace."""
    return random.getrandbits(64) or 1
