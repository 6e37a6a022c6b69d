"""What comes in over gRPC, before it is known to be the message that it should be.

gRPC itself would call bytes that are no such message a defect of the service. They are the
caller's: whoever serves answers `INVALID_ARGUMENT`.
"""

from collections.abc import Callable
from typing import Any, Final

from google.protobuf.message import DecodeError, Message

__all__ = ["NO_MESSAGE", "Unreadable", "reading"]


class Unreadable:
    """What came is no message of the method's type."""


UNREADABLE: Final = Unreadable()
NO_MESSAGE: Final = "what came is no message of this method"


def reading(kind: type[Message]) -> Callable[[bytes], Any]:
    """Return what reads messages of a type; of anything else it returns `UNREADABLE`."""
    read: Callable[[bytes], Message] = kind.FromString

    def read_or_tell(raw: bytes) -> Any:
        try:
            return read(raw)
        except DecodeError:
            return UNREADABLE

    return read_or_tell
