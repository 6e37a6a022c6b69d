"""Where a cluster's state lives: keys and values under one growing revision, leases, watches.

Laws, which one conformance suite holds every implementation to:
1. Every commit is atomic and has a revision of its own, greater than all before it.
2. Reads are linearisable: what was committed before a read began is seen by it.
3. A watch gives every commit that touches its prefix, once, in order, whole; or it says that the
   place to go on from is too old, and the reader lists again. Nothing is queued for a slow reader:
   it is a place in the history, which the history may leave behind.
4. A prefix ends in `/`, a key does not: tenant `t1` is never answered for with what is `t10`'s.
5. What is put under a lease is gone, as one commit like any other, when the lease has run out.
6. A commit's conditions are looked at first, then its leases, then all is changed or nothing.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import NewType, Protocol

import msgspec

from inferx.core.errors import InferXError

__all__ = [
    "ABSENT",
    "NO_LEASE",
    "Bookmark",
    "Change",
    "Committed",
    "Delete",
    "Deleted",
    "Entry",
    "Expect",
    "LeaseLostError",
    "Listing",
    "Put",
    "RefusedError",
    "Store",
    "StoreError",
    "StoreLeaseId",
    "TooOldError",
    "UnavailableError",
]

StoreLeaseId = NewType("StoreLeaseId", int)

NO_LEASE = StoreLeaseId(0)
ABSENT = 0
"""The revision that a key which is not there was modified at."""


class StoreError(InferXError):
    """The store could not do what was asked."""


class RefusedError(StoreError):
    """What was asked is nothing that a store takes; see `limits`."""


class UnavailableError(StoreError):
    """The store cannot be reached, has no leader or is closed: what was asked may yet be done."""


class TooOldError(StoreError):
    """The history to go on from is not kept, or never was: list again, and watch from there."""


class LeaseLostError(StoreError):
    """A lease has run out or was revoked; what was put under it is gone."""


class Entry(msgspec.Struct, frozen=True):
    """A key that is there, and when it was last changed."""

    key: str
    value: bytes
    modified: int
    lease: StoreLeaseId = NO_LEASE


class Expect(msgspec.Struct, frozen=True):
    """A commit's condition: the key was last modified at this revision; `ABSENT`: is not there."""

    key: str
    modified: int


class Put(msgspec.Struct, frozen=True):
    """Set a key, under a lease or for good."""

    key: str
    value: bytes
    lease: StoreLeaseId = NO_LEASE


class Delete(msgspec.Struct, frozen=True):
    """Remove a key; one that is not there changes nothing."""

    key: str


Change = Put | Delete


class Listing(msgspec.Struct, frozen=True):
    """The entries under a prefix, by key, as they were at one revision."""

    entries: tuple[Entry, ...]
    revision: int


class Deleted(msgspec.Struct, frozen=True):
    """A key that a commit removed."""

    key: str


class Committed(msgspec.Struct, frozen=True):
    """What one commit did under a watched prefix, by key."""

    revision: int
    changes: tuple[Entry | Deleted, ...]


class Bookmark(msgspec.Struct, frozen=True):
    """All that touches a watched prefix up to a revision was given: it is safe to go on from."""

    revision: int


class Store(Protocol):
    """The one interface; see the module's laws. Every call raises `UnavailableError` where due."""

    async def get(self, key: str) -> Entry | None:
        """Return a key's entry, or None if it is not there."""
        ...

    async def list(self, prefix: str) -> Listing:
        """Return everything under a prefix, which ends in `/`."""
        ...

    async def commit(self, expects: Sequence[Expect], changes: Sequence[Change]) -> int | None:
        """Make all changes in one commit if every condition holds.

        Returns:
            The commit's revision; None if a condition does not hold, and nothing was changed. A
            commit that changes nothing gives the present revision.

        Raises:
            LeaseLostError: Something was to be put under a lease that is no more.
            RefusedError: A key twice in it, or more than `limits` allow.
        """
        ...

    async def grant(self, ttl_s: float) -> StoreLeaseId:
        """Return a new lease, for `ttl_s` seconds, or little more, after it was last kept alive."""
        ...

    async def keep_alive(self, lease: StoreLeaseId) -> None:
        """Begin a lease's time anew.

        Raises:
            LeaseLostError: It has run out already.
        """
        ...

    async def revoke(self, lease: StoreLeaseId) -> None:
        """End a lease and all that was put under it; one that is no more is no error."""
        ...

    def watch(self, prefix: str, after: int) -> AsyncGenerator[Committed | Bookmark, None]:
        """Yield what is committed under a prefix after revision `after`, until closed.

        The first is a bookmark of `after`: the watch stands. Others come when it has been silent
        for a while. A watch that could not go on is begun again after the last revision it gave.

        Raises:
            TooOldError: Commits after `after` are no longer kept, or `after` has not been.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and files; watches end."""
        ...
