"""Heads that are known again: a peer mostly says with each message what it said with the last.

Laws:
1. Only a head that the parser took, in a message that came whole and alone, is known again.
2. A message repeats it if each byte of its head is the same, but for the digits of its body's
   length, which are digits again; and if it is there whole, with nothing after it. Anything else
   is the parser's, from its first byte: what could be read in two ways is read by one reader.
"""

from typing import Final, NamedTuple

__all__ = ["Repeated", "known_again"]

REMEMBERED_BYTES: Final = 4096
"""Of the longest head that is kept for each connection."""
_DIGITS: Final = 12
_LENGTH: Final = b"\r\ncontent-length:"
_END: Final = b"\r\n\r\n"


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
