"""The entries of a store in this process, by key, under one revision. No IO, no clock."""

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence

from inferx.exec.state.limits import prefix_end
from inferx.exec.state.store import (
    ABSENT,
    NO_LEASE,
    Change,
    Committed,
    Deleted,
    Entry,
    Expect,
    Put,
    StoreLeaseId,
)

__all__ = ["Table"]


class Table:
    """Keys and what is under them now, and which lease holds which keys.

    Attributes:
        revision: Of the latest commit.
    """

    __slots__ = ("_entries", "_held", "_keys", "revision")

    def __init__(self, revision: int, entries: Iterable[Entry] = ()) -> None:
        self.revision = revision
        self._entries = {entry.key: entry for entry in entries}
        self._keys = sorted(self._entries)
        self._held: dict[StoreLeaseId, set[str]] = {}
        for entry in self._entries.values():
            self._attach(entry)

    def get(self, key: str) -> Entry | None:
        """Return what is under a key."""
        return self._entries.get(key)

    def under(self, prefix: str) -> tuple[Entry, ...]:
        """Return what is under a prefix, by key."""
        begin = bisect_left(self._keys, prefix)
        end = bisect_left(self._keys, prefix_end(prefix))
        return tuple(self._entries[key] for key in self._keys[begin:end])

    def holds(self, expects: Sequence[Expect]) -> bool:
        """Whether every condition is met."""
        for expect in expects:
            entry = self._entries.get(expect.key)
            if (ABSENT if entry is None else entry.modified) != expect.modified:
                return False
        return True

    def held(self, lease: StoreLeaseId) -> list[str]:
        """Return the keys that are there under a lease, in order."""
        return sorted(self._held.get(lease, ()))

    def commit(self, changes: Sequence[Change]) -> Committed | None:
        """Make all changes under one new revision; None if there is nothing to change."""
        effective = [each for each in changes if isinstance(each, Put) or each.key in self._entries]
        if not effective:
            return None
        self.revision += 1
        done = [self._change(each) for each in effective]
        done.sort(key=lambda each: each.key)
        return Committed(self.revision, tuple(done))

    def _change(self, change: Change) -> Entry | Deleted:
        key = change.key
        before = self._entries.get(key)
        if before is not None and before.lease != NO_LEASE:
            held = self._held[before.lease]
            held.discard(key)
            if not held:
                del self._held[before.lease]
        if not isinstance(change, Put):
            del self._entries[key]
            del self._keys[bisect_left(self._keys, key)]
            return Deleted(key)
        if before is None:
            insort(self._keys, key)
        entry = Entry(key, change.value, self.revision, change.lease)
        self._entries[key] = entry
        self._attach(entry)
        return entry

    def _attach(self, entry: Entry) -> None:
        if entry.lease != NO_LEASE:
            self._held.setdefault(entry.lease, set()).add(entry.key)
