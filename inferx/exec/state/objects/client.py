"""The objects of a state service elsewhere: what `Objects` offers, over a channel."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any, NoReturn

import grpc
import grpc.aio

from inferx.exec.state.members import Members
from inferx.exec.state.objects import messages, methods
from inferx.exec.state.objects.actor import Actor
from inferx.exec.state.objects.envelope import DataObject, Key
from inferx.exec.state.objects.proto import objects_pb2 as pb
from inferx.exec.state.objects.results import ANY_REVISION, Applied, Batch, Listed
from inferx.exec.state.objects.selector import Selection
from inferx.exec.state.objects.status import error_of
from inferx.exec.state.rpc import (
    END_OF_STREAM,
    A,
    Metadata,
    Method,
    Q,
    ask,
    ask_all,
    cancelled_here,
    listen,
)
from inferx.exec.state.store import NO_LEASE, StoreLeaseId, UnavailableError

__all__ = ["BEGIN_S", "DEADLINE_S", "RemoteObjects"]

DEADLINE_S = 10.0
"""Of a call, all its attempts together."""
BEGIN_S = 5.0
"""How long a service is given to begin a watch."""


class RemoteObjects:
    """The objects as state services have them; see `Objects` for what each call does.

    A call that fails on its way raises `UnavailableError`: it may have been done or not.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        credentials: grpc.ChannelCredentials | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """Connect when the first call is made.

        Args:
            endpoints: `host:port` of services over one store, at least one.
            credentials: None: in the clear.
            deadline_s: Of a call, all its attempts together.
        """
        self._members = Members("the objects", endpoints, credentials, deadline_s=deadline_s)

    async def version(self) -> str:
        """Return the version of the state service."""
        return (await self._often(methods.VERSION, pb.VersionRequest())).version

    async def uid(self) -> int:
        """Return a number above all that were returned before."""
        return (await self._often(methods.UID, pb.UidRequest())).uid

    async def get(self, key: Key) -> DataObject:
        """Return an object."""
        request = pb.GetRequest(key=messages.key_to(key))
        return messages.object_from(await self._often(methods.GET, request))

    async def list(self, selection: Selection) -> Listed:
        """Return the objects of a selection."""
        request = pb.ListRequest(selection=messages.selection_to(selection))
        replies = await self._members.call(self, methods.LIST, request, ask_all)
        objects = [messages.object_from(one) for reply in replies for one in reply.objects]
        return Listed(tuple(objects), replies[0].revision)

    async def changes(self, selection: Selection, after: int) -> AsyncGenerator[Batch, None]:
        """Yield what is committed after a revision, whatever its labels, until closed."""
        members = self._members
        channel = await members.channel()
        request = pb.WatchRequest(selection=messages.selection_to(selection), after=after)
        call = listen(channel, methods.WATCH, request)
        try:
            async with asyncio.timeout(BEGIN_S):
                reply = await call.read()
            while reply is not END_OF_STREAM:
                yield messages.batch_from(reply)
                reply = await call.read()
            members.leave(channel)
            raise UnavailableError(f"{members.name} ended a watch")
        except TimeoutError as error:
            members.leave(channel)
            within = f"within {BEGIN_S:.0f} s"
            raise UnavailableError(f"{members.name} did not begin a watch {within}") from error
        except grpc.aio.AioRpcError as error:
            members.leave(channel)
            self.fail(error)
        except asyncio.CancelledError:
            # Closing a channel ends its calls as if they were cancelled.
            if not cancelled_here():
                members.check_open()
            raise
        finally:
            call.cancel()

    async def create(
        self, one: DataObject, *, who: Actor, lease: StoreLeaseId = NO_LEASE
    ) -> DataObject:
        """Write an object that is not there."""
        request = pb.WriteRequest(
            object=messages.object_to(one), who=messages.actor_to(who), lease=lease
        )
        return messages.object_from(await self._once(methods.CREATE, request))

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
        return messages.object_from(await self._once(methods.UPDATE, request))

    async def apply(
        self, one: DataObject, *, who: Actor, lease: StoreLeaseId = NO_LEASE
    ) -> Applied:
        """Make an object be what is said of it."""
        request = pb.WriteRequest(
            object=messages.object_to(one), who=messages.actor_to(who), lease=lease
        )
        return messages.applied_from(await self._often(methods.APPLY, request))

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
        return messages.object_from(await self._once(methods.DELETE, request))

    async def close(self) -> None:
        """Close the connections; watches end."""
        await self._members.close()

    async def metadata(self, channel: Any) -> Metadata:
        """Return what goes with every call: nothing."""
        del channel
        return ()

    def left_undone(self, error: grpc.RpcError) -> bool:
        """Whether an error says that nothing was done: none that another attempt would mend."""
        del error
        return False

    def fail(self, error: grpc.RpcError) -> NoReturn:
        """Raise the error that a status tells."""
        raise error_of(error, self._members.name) from error

    async def _once(self, method: Method[Q, A], request: Q) -> A:
        """Call what must not be done twice."""
        return await self._members.call(self, method, request, ask, repeat=False)

    async def _often(self, method: Method[Q, A], request: Q) -> A:
        """Call what may be done twice."""
        return await self._members.call(self, method, request, ask)
