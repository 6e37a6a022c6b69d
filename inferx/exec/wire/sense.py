"""Whether what came over the wire can be meant: before a machine takes it, for its word is law.

A machine believes its events: a number below zero, or columns of unequal lengths, would be a defect
of its own. What a peer may know better, as which pods run, is not looked at here.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final, cast, get_type_hints

import msgspec

from inferx.core import events
from inferx.core.errors import InferXError
from inferx.core.types import NodeSpec

__all__ = ["WireError", "check"]

COUNT: Final = 1_000_000_000
"""Of requests and slots. Arrays hold them, and sums of them."""
NUMBER: Final = 1 << 62
"""Of ids, times and bytes."""
TEXT: Final = 200
"""Of a reason, or of a phase's name."""
GPUS: Final = 64
"""Of a node."""
_COUNTS: Final = frozenset({"slots", "inflight", "arrivals", "concurrency_milli", "queued"})
_STATES: Final = frozenset({"ready", "suspended", "moving", "busy", "stuck"})
_LEAST: Final[Mapping[str, int]] = {"sequence": -1, "function": -1, "functions": -1}
"""Without a command there is no sequence; a function that is not known here has no number."""


class WireError(InferXError):
    """A message that means nothing here: of no known kind, or about something that is not known."""


def check(struct: msgspec.Struct) -> None:
    """Refuse what cannot be meant.

    Raises:
        WireError: A number is none that could be, a text is too long, or columns differ in length.
    """
    numbers, others = _fields(type(struct))
    for name, least, most in numbers:
        if not least <= (value := getattr(struct, name)) <= most:
            raise WireError(f"{type(struct).__name__}: {name} is {value}; expected {least} up")
    for name in others:
        _check(struct, name, getattr(struct, name))
    if isinstance(struct, NodeSpec) and struct.gpus > GPUS:
        raise WireError(f"NodeSpec: gpus is {struct.gpus}; expected {GPUS} at most")
    if isinstance(struct, events.LoadReported):
        columns = (struct.arrivals, struct.concurrency_milli, struct.queued)
        if any(len(column) != len(struct.functions) for column in columns):
            raise WireError("LoadReported: expected columns of one length")


@cache
def _fields(struct: type[msgspec.Struct]) -> tuple[list[tuple[str, int, int]], list[str]]:
    """Return a struct's fields that are numbers, with their bounds, and its other fields."""
    numbers: list[tuple[str, int, int]] = []
    others: list[str] = []
    for name, hint in get_type_hints(struct).items():
        if getattr(hint, "__supertype__", hint) is int:
            numbers.append((name, *_bounds(name)))
        else:
            others.append(name)
    return numbers, others


def _bounds(name: str) -> tuple[int, int]:
    return _LEAST.get(name, 0), COUNT if name in _COUNTS else NUMBER


def _check(struct: msgspec.Struct, name: str, value: Any) -> None:
    match value:
        case bool():
            pass
        case int():
            least, most = _bounds(name)
            if not least <= value <= most:
                raise WireError(f"{type(struct).__name__}: {name} is {value}; expected {least} up")
        case float():
            if not 0 <= value <= NUMBER:
                raise WireError(f"{type(struct).__name__}: {name} is {value}; expected 0 up")
        case str():
            if len(value) > TEXT or (name == "state" and value not in _STATES):
                raise WireError(f"{type(struct).__name__}: {name} is {value[:40]!r}")
        case tuple():
            for one in cast("tuple[object, ...]", value):
                _check(struct, name, one)
        case msgspec.Struct():
            check(value)
        case _:
            raise AssertionError(f"{name} of {type(struct).__name__}: no check of {value!r}")
