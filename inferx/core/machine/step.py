"""What a machine answers: records to make durable, commands to send, and when to call again."""

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

__all__ = ["Machine", "Record", "Step"]

E_contra = TypeVar("E_contra", contravariant=True)
C = TypeVar("C")


class Record(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A key and its new value for the store; an empty value erases it.

    The driver writes records in a transaction guarded by the leader's epoch, before it sends.
    """

    key: str
    value: bytes


class Step(msgspec.Struct, Generic[C], frozen=True, gc=False):
    """The outcome of one step."""

    persist: tuple[Record, ...]
    commands: tuple[C, ...]
    deadline_ns: int | None
    """Call `step(now_ns, ())` no later than this; the machine never arms a timer."""


class Machine(Protocol[E_contra, C]):
    """A deterministic state machine: same state and same input give the same output."""

    def step(self, now_ns: int, events: Sequence[E_contra]) -> Step[C]: ...
