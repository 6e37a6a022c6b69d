"""What every gRPC client of ours does alike: channels, methods, and errors in one line."""

import asyncio
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from inferx.exec.state.store import UnavailableError

__all__ = [
    "END_OF_STREAM",
    "MESSAGE_BYTES",
    "A",
    "Metadata",
    "Method",
    "Q",
    "ask",
    "ask_all",
    "ask_stream",
    "bytes_of",
    "cancelled_here",
    "converse",
    "listen",
    "open_channel",
    "said",
]

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)

Metadata = tuple[tuple[str, str], ...]
"""What goes with a call."""

# Its stubs lack it.
END_OF_STREAM: Any = grpc.aio.EOF  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]
MESSAGE_BYTES = 64 << 20
"""The largest that is taken: pages and commits are far smaller."""
ERROR_CHARACTERS = 400
"""Of what a peer says."""

OPTIONS = (
    # A peer that was not there a moment ago is tried again soon.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    # A peer that went without a word is noticed; etcd refuses pings of less than 5 s.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
)


@dataclass(frozen=True, slots=True)
class Method(Generic[Q, A]):
    """One method of a service: its path, and the types of its messages."""

    service: str
    name: str
    request: type[Q]
    reply: type[A]

    @property
    def path(self) -> str:
        """As gRPC names it."""
        return f"/{self.service}/{self.name}"


async def ask(
    channel: Any, method: Method[Q, A], request: Q, timeout_s: float, metadata: Metadata
) -> A:
    """Send a request and wait for its answer.

    Raises:
        grpc.aio.AioRpcError: The call failed.
    """
    call = channel.unary_unary(
        method.path, request_serializer=bytes_of, response_deserializer=method.reply.FromString
    )
    answer: A = await call(request, timeout=timeout_s, metadata=metadata)
    return answer


async def ask_all(
    channel: Any, method: Method[Q, A], request: Q, timeout_s: float, metadata: Metadata
) -> list[A]:
    """The same of a method that answers in several messages."""
    call = listen(channel, method, request, metadata, timeout_s=timeout_s)
    return [answer async for answer in call]


async def ask_stream(
    channel: Any, method: Method[Q, A], request: Q, timeout_s: float, metadata: Metadata
) -> A:
    """The same of a method that streams both ways, used for one question and one answer."""
    call = converse(channel, method, metadata, timeout_s=timeout_s)
    try:
        await call.write(request)
        answer: A = await call.read()
    finally:
        call.cancel()
    if answer is END_OF_STREAM:
        raise UnavailableError(f"{method.name} was answered by nothing")
    return answer


def listen(
    channel: Any,
    method: Method[Q, A],
    request: Q,
    metadata: Metadata = (),
    *,
    timeout_s: float | None = None,
) -> Any:
    """Begin a call whose answers are a stream."""
    call = channel.unary_stream(
        method.path, request_serializer=bytes_of, response_deserializer=method.reply.FromString
    )
    return call(request, timeout=timeout_s, metadata=metadata)


def converse(
    channel: Any, method: Method[Q, A], metadata: Metadata, *, timeout_s: float | None = None
) -> Any:
    """Begin a call that streams both ways."""
    call = channel.stream_stream(
        method.path, request_serializer=bytes_of, response_deserializer=method.reply.FromString
    )
    return call(timeout=timeout_s, metadata=metadata)


def bytes_of(message: Message) -> bytes:
    """Serialise a message."""
    written: bytes = message.SerializeToString()
    return written


def open_channel(target: str, credentials: grpc.ChannelCredentials | None) -> Any:
    """Return a channel, which connects when it is first used; None: in the clear."""
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=OPTIONS)
    return grpc.aio.secure_channel(target, credentials, options=OPTIONS)


def said(error: grpc.RpcError) -> str:
    """Return what a peer said of an error, in one line."""
    status: Any = error
    line = " ".join(str(status.details() or status.code().name).split())
    return line if len(line) <= ERROR_CHARACTERS else f"{line[:ERROR_CHARACTERS]}..."


def cancelled_here() -> bool:
    """Whether it is this task that is cancelled, and not a call because its channel was closed."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
