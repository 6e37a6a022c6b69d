"""The objects of a state service elsewhere: what `Objects` offers, over a channel."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import Message

from inferx.exec.state.objects import messages
from inferx.exec.state.objects.actor import Actor
from inferx.exec.state.objects.envelope import DataObject, Key
from inferx.exec.state.objects.proto import objects_pb2 as pb
from inferx.exec.state.objects.results import ANY_REVISION, Applied, Batch, Listed
from inferx.exec.state.objects.selector import Selection
from inferx.exec.state.objects.service import SERVICE
from inferx.exec.state.objects.status import WORD, error_of
from inferx.exec.state.store import NO_LEASE, StoreLeaseId, UnavailableError

__all__ = ["CALL_S", "RemoteObjects"]

CALL_S = 10.0
"""How long a call may take."""

A = TypeVar("A", bound=Message)


class RemoteObjects:
    """The objects as a state service has them; see `Objects` for what each call does.

    A call that fails on its way raises `UnavailableError`: it may have been done or not.

    Args:
        channel: Of `grpc.aio`, to the service; whoever opened it closes it.
        call_s: The deadline of each call but a watch.
    """

    def __init__(self, channel: Any, *, call_s: float = CALL_S) -> None:
        self._channel = channel
        self._call_s = call_s

    async def version(self) -> str:
        """Return the version of the state service."""
        return (await self._call("Version", pb.VersionRequest(), pb.VersionReply)).version

    async def uid(self) -> int:
        """Return a number above all that were returned before."""
        return (await self._call("Uid", pb.UidRequest(), pb.UidReply)).uid

    async def get(self, key: Key) -> DataObject:
        """Return an object."""
        request = pb.GetRequest(key=messages.key_to(key))
        return messages.object_from(await self._call("Get", request, pb.Object))

    async def list(self, selection: Selection) -> Listed:
        """Return the objects of a selection."""
        request = pb.ListRequest(selection=messages.selection_to(selection))
        objects: list[DataObject] = []
        revision = 0
        async with aclosing(self._stream("List", request, pb.ListPart, self._call_s)) as parts:
            async for part in parts:
                objects += map(messages.object_from, part.objects)
                revision = part.revision
        return Listed(tuple(objects), revision)

    async def changes(self, selection: Selection, after: int) -> AsyncGenerator[Batch, None]:
        """Yield what is committed after a revision, whatever its labels, until closed."""
        request = pb.WatchRequest(selection=messages.selection_to(selection), after=after)
        async with aclosing(self._stream("Watch", request, pb.Batch, None)) as batches:
            async for message in batches:
                yield messages.batch_from(message)

    async def create(
        self, one: DataObject, *, who: Actor, lease: StoreLeaseId = NO_LEASE
    ) -> DataObject:
        """Write an object that is not there."""
        request = pb.WriteRequest(
            object=messages.object_to(one), who=messages.actor_to(who), lease=lease
        )
        return messages.object_from(await self._call("Create", request, pb.Object))

    async def update(
        self, one: DataObject, *, who: Actor, expected: int, lease: StoreLeaseId = NO_LEASE
    ) -> DataObject:
        """Replace an object that is still as it was read."""
        request = pb.UpdateRequest(
            object=messages.object_to(one),
            who=messages.actor_to(who),
            lease=lease,
            expected=expected,
            force=expected == ANY_REVISION,
        )
        return messages.object_from(await self._call("Update", request, pb.Object))

    async def apply(
        self, one: DataObject, *, who: Actor, lease: StoreLeaseId = NO_LEASE
    ) -> Applied:
        """Make an object be what is said of it."""
        request = pb.WriteRequest(
            object=messages.object_to(one), who=messages.actor_to(who), lease=lease
        )
        return messages.applied_from(await self._call("Apply", request, pb.ApplyReply))

    async def delete(
        self, key: Key, *, who: Actor, expected: int = ANY_REVISION, cascade: bool = False
    ) -> DataObject:
        """Remove an object, and what is in it if `cascade`."""
        request = pb.DeleteRequest(
            key=messages.key_to(key),
            who=messages.actor_to(who),
            expected=max(expected, 0),
            cascade=cascade,
        )
        return messages.object_from(await self._call("Delete", request, pb.Object))

    async def _call(self, method: str, request: Message, reply: type[A]) -> A:
        call = self._channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=_bytes_of,
            response_deserializer=reply.FromString,
        )
        with _told():
            return cast("A", await call(request, timeout=self._call_s))

    async def _stream(
        self, method: str, request: Message, reply: type[A], timeout_s: float | None
    ) -> AsyncGenerator[A, None]:
        open_call: Callable[..., Any] = self._channel.unary_stream(
            f"/{SERVICE}/{method}",
            request_serializer=_bytes_of,
            response_deserializer=reply.FromString,
        )
        call = open_call(request, timeout=timeout_s)
        try:
            with _told():
                async for message in call:
                    yield message
        finally:
            call.cancel()


@contextmanager
def _told() -> Generator[None, None, None]:
    """Raise what the service told, or that it cannot be reached."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        said = " ".join((error.details() or "").split())
        words = [value for key, value in error.trailing_metadata() or () if key == WORD]
        raise error_of(error.code(), str(words[0]) if words else None, said) from error
    except asyncio.CancelledError as error:
        # gRPC cancels the calls of a channel that is closed, as if their task were cancelled.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise UnavailableError("the state service: the channel is closed") from error


def _bytes_of(message: Message) -> bytes:
    written: bytes = message.SerializeToString()
    return written
