"""The store as a gRPC service, so that other processes use it."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import Message

from inferx.exec.received import NO_MESSAGE, Unreadable, reading
from inferx.exec.state import wire
from inferx.exec.state.proto import state_pb2 as pb
from inferx.exec.state.rpc import Metadata, Method, bytes_of
from inferx.exec.state.store import (
    RefusedError,
    Store,
    StoreError,
    StoreLeaseId,
    UnavailableError,
)
from inferx.exec.state.wire import code_of, from_commit, list_parts, to_entry, watch_parts

__all__ = ["ANSWER_S", "StoreService", "Tell", "answering", "fail", "streaming", "told"]

ANSWER_S = 30.0
"""After which a call that its caller still waits for is given up."""

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)

_log = logging.getLogger(__name__)


class StoreService:
    """Answers for a store. A watcher that is slow is held back, and in the end told to list again.

    Nothing is queued for it here: it waits for its reader in gRPC's window, and then in the store's
    history.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a server of `grpc.aio` is given."""
        return grpc.method_handlers_generic_handler(
            wire.SERVICE,
            {
                wire.GET.name: answering(wire.GET, self._get),
                wire.LIST.name: streaming(wire.LIST, self._list),
                wire.COMMIT.name: answering(wire.COMMIT, self._commit),
                wire.GRANT.name: answering(wire.GRANT, self._grant),
                wire.KEEP_ALIVE.name: answering(wire.KEEP_ALIVE, self._keep_alive),
                wire.REVOKE.name: answering(wire.REVOKE, self._revoke),
                wire.WATCH.name: streaming(wire.WATCH, self._watch),
            },
        )

    async def _get(self, request: pb.GetRequest) -> pb.GetReply:
        entry = await self._store.get(request.key)
        return pb.GetReply(entry=None if entry is None else to_entry(entry))

    async def _list(self, request: pb.ListRequest) -> AsyncGenerator[pb.ListReply, None]:
        async with asyncio.timeout(ANSWER_S):
            listing = await self._store.list(request.prefix)
        for part in list_parts(listing):
            yield part

    async def _commit(self, request: pb.CommitRequest) -> pb.CommitReply:
        expects, changes = from_commit(request)
        return pb.CommitReply(revision=await self._store.commit(expects, changes))

    async def _grant(self, request: pb.GrantRequest) -> pb.GrantReply:
        return pb.GrantReply(lease=await self._store.grant(request.ttl_s))

    async def _keep_alive(self, request: pb.LeaseRequest) -> pb.Done:
        await self._store.keep_alive(StoreLeaseId(request.lease))
        return pb.Done()

    async def _revoke(self, request: pb.LeaseRequest) -> pb.Done:
        await self._store.revoke(StoreLeaseId(request.lease))
        return pb.Done()

    async def _watch(self, request: pb.WatchRequest) -> AsyncGenerator[pb.WatchReply, None]:
        async with aclosing(self._store.watch(request.prefix, request.after)) as watch:
            async for item in watch:
                for part in watch_parts(item):
                    yield part


Tell = Callable[[Exception], tuple[grpc.StatusCode, str, Metadata] | None]
"""How a service tells an error: status, words, and what goes with them; None: it is a defect."""


def told(error: Exception) -> tuple[grpc.StatusCode, str, Metadata] | None:
    """Tell an error of a store."""
    return (code_of(error), str(error), ()) if isinstance(error, StoreError) else None


def answering(method: Method[Q, A], call: Callable[[Q], Awaitable[A]], tell: Tell = told) -> Any:
    """Return the handler of a method that answers once."""

    async def answer(request: Q | Unreadable, context: Any) -> A:
        try:
            async with asyncio.timeout(ANSWER_S):
                return await call(_read(request))
        except Exception as error:  # noqa: BLE001 - every one is told, as what it is.
            await fail(context, error, tell)

    return grpc.unary_unary_rpc_method_handler(
        answer, request_deserializer=reading(method.request), response_serializer=bytes_of
    )


def streaming(
    method: Method[Q, A], call: Callable[[Q], AsyncGenerator[A, None]], tell: Tell = told
) -> Any:
    """Return the handler of a method that answers for as long as it is listened to."""

    async def answer(request: Q | Unreadable, context: Any) -> AsyncGenerator[A, None]:
        try:
            async with aclosing(call(_read(request))) as answers:
                async for each in answers:
                    yield each
        except Exception as error:  # noqa: BLE001 - every one is told, as what it is.
            await fail(context, error, tell)

    return grpc.unary_stream_rpc_method_handler(
        answer, request_deserializer=reading(method.request), response_serializer=bytes_of
    )


def _read(request: Q | Unreadable) -> Q:
    if isinstance(request, Unreadable):
        raise RefusedError(NO_MESSAGE)
    return request


async def fail(context: Any, error: Exception, tell: Tell = told) -> NoReturn:
    """End a call with an error's status."""
    if isinstance(error, TimeoutError):
        error = UnavailableError(f"not done within {ANSWER_S:.0f} s")
    status = tell(error)
    if status is not None:
        await context.abort(*status)
    _log.error("a call failed", exc_info=error)
    defect = "a defect of the state service, whose log tells more"
    await context.abort(grpc.StatusCode.INTERNAL, defect)
    raise AssertionError("a call goes on after its end")
