"""Events of the gateway's own, in a stream that began while its request waited."""

from typing import Final

import msgspec

from inferx.core.errors import UNDECODABLE
from inferx.exec.gateway.refusals import Refused, error_body

__all__ = ["EVENT_STREAM", "WAITING", "error_event", "event_of"]

EVENT_STREAM: Final = (
    b"Content-Type: text/event-stream\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\n"
)
WAITING: Final = b": waiting\n\n"
"""A comment: clients of event streams pass over it, and so do proxies that count silence."""


def error_event(why: Refused) -> bytes:
    """Return the event that ends a stream which could not be served."""
    return b"data: " + error_body(why) + b"\n\n"


def event_of(status: int, body: bytes) -> bytes:
    """Return a pod's error as an event: its own words where they have OpenAI's shape."""
    try:
        told = msgspec.json.decode(body)
    except UNDECODABLE:
        told = None
    if isinstance(told, dict) and isinstance(told.get("error"), dict):
        return b"data: " + msgspec.json.encode({"error": told["error"]}) + b"\n\n"
    return error_event(Refused("pod failed", f"the pod answered with status {status}"))
