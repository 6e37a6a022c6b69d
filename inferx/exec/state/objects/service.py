"""The objects as a gRPC service, to be served beside the store's."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import grpc

from inferx import __version__
from inferx.exec.state.objects import messages, methods
from inferx.exec.state.objects.objects import Objects
from inferx.exec.state.objects.proto import objects_pb2 as pb
from inferx.exec.state.objects.results import ANY_REVISION
from inferx.exec.state.objects.status import told
from inferx.exec.state.service import ANSWER_S, answering, streaming
from inferx.exec.state.store import StoreLeaseId
from inferx.exec.state.wire import parts

__all__ = ["ObjectsService"]


class ObjectsService:
    """Answers for the objects. Who calls is trusted to say on whose behalf."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a server of `grpc.aio` is given."""
        handlers = {
            methods.VERSION.name: answering(methods.VERSION, self._version, told),
            methods.UID.name: answering(methods.UID, self._uid, told),
            methods.GET.name: answering(methods.GET, self._get, told),
            methods.LIST.name: streaming(methods.LIST, self._list, told),
            methods.WATCH.name: streaming(methods.WATCH, self._watch, told),
            methods.CREATE.name: answering(methods.CREATE, self._create, told),
            methods.UPDATE.name: answering(methods.UPDATE, self._update, told),
            methods.APPLY.name: answering(methods.APPLY, self._apply, told),
            methods.DELETE.name: answering(methods.DELETE, self._delete, told),
        }
        return grpc.method_handlers_generic_handler(methods.SERVICE, handlers)

    async def _version(self, request: pb.VersionRequest) -> pb.VersionReply:
        del request
        return pb.VersionReply(version=__version__)

    async def _uid(self, request: pb.UidRequest) -> pb.UidReply:
        del request
        return pb.UidReply(uid=await self._objects.uid())

    async def _get(self, request: pb.GetRequest) -> pb.Object:
        return messages.object_to(await self._objects.get(messages.key_from(request.key)))

    async def _list(self, request: pb.ListRequest) -> AsyncGenerator[pb.ListPart, None]:
        async with asyncio.timeout(ANSWER_S):
            listed = await self._objects.list(messages.selection_from(request.selection))
        for part in parts([messages.object_to(one) for one in listed.objects]):
            yield pb.ListPart(objects=part, revision=listed.revision)

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
