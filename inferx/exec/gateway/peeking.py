"""Finds the model that a JSON body asks for, and whether as a stream, before all of it is there."""

import re
from typing import Final, NamedTuple

import msgspec

from inferx.core.errors import UNDECODABLE

__all__ = ["Peeked", "peek"]

_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s"{}\[\],:]+', re.DOTALL)


class Peeked(NamedTuple):
    """What a body says; None is not said, or not yet."""

    model: str | None
    stream: bool | None


class _Asked(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None


_decode = msgspec.json.Decoder(_Asked).decode


def peek(body: bytes | bytearray, *, whole: bool) -> Peeked:
    """Return what is known of a body; of one that is not whole, by its outermost keys so far.

    Raises:
        ValueError: The body is whole, and no JSON object with such keys.
    """
    if not whole:
        return _scan(body)
    try:
        asked = _decode(body)
    except UNDECODABLE as error:
        raise ValueError(f"the body: {error}") from error
    return Peeked(asked.model, asked.stream)


def _scan(body: bytes | bytearray) -> Peeked:
    """Walk over tokens; a value counts once what follows it has begun."""
    model: str | None = None
    stream: bool | None = None
    depth, key, before = 0, b"", b""
    awaited = False
    for found in _TOKEN.finditer(body):
        token = found[0]
        if token in b"{[" and len(token) == 1:
            depth += 1
            awaited = False
        elif token in b"}]" and len(token) == 1:
            depth -= 1
        elif depth == 1:
            if token == b":":
                key, awaited = before, True
            elif awaited and token != b",":
                # The last token may be cut short; only a string tells its end.
                if key == b'"model"' and token[:1] == b'"':
                    model = msgspec.json.decode(token, type=str)
                elif key == b'"stream"' and token in {b"true", b"false"}:
                    stream = token == b"true"
                awaited = False
            before = token
    return Peeked(model, stream)
