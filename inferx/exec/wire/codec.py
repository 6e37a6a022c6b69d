"""Maps the kernel's structs to protobuf and back; nothing else knows both.

A struct and its message have the same name and the same fields, but for who is at the stream's end,
which goes without saying. The two sides of a router's stream name one message differently: what is
a command to send (`AskLease`) is an event where it arrives (`LeaseAsked`).
"""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, get_args, get_type_hints

import msgspec
from google.protobuf.message import Message

from inferx.core import commands, events
from inferx.core.types import NO_FUNCTION, FunctionId, GpuId, NodeId, RouterId, Tier
from inferx.exec.wire import wire_pb2 as pb
from inferx.exec.wire.names import FunctionNames, Peer
from inferx.exec.wire.sense import WireError, check

__all__ = ["FROM_NODE", "FROM_ROUTER", "TO_NODE", "TO_ROUTER", "Codec", "Direction", "WireError"]

_Convert = Callable[[Any, FunctionNames, Peer], Any]


class Direction:
    """One direction of a stream: which structs go in, in which message, and which come out."""

    def __init__(
        self,
        envelope: type[Message],
        structs: Sequence[type[msgspec.Struct] | tuple[type[msgspec.Struct], type[msgspec.Struct]]],
    ) -> None:
        """Pair structs with the fields of an envelope.

        Args:
            envelope: The message with a oneof of all others.
            structs: What is sent; a pair where it is called otherwise when it arrives.
        """
        self.envelope = envelope
        descriptor: Any = envelope.DESCRIPTOR
        of = descriptor.oneofs_by_name["message"].fields
        slots = {field.message_type.name: field.name for field in of}
        self.sent: dict[type[msgspec.Struct], tuple[str, _Fields]] = {}
        self.received: dict[str, tuple[type[msgspec.Struct], _Fields]] = {}
        for entry in structs:
            out, into = entry if isinstance(entry, tuple) else (entry, entry)
            slot = slots[out.__name__]
            self.sent[out] = slot, _Fields(out)
            self.received[slot] = into, _Fields(into)


class Codec:
    """Encodes and decodes for one process, which knows functions by its own ids."""

    def __init__(self, functions: FunctionNames) -> None:
        self._functions = functions

    def name_of(self, function: FunctionId) -> str:
        """Return what a function is called on the wire."""
        return self._functions.name_of(function)

    def encode(self, direction: Direction, struct: msgspec.Struct, peer: Peer) -> Any:
        """Return the envelope of a struct that goes to `peer`."""
        slot, fields = direction.sent[type(struct)]
        envelope: Any = direction.envelope()
        fields.write(struct, getattr(envelope, slot), self._functions, peer)
        return envelope

    def decode(self, direction: Direction, envelope: Any, peer: Peer) -> msgspec.Struct:
        """Return the struct in an envelope that came from `peer`.

        Raises:
            WireError: It is none of the kernel's, or of a function or GPU that is not known.
        """
        slot = envelope.WhichOneof("message")
        found = direction.received.get(slot)
        if found is None:
            raise WireError(f"a message of kind {slot}; expected one of {list(direction.received)}")
        struct, fields = found
        return fields.read(struct, getattr(envelope, slot), self._functions, peer)

    def heard(self, direction: Direction, envelope: Any, peer: Peer) -> msgspec.Struct:
        """Return the same of what a peer said, once it makes sense.

        Raises:
            WireError: It does not, or cannot be decoded.
        """
        decoded = self.decode(direction, envelope, peer)
        check(decoded)
        return decoded


class _Fields:
    """How the fields of one struct are converted, each by its type."""

    def __init__(self, struct: type[msgspec.Struct]) -> None:
        hints = get_type_hints(struct)
        names = struct.__struct_fields__
        given = [name for name in names if hints[name] in {NodeId, RouterId}]
        assert list(names[: len(given)]) == given, (
            f"{struct.__name__}: who is at the end goes first"
        )
        self._given = len(given)
        sent = names[len(given) :]
        self._received = _all_of(sent)
        self._into: list[tuple[int, _Convert]] = []
        """Those that do not come as they are meant, by their place among what is received."""
        self._plain: list[str] = []
        self._out: list[tuple[str, _Convert]] = []
        self._repeated: list[tuple[str, _Convert]] = []
        self._nested: list[tuple[str, _Fields]] = []
        for at, name in enumerate(sent):
            hint = hints[name]
            nested = _struct_of(hint)
            if nested is not None:
                fields = _Fields(nested)
                self._nested.append((name, fields))
                self._into.append((at, _each(nested, fields)))
            elif hint in _CONVERT:
                out, into = _CONVERT[hint]
                (self._repeated if get_args(hint) else self._out).append((name, out))
                self._into.append((at, _OTHERWISE.get(struct, {}).get(hint, into)))
            elif hint == tuple[int, ...]:
                self._repeated.append((name, _as_it_is))
                self._into.append((at, _as_tuple))
            else:
                self._plain.append(name)

    def write(self, struct: Any, message: Any, functions: FunctionNames, peer: Peer) -> None:
        message.SetInParent()
        for name in self._plain:
            setattr(message, name, getattr(struct, name))
        for name, convert in self._out:
            setattr(message, name, convert(getattr(struct, name), functions, peer))
        for name, convert in self._repeated:
            getattr(message, name).extend(convert(getattr(struct, name), functions, peer))
        for name, fields in self._nested:
            for one in getattr(struct, name):
                fields.write(one, getattr(message, name).add(), functions, peer)

    def read(
        self, struct: type[msgspec.Struct], message: Any, functions: FunctionNames, peer: Peer
    ) -> msgspec.Struct:
        values = [*self._received(message)]
        for at, convert in self._into:
            values[at] = convert(values[at], functions, peer)
        return struct(*(peer.id,) * self._given, *values)


def _all_of(names: Sequence[str]) -> Callable[[Any], Sequence[Any]]:
    """Return what gets all of some attributes at once."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda message: [getattr(message, name) for name in names]


# -- by type ---
_NESTED: Final = frozenset({events.PhaseTiming, events.FoundPod, events.HeldLease})


def _struct_of(hint: Any) -> type[msgspec.Struct] | None:
    """Return the struct of which a field holds a tuple."""
    inner = get_args(hint)
    return inner[0] if inner and inner[0] in _NESTED else None


def _each(struct: type[msgspec.Struct], fields: _Fields) -> _Convert:
    """Return what reads a repeated message."""

    def read(messages: Any, functions: FunctionNames, peer: Peer) -> tuple[msgspec.Struct, ...]:
        return tuple([fields.read(struct, one, functions, peer) for one in messages])

    return read


def _as_it_is(value: Any, _: FunctionNames, __: Peer) -> Any:
    return value


def _as_tuple(values: Any, _: FunctionNames, __: Peer) -> tuple[int, ...]:
    return tuple(values)


def _name(function: Any, functions: FunctionNames, _: Peer) -> str:
    return functions.name_of(function)


def _known(name: Any, functions: FunctionNames, _: Peer) -> FunctionId:
    found = functions.id_of(name)
    if found == NO_FUNCTION:
        raise WireError(f"function {name!r} is not known here")
    return found


def _all_known(names: Any, functions: FunctionNames, peer: Peer) -> tuple[FunctionId, ...]:
    return tuple(_known(name, functions, peer) for name in names)


def _maybe_known(name: Any, functions: FunctionNames, _: Peer) -> FunctionId:
    return functions.id_of(name)


def _names(these: Any, functions: FunctionNames, _: Peer) -> list[str]:
    return [functions.name_of(function) for function in these]


def _those_known(names: Any, functions: FunctionNames, _: Peer) -> tuple[FunctionId, ...]:
    found = (functions.id_of(name) for name in names)
    return tuple(function for function in found if function != NO_FUNCTION)


def _numbers(gpus: Any, _: FunctionNames, peer: Peer) -> list[int]:
    return [gpu - peer.first_gpu for gpu in gpus]


def _gpus(numbers: Any, _: FunctionNames, peer: Peer) -> tuple[GpuId, ...]:
    for number in numbers:
        if not 0 <= number < peer.gpus:
            raise WireError(f"GPU {number} of a node that has {peer.gpus}")
    # A list: a generator costs more than the few that there are.
    return tuple([GpuId(number + peer.first_gpu) for number in numbers])


def _to_int(tier: Any, _: FunctionNames, __: Peer) -> int:
    return int(tier)


def _tier(number: Any, _: FunctionNames, __: Peer) -> Tier:
    try:
        return Tier(number)
    except ValueError as error:
        raise WireError(f"tier {number}; expected one of {[int(t) for t in Tier]}") from error


_CONVERT: Final[Mapping[Any, tuple[_Convert, _Convert]]] = {
    FunctionId: (_name, _known),
    tuple[FunctionId, ...]: (_names, _those_known),
    tuple[GpuId, ...]: (_numbers, _gpus),
    Tier: (_to_int, _tier),
}
_OTHERWISE: Final[Mapping[type[msgspec.Struct], Mapping[Any, _Convert]]] = {
    # A pod or lease of a function that is no more is still there, and must be ended.
    events.FoundPod: {FunctionId: _maybe_known},
    events.HeldLease: {FunctionId: _maybe_known},
    # Its columns run in parallel.
    events.LoadReported: {tuple[FunctionId, ...]: _all_known},
}
"""Where an unknown function is taken otherwise than by the rule."""

TO_NODE: Final = Direction(
    pb.ToNode,
    (
        commands.Create,
        commands.Restore,
        commands.Resume,
        commands.Suspend,
        commands.Snapshot,
        commands.Stop,
        commands.Copy,
        commands.Drop,
    ),
)
FROM_NODE: Final = Direction(
    pb.FromNode,
    (
        events.PodReady,
        events.PodSuspended,
        events.PodGone,
        events.PodFailed,
        events.PodStuck,
        events.SnapshotTaken,
        events.SnapshotCopied,
        events.SnapshotDropped,
        events.CommandAccepted,
        events.CommandRefused,
        events.NodeJoined,
        events.NodeDraining,
        events.PodFound,
    ),
)
TO_ROUTER: Final = Direction(
    pb.ToRouter,
    (
        (commands.GrantLease, events.LeaseGranted),
        (commands.RevokeLease, events.LeaseRevoked),
        (commands.RecallLease, events.LeaseRecalled),
        (commands.RefuseLease, events.LeaseRefused),
    ),
)
FROM_ROUTER: Final = Direction(
    pb.FromRouter,
    (
        (commands.ReportLeases, events.RouterJoined),
        (commands.AskLease, events.LeaseAsked),
        (commands.ReturnLease, events.LeaseReturned),
        (commands.ReportLoad, events.LoadReported),
    ),
)
