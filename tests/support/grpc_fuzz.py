"""Messages that nobody meant to send, and what may come back: for services on real sockets."""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

__all__ = ["BROKEN", "Called", "call", "changed_bytes", "messages", "raw_bytes", "stream"]

BROKEN = frozenset((grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS))
"""What says that a service met something it did not expect."""
DEEP = 3
MANY = 3
EDGES = (0, 1, -1, 2, 3, 7, (1 << 31) - 1, -(1 << 31), (1 << 63) - 1, -(1 << 63), 1 << 53)

_INTEGERS = {
    FieldDescriptor.TYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.TYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_UINT64: (0, (1 << 64) - 1),
}
_ODD = (
    "",
    "/",
    "//",
    "..",
    "a/b",
    "\0",
    "\n",
    "*",
    "ü",
    "\ud7ff",
    "x" * 200,
    "x" * 5_000,
    "{}",
    "[" * 2_000,
)


def messages(kind: type[Message], words: Sequence[str] = (), numbers: Sequence[int] = ()) -> Any:
    """Return a strategy of messages of a type: any fields, set to anything that their types allow.

    Args:
        kind: The message's class.
        words: Texts that mean something to the service, to be chosen often.
        numbers: The same of numbers.
    """
    return _message(kind.DESCRIPTOR, DEEP, tuple(words), tuple(numbers)).map(
        lambda fields: _made(kind, fields)
    )


def _message(descriptor: Descriptor, depth: int, words: Any, numbers: Any) -> Any:
    kept: dict[str, Any] = {}
    for field in descriptor.fields:
        if field.message_type is not None and not depth:
            continue
        one = _field(field, depth, words, numbers)
        kept[field.name] = one
    return st.fixed_dictionaries({}, optional=kept)


def _field(field: FieldDescriptor, depth: int, words: Any, numbers: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = field.message_type.fields
        entries = _field(key, depth, words, numbers), _field(value, depth - 1, words, numbers)
        return st.dictionaries(*entries, max_size=MANY)
    one = _scalar(field, depth, words, numbers)
    return st.lists(one, max_size=MANY) if field.is_repeated else one


def _scalar(field: FieldDescriptor, depth: int, words: Any, numbers: Any) -> Any:
    match field.type:
        case FieldDescriptor.TYPE_MESSAGE:
            return _message(field.message_type, depth - 1, words, numbers)
        case FieldDescriptor.TYPE_STRING:
            odd = st.sampled_from(_ODD) | st.text(max_size=20).filter(_encodes)
            return st.one_of(st.sampled_from(words), st.sampled_from(words), odd) if words else odd
        case FieldDescriptor.TYPE_BYTES:
            return st.binary(max_size=60)
        case FieldDescriptor.TYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.TYPE_DOUBLE:
            return st.sampled_from([0.0, -1.0, 0.5, 1e300, float("nan"), float("inf")])
        case FieldDescriptor.TYPE_ENUM:
            return st.integers(-2, 8)
        case kind:
            low, high = _INTEGERS[kind]
            edges = [one for one in EDGES if low <= one <= high]
            edges += [one for one in numbers if low <= one <= high]
            return st.sampled_from(edges) | st.integers(low, high)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _made(kind: type[Message], fields: dict[str, Any]) -> Message:
    """Return a message with these fields; of a oneof, the last of them stays."""
    message = kind()
    _fill(message, fields)
    return message


def _fill(message: Any, fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        field = message.DESCRIPTOR.fields_by_name[name]
        of_messages = field.message_type is not None
        if isinstance(value, dict) and not field.is_repeated:
            inner = getattr(message, name)
            inner.SetInParent()
            _fill(inner, value)
        elif isinstance(value, dict):
            getattr(message, name).update(value)
        elif isinstance(value, list) and of_messages:
            for one in value:
                _fill(getattr(message, name).add(), one)
        elif isinstance(value, list):
            getattr(message, name).extend(value)
        else:
            setattr(message, name, value)


raw_bytes = st.binary(max_size=200)


def changed_bytes(kind: type[Message], words: Sequence[str] = ()) -> Any:
    """Return a strategy of messages that were damaged on their way."""

    def damage(drawn: tuple[Message, int, int, int]) -> bytes:
        message, at, value, cut = drawn
        raw = bytearray(message.SerializeToString())
        if not raw:
            return struct.pack("B", value)
        raw[at % len(raw)] = value
        return bytes(raw[: max(1, len(raw) - cut)])

    return st.tuples(
        messages(kind, words), st.integers(0, 500), st.integers(0, 255), st.integers(0, 3)
    ).map(damage)


@dataclass(frozen=True)
class Called:
    """How a call went."""

    code: grpc.StatusCode
    said: str
    answers: tuple[bytes, ...]


def _bytes(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


def call(
    channel: grpc.Channel,
    path: str,
    request: Message | bytes,
    *,
    streams: bool = False,
    timeout_s: float = 20.0,
    most: int = 20,
) -> Called:
    """Ask once; of a stream of answers take some."""
    raw = _bytes(request)
    answers: list[bytes] = []
    try:
        if not streams:
            answers.append(channel.unary_unary(path)(raw, timeout=timeout_s))
        else:
            call = channel.unary_stream(path)(raw, timeout=timeout_s)
            for answer in call:
                answers.append(answer)
                if len(answers) == most:
                    call.cancel()
                    break
    except grpc.RpcError as error:
        return Called(error.code(), str(error.details()), tuple(answers))
    return Called(grpc.StatusCode.OK, "", tuple(answers))


def stream(
    channel: grpc.Channel,
    path: str,
    requests: Sequence[Message | bytes],
    *,
    timeout_s: float = 20.0,
    until: Callable[[bytes], bool] = lambda _: False,
    hold: Callable[[], None] = lambda: None,
) -> Called:
    """Say all of it on one stream, and listen until it ends, or something was heard.

    Args:
        channel: To the service.
        path: Of the method.
        requests: What is said.
        timeout_s: Of the whole.
        until: Whether to hang up after an answer.
        hold: Returns when the sending side may end.
    """

    def said() -> Iterator[bytes]:
        for one in requests:
            yield _bytes(one)
        hold()

    answers: list[bytes] = []
    call = channel.stream_stream(path)(said(), timeout=timeout_s)
    try:
        for answer in call:
            answers.append(answer)
            if until(answer):
                call.cancel()
                break
    except grpc.RpcError as error:
        return Called(error.code(), str(error.details()), tuple(answers))
    return Called(grpc.StatusCode.OK, "", tuple(answers))
