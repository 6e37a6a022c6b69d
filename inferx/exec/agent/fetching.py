"""Where a restore reads: the tier that the scheduler named, or a warmer one that has the snapshot.

What a restore is to keep is fetched to the node's disk first, for good if the restore succeeds;
what lies in a bucket is fetched in any case, for as long as the restore takes if it is not to be
kept. A colder tier than the one that was named is never read instead: the scheduler has reckoned
with the time and the room of the one it named.
"""

import contextlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Final

from inferx.exec.agent.phases import Phases
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store import FolderTier, Found, Held, SnapshotStore, Tier, TierName
from inferx.exec.agent.store.holds import FolderHold

__all__ = ["newest_within", "reading"]

_DISK: Final[TierName] = "nvme"
_FAR: Final[TierName] = "shared"


def newest_within(store: SnapshotStore, function: str, coldest: TierName | None) -> Found:
    """Return a function's newest snapshot that is on `coldest` or on a warmer tier.

    Raises:
        AgentError: There is none.
    """
    within = _within(store, coldest)
    found = store.newest(function, tiers=within)
    if found is None:
        where = f"; expected one on {' or '.join(within)}" if coldest else ""
        raise AgentError(f"no snapshot of {function} on this node{where}")
    return found


@contextmanager
def reading(
    store: SnapshotStore,
    found: Found,
    holder: str,
    phases: Phases,
    kept: contextlib.ExitStack,
    *,
    now_ns: int,
    coldest: TierName | None = None,
    keep: bool = False,
) -> Generator[tuple[Tier, Held]]:
    """Hold the copy of a snapshot that is to be read.

    It is fetched to this node before, with `keep` from a folder and in any case from a bucket.
    What is to stay goes again if the body fails: it is not where nobody knows of it. What is not
    goes when `kept` is closed, which its caller does when nobody reads it any more.

    Raises:
        AgentError: It is not where it is to be read, or cannot be fetched.
    """
    snapshot, size_bytes = found.manifest.id, found.manifest.size_bytes
    within = _within(store, coldest)
    folders: list[TierName] = [tier.name for tier in store.tiers if isinstance(tier, FolderTier)]
    with contextlib.ExitStack() as always, contextlib.ExitStack() as undo:
        there = store.warmest(snapshot, within)
        if there is not None and there.name == _FAR and (keep or _FAR not in folders):
            with phases.step("fetch", size_bytes):
                to = _DISK if keep else _place(store, size_bytes, folders)
                if keep:
                    store.make_room(to, size_bytes)
                store.promote(snapshot, to)
            fetched = _Fetched(store, snapshot, to)
            if keep:
                undo.callback(fetched.drop)
            else:
                # Whichever of the two ends last finds it unused.
                always.callback(fetched.drop)
                kept.callback(fetched.drop)
        readable: list[TierName] = [name for name in within if name in folders]
        tier, held = store.hold(snapshot, holder, now_ns=now_ns, tiers=readable)
        assert isinstance(held, FolderHold), "the tiers are folders"
        with held:
            yield tier, held
        undo.pop_all()


def _within(store: SnapshotStore, coldest: TierName | None) -> Sequence[TierName]:
    """Return the tiers down to a certain one, warmest first."""
    names: list[TierName] = [tier.name for tier in store.tiers]
    if coldest is None:
        return names
    if coldest not in names:
        raise AgentError(f"this node has no tier {coldest}; it has {', '.join(names)}")
    return names[: names.index(coldest) + 1]


def _place(store: SnapshotStore, size_bytes: int, folders: Sequence[TierName]) -> TierName:
    """Return the coldest folder that has room, for as long as a restore takes.

    Nothing goes for it: the scheduler counts on what is here, and does not know of this.
    """
    error: AgentError | None = None
    for name in reversed(folders):
        try:
            store.tier(name).require_room(size_bytes)
        except AgentError as full:
            error = error or full
        else:
            return name
    raise error or AgentError(
        f"tier {_FAR} is a bucket: expected a tier {_DISK} or dram to fetch to", phase="room"
    )


class _Fetched:
    """A copy that is on this node for one restore."""

    def __init__(self, store: SnapshotStore, snapshot: str, name: TierName) -> None:
        self._store = store
        self._snapshot = snapshot
        self._name: TierName = name
        self._gone = False

    def drop(self) -> None:
        """Remove it, once, unless it is in use."""
        if not self._gone:
            # One that others read by now stays for them, and is told when the node joins anew.
            with contextlib.suppress(AgentError):
                self._store.evict(self._snapshot, self._name, last_copy=False)
                self._gone = True
