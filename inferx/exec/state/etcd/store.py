"""The store over etcd's v3 API: revisions, leases and history are etcd's own.

Who compacts the history is etcd's operator (`--auto-compaction-retention`); a watch that is behind
it is told to list again. A lease lasts whole seconds, rounded up.
"""

import math
from collections.abc import AsyncGenerator, Sequence

from inferx.exec.state.etcd import etcd_pb2 as pb
from inferx.exec.state.etcd.client import (
    LEASE_GRANT,
    LEASE_REVOKE,
    RANGE,
    TXN,
    AnswerTooLargeError,
    Client,
)
from inferx.exec.state.etcd.entry import entry
from inferx.exec.state.etcd.watch import watch
from inferx.exec.state.limits import check_commit, check_key, check_prefix, check_ttl, prefix_end
from inferx.exec.state.memory import BOOKMARK_S
from inferx.exec.state.store import (
    NO_LEASE,
    Bookmark,
    Change,
    Committed,
    Entry,
    Expect,
    LeaseLostError,
    Listing,
    Put,
    StoreLeaseId,
    TooOldError,
    UnavailableError,
)

__all__ = ["EtcdStore"]

PAGE_KEYS = 512
"""Of a listing, asked for at once; fewer where they are large."""
LIST_ATTEMPTS = 3
"""Of a listing whose revision was compacted away while it was read."""


class EtcdStore:
    """See the laws of `store`."""

    def __init__(self, client: Client, *, bookmark_s: float = BOOKMARK_S) -> None:
        """Use a client, and close it when this is closed."""
        self._client = client
        self._bookmark_s = bookmark_s

    async def get(self, key: str) -> Entry | None:
        """Return a key's entry, or None if it is not there."""
        check_key(key)
        reply = await self._client.call(RANGE, pb.RangeRequest(key=key.encode()))
        return entry(reply.kvs[0]) if reply.kvs else None

    async def list(self, prefix: str) -> Listing:
        """Return everything under a prefix, which ends in `/`."""
        check_prefix(prefix)
        for _ in range(LIST_ATTEMPTS):
            try:
                return await self._list(prefix)
            except TooOldError:
                continue
        raise UnavailableError(
            f"{prefix} was compacted {LIST_ATTEMPTS} times while it was read: expected history to "
            "be kept for longer"
        )

    async def _list(self, prefix: str) -> Listing:
        begin, end = prefix.encode(), prefix_end(prefix).encode()
        entries: list[Entry] = []
        revision, limit, more = 0, PAGE_KEYS, True
        while more:
            request = pb.RangeRequest(key=begin, range_end=end, limit=limit, revision=revision)
            try:
                reply = await self._client.call(RANGE, request)
            except AnswerTooLargeError:
                if limit == 1:
                    raise
                limit //= 2
                continue
            revision = revision or reply.header.revision
            entries += map(entry, reply.kvs)
            more = reply.more
            begin = reply.kvs[-1].key + b"\0" if reply.kvs else end
        return Listing(tuple(entries), revision)

    async def commit(self, expects: Sequence[Expect], changes: Sequence[Change]) -> int | None:
        """Make all changes in one commit if every condition holds; see `Store`."""
        check_commit(expects, changes)
        compare = [
            pb.Compare(
                result=pb.Compare.EQUAL,
                target=pb.Compare.MOD,
                key=expect.key.encode(),
                mod_revision=expect.modified,
            )
            for expect in expects
        ]
        # Without any operation etcd would not ask its leader, and answer from what it has.
        read = pb.RequestOp(request_range=pb.RangeRequest(key=b"\0", count_only=True))
        success = [operation(change) for change in changes] or [read]
        request = pb.TxnRequest(compare=compare, success=success, failure=[read])
        try:
            reply = await self._client.call(TXN, request, repeat=not changes)
        except LeaseLostError as error:
            leases = {each.lease for each in changes if isinstance(each, Put)} - {NO_LEASE}
            among = " or ".join(map(str, sorted(leases)))
            raise LeaseLostError(f"lease {among} has run out: nothing is put under it") from error
        return reply.header.revision if reply.succeeded else None

    async def grant(self, ttl_s: float) -> StoreLeaseId:
        """Return a new lease for `ttl_s` seconds, rounded up to whole ones."""
        check_ttl(ttl_s)
        # Done twice it leaves a lease behind, which runs out by itself.
        reply = await self._client.call(LEASE_GRANT, pb.LeaseGrantRequest(TTL=math.ceil(ttl_s)))
        return StoreLeaseId(reply.ID)

    async def keep_alive(self, lease: StoreLeaseId) -> None:
        """Begin a lease's time anew; see `Store`."""
        if lease == NO_LEASE or await self._client.keep_alive(lease) <= 0:
            raise LeaseLostError(f"lease {lease} has run out: it cannot be kept alive")

    async def revoke(self, lease: StoreLeaseId) -> None:
        """End a lease and all that was put under it; one that is no more is no error."""
        if lease == NO_LEASE:
            return
        try:
            await self._client.call(LEASE_REVOKE, pb.LeaseRequest(ID=lease))
        except LeaseLostError:
            return

    def watch(self, prefix: str, after: int) -> AsyncGenerator[Committed | Bookmark, None]:
        """Yield what is committed under a prefix after revision `after`; see `Store`."""
        return watch(self._client, prefix, after, bookmark_s=self._bookmark_s)

    async def close(self) -> None:
        """Close the connections; watches end."""
        await self._client.members.close()


def operation(change: Change) -> pb.RequestOp:
    """Return a change as etcd takes it."""
    key = change.key.encode()
    if isinstance(change, Put):
        put = pb.PutRequest(key=key, value=change.value, lease=change.lease)
        return pb.RequestOp(request_put=put)
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key))
