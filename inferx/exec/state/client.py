"""The store of another process, over gRPC."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any, NoReturn

import grpc
import grpc.aio

from inferx.exec.state import wire
from inferx.exec.state.limits import check_commit, check_key, check_prefix, check_ttl
from inferx.exec.state.members import Members
from inferx.exec.state.proto import state_pb2 as pb
from inferx.exec.state.rpc import END_OF_STREAM, Metadata, ask, ask_all, cancelled_here, listen
from inferx.exec.state.store import (
    Bookmark,
    Change,
    Committed,
    Deleted,
    Entry,
    Expect,
    Listing,
    StoreLeaseId,
    UnavailableError,
)
from inferx.exec.state.wire import commit_request, error_of, from_changed, from_entry

__all__ = ["DEADLINE_S", "RemoteStore"]

DEADLINE_S = 10.0
"""Of a call: longer than the state service itself waits for etcd."""
BEGIN_S = 5.0
"""How long a service is given to begin a watch."""


class RemoteStore:
    """See the laws of `store`."""

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
        self._members = Members("the store", endpoints, credentials, deadline_s=deadline_s)

    async def get(self, key: str) -> Entry | None:
        """Return a key's entry, or None if it is not there."""
        check_key(key)
        reply = await self._members.call(self, wire.GET, pb.GetRequest(key=key), ask)
        return from_entry(reply.entry) if reply.HasField("entry") else None

    async def list(self, prefix: str) -> Listing:
        """Return everything under a prefix, which ends in `/`."""
        check_prefix(prefix)
        replies = await self._members.call(self, wire.LIST, pb.ListRequest(prefix=prefix), ask_all)
        entries = tuple(from_entry(each) for reply in replies for each in reply.entries)
        return Listing(entries, replies[0].revision)

    async def commit(self, expects: Sequence[Expect], changes: Sequence[Change]) -> int | None:
        """Make all changes in one commit if every condition holds; see `Store`."""
        check_commit(expects, changes)
        request = commit_request(expects, changes)
        reply = await self._members.call(self, wire.COMMIT, request, ask, repeat=not changes)
        return reply.revision if reply.HasField("revision") else None

    async def grant(self, ttl_s: float) -> StoreLeaseId:
        """Return a new lease that runs out `ttl_s` seconds after it was last kept alive."""
        check_ttl(ttl_s)
        # Done twice it leaves a lease behind, which runs out by itself.
        reply = await self._members.call(self, wire.GRANT, pb.GrantRequest(ttl_s=ttl_s), ask)
        return StoreLeaseId(reply.lease)

    async def keep_alive(self, lease: StoreLeaseId) -> None:
        """Begin a lease's time anew; see `Store`."""
        await self._members.call(self, wire.KEEP_ALIVE, pb.LeaseRequest(lease=lease), ask)

    async def revoke(self, lease: StoreLeaseId) -> None:
        """End a lease and all that was put under it; one that is no more is no error."""
        await self._members.call(self, wire.REVOKE, pb.LeaseRequest(lease=lease), ask)

    async def watch(self, prefix: str, after: int) -> AsyncGenerator[Committed | Bookmark, None]:
        """Yield what is committed under a prefix after revision `after`; see `Store`."""
        check_prefix(prefix)
        members = self._members
        members.check_open()
        channel = await members.channel()
        call = listen(channel, wire.WATCH, pb.WatchRequest(prefix=prefix, after=after))
        try:
            async with asyncio.timeout(BEGIN_S):
                reply = await call.read()
            changes: list[Entry | Deleted] = []
            while reply is not END_OF_STREAM:
                changes += map(from_changed, reply.changes)
                if not reply.partial:
                    if changes:
                        yield Committed(reply.revision, tuple(changes))
                    else:
                        yield Bookmark(reply.revision)
                    changes = []
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
            if cancelled_here() or not members.closed:
                raise
        finally:
            call.cancel()

    async def close(self) -> None:
        """Close the connections; watches end."""
        await self._members.close()

    async def metadata(self, channel: Any) -> Metadata:
        """Return what goes with every call: nothing."""
        del channel
        return ()

    def left_undone(self, error: grpc.RpcError) -> bool:
        """Whether an error says that nothing was done: none of this service does."""
        del error
        return False

    def fail(self, error: grpc.RpcError) -> NoReturn:
        """Raise the error that a status tells."""
        raise error_of(error, self._members.name) from error
