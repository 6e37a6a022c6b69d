"""The services' methods as data, for clients and servers alike: no generated stubs."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import grpc
import grpc.aio

from inferx.exec.received import NO_MESSAGE, Unreadable, reading
from inferx.exec.wire import wire_pb2 as pb

__all__ = [
    "DRAIN",
    "END_POD",
    "EXPLAIN",
    "FOLLOW",
    "JOIN",
    "KEEPALIVE",
    "LIST_LOGS",
    "READ_LOG",
    "VIEW",
    "Method",
    "handlers",
    "stream",
    "told",
    "unary",
]


class Method(NamedTuple):
    """One method: its path, what it takes and what it gives.

    Attributes:
        streams: Both ways.
        tells: One question, and a stream of answers.
    """

    service: str
    name: str
    takes: Any
    gives: Any
    streams: bool = False
    tells: bool = False

    @property
    def path(self) -> str:
        """Return its place among a server's methods."""
        return f"/inferx.wire.v1.{self.service}/{self.name}"


FOLLOW: Final = Method("NodeAgent", "Follow", pb.ToNode, pb.FromNode, streams=True)
JOIN: Final = Method("Scheduler", "Join", pb.FromRouter, pb.ToRouter, streams=True)
VIEW: Final = Method("Scheduler", "View", pb.ViewRequest, pb.ViewReply)
DRAIN: Final = Method("Scheduler", "Drain", pb.DrainRequest, pb.DrainReply)
END_POD: Final = Method("Scheduler", "EndPod", pb.EndPodRequest, pb.EndPodReply)
LIST_LOGS: Final = Method("NodeAgent", "ListLogs", pb.ListLogsRequest, pb.ListLogsReply)
READ_LOG: Final = Method("NodeAgent", "ReadLog", pb.ReadLogRequest, pb.LogPiece, tells=True)
EXPLAIN: Final = Method("Scheduler", "Explain", pb.ExplainRequest, pb.ExplainReply)

KEEPALIVE: Final = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # A reconnection must not wait for the long pauses that gRPC grows by itself.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
"""Options of every channel and server."""


def stream(channel: grpc.aio.Channel, method: Method) -> Any:
    """Return the multi-callable of a method that streams both ways."""
    return channel.stream_stream(
        method.path,
        request_serializer=method.takes.SerializeToString,
        response_deserializer=method.gives.FromString,
    )


def unary(channel: grpc.aio.Channel, method: Method) -> Any:
    """Return the multi-callable of a question with one answer."""
    return channel.unary_unary(
        method.path,
        request_serializer=method.takes.SerializeToString,
        response_deserializer=method.gives.FromString,
    )


def told(channel: grpc.aio.Channel, method: Method) -> Any:
    """Return the multi-callable of a question with a stream of answers."""
    return channel.unary_stream(
        method.path,
        request_serializer=method.takes.SerializeToString,
        response_deserializer=method.gives.FromString,
    )


def handlers(service: str, served: Mapping[Method, Any]) -> grpc.GenericRpcHandler:
    """Return what a server needs to serve methods of one service."""
    made: dict[str, Any] = {}
    for method, serve in served.items():
        assert method.service == service, f"{method.path} is no method of {service}"
        if method.streams:
            make = grpc.stream_stream_rpc_method_handler
        elif method.tells:
            make = grpc.unary_stream_rpc_method_handler
        else:
            make = grpc.unary_unary_rpc_method_handler
        made[method.name] = make(
            serve if method.streams else _of_readable(serve),
            request_deserializer=reading(method.takes),
            response_serializer=method.gives.SerializeToString,
        )
    return grpc.method_handlers_generic_handler(f"inferx.wire.v1.{service}", made)


def _of_readable(serve: Any) -> Any:
    """Return the same for who may be asked with anything; streams see for themselves."""

    async def answer(request: Any, context: Any) -> Any:
        if isinstance(request, Unreadable):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, NO_MESSAGE)
        return await serve(request, context)

    return answer
