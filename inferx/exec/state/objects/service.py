"""The objects as a gRPC service, to be served beside the store's."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import Message

from inferx import __version__
from inferx.core.errors import InferXError
from inferx.exec.state.objects import messages
from inferx.exec.state.objects.objects import Objects
from inferx.exec.state.objects.proto import objects_pb2 as pb
from inferx.exec.state.objects.results import ANY_REVISION
from inferx.exec.state.objects.status import WORD, code_of
from inferx.exec.state.store import StoreLeaseId, UnavailableError

__all__ = ["PART_BYTES", "SERVICE", "ObjectsService"]

SERVICE = "inferx.objects.v1.Objects"
CALL_LIMIT_S = 30.0
"""After which a call that its caller still waits for is given up; a cascade may take several."""
PART_BYTES = 1 << 20
"""Of a list, about: an object more than that is a part of its own."""

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)

_log = logging.getLogger(__name__)


class ObjectsService:
    """Answers for the objects. Who calls is trusted to say on whose behalf."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a server of `grpc.aio` is given."""
        unary: dict[str, tuple[type[Message], Callable[[Any], Awaitable[Message]]]] = {
            "Version": (pb.VersionRequest, self._version),
            "Uid": (pb.UidRequest, self._uid),
            "Get": (pb.GetRequest, self._get),
            "Create": (pb.WriteRequest, self._create),
            "Update": (pb.UpdateRequest, self._update),
            "Apply": (pb.WriteRequest, self._apply),
            "Delete": (pb.DeleteRequest, self._delete),
        }
        streams: dict[str, tuple[type[Message], Callable[[Any], AsyncGenerator[Any, None]]]] = {
            "List": (pb.ListRequest, self._list),
            "Watch": (pb.WatchRequest, self._watch),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                _answering(call),
                request_deserializer=request.FromString,
                response_serializer=_bytes_of,
            )
            for name, (request, call) in unary.items()
        } | {
            name: grpc.unary_stream_rpc_method_handler(
                _streaming(call),
                request_deserializer=request.FromString,
                response_serializer=_bytes_of,
            )
            for name, (request, call) in streams.items()
        }
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    async def _version(self, request: pb.VersionRequest) -> pb.VersionReply:
        del request
        return pb.VersionReply(version=__version__)

    async def _uid(self, request: pb.UidRequest) -> pb.UidReply:
        del request
        return pb.UidReply(uid=await self._objects.uid())

    async def _get(self, request: pb.GetRequest) -> pb.Object:
        return messages.object_to(await self._objects.get(messages.key_from(request.key)))

    async def _list(self, request: pb.ListRequest) -> AsyncGenerator[pb.ListPart, None]:
        async with asyncio.timeout(CALL_LIMIT_S):
            listed = await self._objects.list(messages.selection_from(request.selection))
        part, size = pb.ListPart(revision=listed.revision), 0
        for one in listed.objects:
            message = messages.object_to(one)
            if size and size + message.ByteSize() > PART_BYTES:
                yield part
                part, size = pb.ListPart(revision=listed.revision), 0
            part.objects.append(message)
            size += message.ByteSize()
        yield part

    async def _watch(self, request: pb.WatchRequest) -> AsyncGenerator[pb.Batch, None]:
        selection = messages.selection_from(request.selection)
        async with aclosing(self._objects.changes(selection, request.after)) as batches:
            async for batch in batches:
                yield messages.batch_to(batch)

    async def _create(self, request: pb.WriteRequest) -> pb.Object:
        written = await self._objects.create(
            messages.object_from(request.object),
            who=messages.actor_from(request.who),
            lease=StoreLeaseId(request.lease),
        )
        return messages.object_to(written)

    async def _update(self, request: pb.UpdateRequest) -> pb.Object:
        written = await self._objects.update(
            messages.object_from(request.object),
            who=messages.actor_from(request.who),
            expected=messages.expected_from(request),
            lease=StoreLeaseId(request.lease),
        )
        return messages.object_to(written)

    async def _apply(self, request: pb.WriteRequest) -> pb.ApplyReply:
        applied = await self._objects.apply(
            messages.object_from(request.object),
            who=messages.actor_from(request.who),
            lease=StoreLeaseId(request.lease),
        )
        return messages.applied_to(applied)

    async def _delete(self, request: pb.DeleteRequest) -> pb.Object:
        deleted = await self._objects.delete(
            messages.key_from(request.key),
            who=messages.actor_from(request.who),
            expected=request.expected or ANY_REVISION,
            cascade=request.cascade,
        )
        return messages.object_to(deleted)


def _answering(
    call: Callable[[Q], Awaitable[A]],
) -> Callable[[Q, Any], Awaitable[A]]:
    async def answer(request: Q, context: Any) -> A:
        try:
            async with asyncio.timeout(CALL_LIMIT_S):
                return await call(request)
        except Exception as error:  # noqa: BLE001 every one is told, as what it is
            await _fail(context, error)

    return answer


def _streaming(
    call: Callable[[Q], AsyncGenerator[A, None]],
) -> Callable[[Q, Any], AsyncIterator[A]]:
    async def answer(request: Q, context: Any) -> AsyncIterator[A]:
        try:
            async with aclosing(call(request)) as answers:
                async for one in answers:
                    yield one
        except Exception as error:  # noqa: BLE001 every one is told, as what it is
            await _fail(context, error)

    return answer


async def _fail(context: Any, error: Exception) -> NoReturn:
    """End a call with an error's status."""
    if isinstance(error, TimeoutError):
        error = UnavailableError(f"not done in {CALL_LIMIT_S:.0f} s")
    code, said = grpc.StatusCode.INTERNAL, "a defect of the state service; its log tells more"
    if isinstance(error, InferXError):
        code, said = code_of(error), str(error)
    if code is grpc.StatusCode.INTERNAL:
        _log.error("a call failed", exc_info=error)
    await context.abort(code, said, ((WORD, type(error).__name__),))
    raise AssertionError("a call goes on after its end")


def _bytes_of(message: Message) -> bytes:
    written: bytes = message.SerializeToString()
    return written
