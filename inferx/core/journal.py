"""Journals: what a machine was told and what it answered, byte for byte, to be replayed later.

A journal is a header and one frame a step. A frame is its length and CRC-32 (little-endian, 32 bits
each) and that many bytes of MessagePack: `[now_ns, events, step]`. The header's frame names the
machine's kind, the format and whatever the writer wants to know when it makes the machine anew.

Laws:
1. Same machine, same entries, same bytes: `replay` compares encoded answers, not their looks.
2. A writer that died in mid-frame leaves a journal that reads up to there. A frame that is damaged
   with others behind it is an error, not an end.

No IO but on the file object that is handed in, which may be any stream of bytes.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final
from zlib import crc32

import msgspec

from inferx.core.commands import AgentCommand, AgentEvent, RouterCommand, SchedulerCommand
from inferx.core.errors import UNDECODABLE, InferXError
from inferx.core.events import RouterEvent, SchedulerEvent
from inferx.core.machine.step import Machine, Step

__all__ = [
    "KINDS",
    "Divergence",
    "Entry",
    "JournalError",
    "JournalReader",
    "JournalWriter",
    "Recorded",
    "Replayed",
    "decoded",
    "replay",
    "replaying",
]

FORMAT: Final = 1
MAGIC: Final = b"inferx-journal\n"
FRAME_LIMIT_BYTES: Final = 1 << 28
"""A longer frame is damage: no step takes in or gives out so much."""
_FRAME: Final = struct.Struct("<II")


class JournalError(InferXError):
    """A journal that cannot be read: damaged, of another format, or no journal at all."""


class _Header(msgspec.Struct, frozen=True):
    machine: str
    format: int
    config: dict[str, Any]


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One step, still encoded but for its time."""

    now_ns: int
    events: msgspec.Raw
    step: msgspec.Raw


_EVENTS: Final[dict[str, msgspec.msgpack.Decoder[Any]]] = {
    "router": msgspec.msgpack.Decoder(tuple[RouterEvent, ...]),
    "scheduler": msgspec.msgpack.Decoder(tuple[SchedulerEvent, ...]),
    "agent": msgspec.msgpack.Decoder(tuple[AgentEvent, ...]),
}
_STEP: Final[dict[str, msgspec.msgpack.Decoder[Any]]] = {
    "router": msgspec.msgpack.Decoder(Step[RouterCommand]),
    "scheduler": msgspec.msgpack.Decoder(Step[SchedulerCommand]),
    "agent": msgspec.msgpack.Decoder(Step[AgentCommand]),
}
KINDS: Final = tuple(_EVENTS)
"""The machines that have journals."""
_encode: Final = msgspec.msgpack.Encoder().encode
_entry: Final = msgspec.msgpack.Decoder(Entry)
_header: Final = msgspec.msgpack.Decoder(_Header)


class JournalWriter:
    """Appends to a journal. What it has written is whole once the file object has it."""

    def __init__(self, file: BinaryIO, machine: str, config: Mapping[str, Any]) -> None:
        """Write the header.

        Args:
            file: Takes bytes; it is never closed or flushed here.
            machine: One of `KINDS`.
            config: What it takes to make the machine anew; plain values, as in JSON.
        """
        if machine not in KINDS:
            raise JournalError(f"machine {machine!r}: expected one of {', '.join(KINDS)}")
        self._write = file.write
        self._write(MAGIC)
        self._frame(_encode(_Header(machine, FORMAT, dict(config))))

    def _frame(self, payload: bytes) -> None:
        self._write(_FRAME.pack(len(payload), crc32(payload)) + payload)

    def append(self, now_ns: int, events: Sequence[Any], step: Step[Any]) -> None:
        """Write one step: what went in, and what came out."""
        self._frame(_encode((now_ns, events, step)))


class JournalReader:
    """Reads a journal from its beginning; iterate over it for the entries.

    Attributes:
        machine: The kind of machine.
        config: What its writer was given.
        truncated: Whether the last frame was cut off; known when the entries have been read.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Read the header.

        Raises:
            JournalError: It is not a journal, or of another format.
        """
        self._file = file
        self._count = 0
        self.truncated = False
        if file.read(len(MAGIC)) != MAGIC:
            raise JournalError(f"no journal: it does not begin with {MAGIC!r}")
        payload = self._frame()
        if payload is None:
            raise JournalError("the journal ends in its header")
        try:
            header = _header.decode(payload)
        except UNDECODABLE as error:
            raise JournalError(f"the journal's header: {error}") from error
        if header.format != FORMAT or header.machine not in KINDS:
            raise JournalError(
                f"a journal of format {header.format} of a {header.machine!r};"
                f" expected format {FORMAT} of {', '.join(KINDS)}"
            )
        self.machine = header.machine
        self.config = header.config

    def _frame(self) -> bytes | None:
        head = self._file.read(_FRAME.size)
        if not head:
            return None
        if len(head) < _FRAME.size:
            self.truncated = True
            return None
        length, crc = _FRAME.unpack(head)
        if length > FRAME_LIMIT_BYTES:
            raise JournalError(f"entry {self._count}: {length:,} bytes; it is damaged")
        payload = self._file.read(length)
        if len(payload) == length and crc32(payload) == crc:
            return payload
        if len(payload) == length and self._file.read(1):
            raise JournalError(f"entry {self._count}: its checksum is wrong; it is damaged")
        self.truncated = True
        return None

    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries in order.

        Raises:
            JournalError: A frame is damaged, with others behind it.
        """
        while (payload := self._frame()) is not None:
            try:
                entry = _entry.decode(payload)
            except UNDECODABLE as error:
                raise JournalError(f"entry {self._count}: {error}") from error
            self._count += 1
            yield entry


@dataclass(frozen=True, slots=True)
class Replayed:
    """A step that came out as it did: what the machine was told when, and what it answered."""

    now_ns: int
    events: tuple[Any, ...]
    step: Step[Any]


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first step on which a machine answers otherwise than it did.

    Attributes:
        entry: Its number, from 0.
        now_ns: When it was.
        events: What the machine was told.
        expected: What it answered then.
        got: What it answers now; None where it raised.
        error: What it raised; "" where it did not.
    """

    entry: int
    now_ns: int
    events: tuple[Any, ...]
    expected: Step[Any]
    got: Step[Any] | None
    error: str = ""


def decoded(kind: str, number: int, entry: Entry) -> tuple[tuple[Any, ...], Step[Any]]:
    """Return what a machine was told in an entry, and what it answered.

    Raises:
        JournalError: The entry, of this number, is not of such a machine.
    """
    try:
        return _EVENTS[kind].decode(entry.events), _STEP[kind].decode(entry.step)
    except UNDECODABLE as error:
        raise JournalError(f"entry {number}: no step of a {kind}: {error}") from error


def replay(kind: str, machine: Machine[Any, Any], entries: Iterable[Entry]) -> Divergence | None:
    """Feed a journal to a fresh machine; return the first step that differs, or None.

    Raises:
        JournalError: An entry is not of such a machine.
    """
    latest: Replayed | Divergence | None = None
    for latest in replaying(kind, machine, entries):  # noqa: B007 - the last one is what counts.
        pass
    return latest if isinstance(latest, Divergence) else None


def replaying(
    kind: str, machine: Machine[Any, Any], entries: Iterable[Entry]
) -> Iterator[Replayed | Divergence]:
    """Feed a journal to a fresh machine, a step each time; the last may be one that differs.

    Raises:
        JournalError: An entry is not of such a machine.
    """
    for number, entry in enumerate(entries):
        events, expected = decoded(kind, number, entry)
        try:
            got = machine.step(entry.now_ns, events)
        except Exception as error:  # noqa: BLE001 - whatever it raises, it did not raise then.
            told = f"{type(error).__name__}: {error}"
            yield Divergence(number, entry.now_ns, events, expected, None, told)
            return
        if _encode(got) != bytes(entry.step):
            yield Divergence(number, entry.now_ns, events, expected, got)
            return
        yield Replayed(entry.now_ns, events, got)


class Recorded:
    """A machine whose steps are written down as they are taken."""

    __slots__ = ("_append", "_step")

    def __init__(self, machine: Machine[Any, Any], writer: JournalWriter) -> None:
        self._step = machine.step
        self._append = writer.append

    def step(self, now_ns: int, events: Sequence[Any]) -> Step[Any]:
        """Let the machine step, and write it down before anybody acts on it."""
        step = self._step(now_ns, events)
        self._append(now_ns, events, step)
        return step
