"""Heads that are known again: a peer mostly says with each message what it said with the last.

Laws:
1. Only a head that the parser took, in a message that came whole and alone, is known again.
2. A message repeats it if each byte of its head is the same, but for the digits of its body's
   length, which are digits again; and if it is there whole, with nothing after it. Anything else
   is the parser's, from its first byte: what could be read in two ways is read by one reader.
"""

from typing import Final, Generic, NamedTuple, TypeVar

__all__ = ["Latest", "Repeated", "known_again"]

REMEMBERED_BYTES: Final = 4096
"""Of the longest head that is kept for each connection."""
PATIENCE: Final = 8
"""Heads that nobody said again in a row, until one is kept in `SELDOM` alone: with an id of its own
in each, or the second of the day, none is ever said again."""
SELDOM: Final = 32
_DIGITS: Final = 12
_LENGTH: Final = b"\r\ncontent-length:"
_END: Final = b"\r\n\r\n"

Head = TypeVar("Head")


class Repeated(NamedTuple):
    """A head that was parsed, around the digits of its length.

    Attributes:
        before: Up to the digits; all of it, where it tells no length.
        after: From the end of their line; empty, where it tells none.
    """

    before: bytes
    after: bytes

    def body_of(self, message: bytes) -> bytes | None:
        """Return the body of a message that has this head again, and is whole; None of any other.

        Cost: what it takes to compare the bytes, a tenth of parsing them.
        """
        before, after = self
        if not message.startswith(before):
            return None
        begin = len(before)
        if not after:
            return b"" if len(message) == begin else None
        end = message.find(b"\r", begin, begin + _DIGITS)
        digits = message[begin:end]
        if end < 0 or not digits.isdigit() or not message.startswith(after, end):
            return None
        body = message[end + len(after) :]
        return body if len(body) == int(digits) else None


class Latest(Generic[Head]):
    """What the latest message of a connection said, where the next one may say it again.

    Attributes:
        head: As it was parsed, of a message that is known again.
    """

    __slots__ = ("_known", "_misses", "head")
    head: Head

    def __init__(self) -> None:
        self._known: Repeated | None = None
        self._misses = 0

    def body_of(self, message: bytes) -> bytes | None:
        """Return the body of a message that says what the latest did; None of any other."""
        known = self._known
        if known is None:
            return None
        body = known.body_of(message)
        if body is None:
            self._known = None
            self._misses += 1
        else:
            self._misses = 0
        return body

    def keep(self, message: bytes, length: int, head: Head) -> None:
        """Take note of a message that was parsed; it has come whole."""
        if self._misses >= PATIENCE:
            self._misses += 1
            if self._misses % SELDOM:
                return
        self._known = known_again(message, length)
        self.head = head


def known_again(message: bytes, length: int) -> Repeated | None:
    """Return what is kept of a whole message's head; None where it is not worth it, or not alone.

    Args:
        message: As it came, and was parsed.
        length: Of its body, as the parser has it.
    """
    size = len(message) - length
    if size > REMEMBERED_BYTES or message.find(_END) != size - len(_END):
        return None
    head = message[:size]
    before, name, rest = _around(head)
    if not name:
        return None if length else Repeated(head, b"")
    digits, _, after = rest.partition(b"\r\n")
    spaces = len(digits) - len(digits.lstrip(b" \t"))
    if not digits[spaces:].isdigit():
        return None
    return Repeated(before + name + digits[:spaces], b"\r\n" + after)


def _around(head: bytes) -> tuple[bytes, bytes, bytes]:
    at = head.lower().find(_LENGTH)
    if at < 0:
        return head, b"", b""
    end = at + len(_LENGTH)
    return head[:at], head[at:end], head[end:]
