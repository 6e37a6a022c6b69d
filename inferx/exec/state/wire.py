"""The store's messages: how its types, methods and errors travel; used by both ends."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from inferx.exec.state.proto import state_pb2 as pb
from inferx.exec.state.rpc import Method, said
from inferx.exec.state.store import (
    Bookmark,
    Change,
    Committed,
    Delete,
    Deleted,
    Entry,
    Expect,
    LeaseLostError,
    Listing,
    Put,
    RefusedError,
    StoreError,
    StoreLeaseId,
    TooOldError,
    UnavailableError,
)

__all__ = [
    "COMMIT",
    "GET",
    "GRANT",
    "KEEP_ALIVE",
    "LIST",
    "REVOKE",
    "SERVICE",
    "WATCH",
    "code_of",
    "commit_request",
    "error_of",
    "from_changed",
    "from_commit",
    "from_entry",
    "list_parts",
    "to_entry",
    "watch_parts",
]

SERVICE = "inferx.state.v1.Store"

GET = Method(SERVICE, "Get", pb.GetRequest, pb.GetReply)
LIST = Method(SERVICE, "List", pb.ListRequest, pb.ListReply)
COMMIT = Method(SERVICE, "Commit", pb.CommitRequest, pb.CommitReply)
GRANT = Method(SERVICE, "Grant", pb.GrantRequest, pb.GrantReply)
KEEP_ALIVE = Method(SERVICE, "KeepAlive", pb.LeaseRequest, pb.Done)
REVOKE = Method(SERVICE, "Revoke", pb.LeaseRequest, pb.Done)
WATCH = Method(SERVICE, "Watch", pb.WatchRequest, pb.WatchReply)

M = TypeVar("M", bound=Message)

PART_BYTES = 1 << 20
"""Of a listing or a commit, in one message; a single entry may be larger."""

CODES: tuple[tuple[type[StoreError], grpc.StatusCode], ...] = (
    (RefusedError, grpc.StatusCode.INVALID_ARGUMENT),
    (TooOldError, grpc.StatusCode.OUT_OF_RANGE),
    (LeaseLostError, grpc.StatusCode.FAILED_PRECONDITION),
    (UnavailableError, grpc.StatusCode.UNAVAILABLE),
    (StoreError, grpc.StatusCode.INTERNAL),
)


def code_of(error: StoreError) -> grpc.StatusCode:
    """Return the status that tells an error: the only place for this end."""
    return next(code for kind, code in CODES if isinstance(error, kind))


def error_of(error: grpc.RpcError, where: str) -> StoreError:
    """Return the error that a status tells: the only place for the other end."""
    status: Any = error
    words = said(error)
    match status.code():
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return UnavailableError(f"{where} did not answer in time")
        case grpc.StatusCode.CANCELLED | grpc.StatusCode.UNAVAILABLE:
            return UnavailableError(f"{where}: {words}")
        case code:
            kind = next((kind for kind, known in CODES if known == code), StoreError)
            return kind(words if kind is not StoreError else f"{where}: {words}")


def to_entry(entry: Entry) -> pb.Entry:
    """Return an entry as it travels."""
    return pb.Entry(key=entry.key, value=entry.value, modified=entry.modified, lease=entry.lease)


def from_entry(entry: pb.Entry) -> Entry:
    """Return an entry that came."""
    return Entry(entry.key, entry.value, entry.modified, StoreLeaseId(entry.lease))


def commit_request(expects: Sequence[Expect], changes: Sequence[Change]) -> pb.CommitRequest:
    """Return a commit as it travels."""
    return pb.CommitRequest(
        expects=[pb.Expect(key=each.key, modified=each.modified) for each in expects],
        changes=[to_change(each) for each in changes],
    )


def to_change(change: Change) -> pb.Change:
    """Return a change as it travels."""
    if isinstance(change, Put):
        put = pb.Put(key=change.key, value=change.value, lease=change.lease)
        return pb.Change(put=put)
    return pb.Change(delete=pb.Delete(key=change.key))


def from_commit(request: pb.CommitRequest) -> tuple[list[Expect], list[Change]]:
    """Return a commit that came."""
    changes: list[Change] = []
    for change in request.changes:
        match change.WhichOneof("change"):
            case "put":
                put = change.put
                changes.append(Put(put.key, put.value, StoreLeaseId(put.lease)))
            case "delete":
                changes.append(Delete(change.delete.key))
            case _:
                raise RefusedError("a change that is neither a put nor a delete")
    return [Expect(each.key, each.modified) for each in request.expects], changes


def list_parts(listing: Listing) -> Iterator[pb.ListReply]:
    """Yield a listing as it travels."""
    for part in parts([to_entry(each) for each in listing.entries]):
        yield pb.ListReply(entries=part, revision=listing.revision)


def watch_parts(item: Committed | Bookmark) -> Iterator[pb.WatchReply]:
    """Yield what a watch gave as it travels: a commit may take several messages."""
    if isinstance(item, Bookmark):
        yield pb.WatchReply(revision=item.revision)
        return
    found = parts([to_changed(each) for each in item.changes])
    for number, part in enumerate(found, 1):
        yield pb.WatchReply(revision=item.revision, changes=part, partial=number < len(found))


def from_changed(changed: pb.Changed) -> Entry | Deleted:
    """Return what a commit did to one key, as it came."""
    if changed.WhichOneof("changed") == "entry":
        return from_entry(changed.entry)
    return Deleted(changed.deleted)


def to_changed(change: Entry | Deleted) -> pb.Changed:
    """Return what a commit did to one key, as it travels."""
    if isinstance(change, Entry):
        return pb.Changed(entry=to_entry(change))
    return pb.Changed(deleted=change.key)


def parts(messages: Sequence[M]) -> list[list[M]]:
    """Return messages in parts that are not too large; one part at least."""
    found: list[list[M]] = [[]]
    size = 0
    for message in messages:
        more = message.ByteSize()
        if found[-1] and size + more > PART_BYTES:
            found.append([])
            size = 0
        found[-1].append(message)
        size += more
    return found
