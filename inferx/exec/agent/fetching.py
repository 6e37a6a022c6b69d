"""Where a restore reads: the tier that the scheduler named, or a warmer one that has the snapshot.

What a restore is to keep is fetched to the node's disk first, for good if the restore succeeds. A
colder tier than the one that was named is never read instead: the scheduler has reckoned with the
time and the room of the one it named.
"""

import contextlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Final

from inferx.exec.agent.phases import Phases
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store import Found, Held, SnapshotStore, Tier, TierName

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
    *,
    now_ns: int,
    coldest: TierName | None = None,
    keep: bool = False,
) -> Generator[tuple[Tier, Held]]:
    """Hold the copy of a snapshot that is to be read; with `keep` fetch it to the disk before.

    What was fetched goes again if the body fails: it is not where nobody knows of it.

    Raises:
        AgentError: It is not where it is to be read, or cannot be fetched.
    """
    snapshot, size_bytes = found.manifest.id, found.manifest.size_bytes
    with contextlib.ExitStack() as undo:
        if keep and store.where(snapshot)[:1] == (_FAR,):
            with phases.step("fetch", size_bytes):
                store.make_room(_DISK, size_bytes)
                store.promote(snapshot, _DISK)
            undo.callback(_drop, store, snapshot)
        tier, held = store.hold(snapshot, holder, now_ns=now_ns, tiers=_within(store, coldest))
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


def _drop(store: SnapshotStore, snapshot: str) -> None:
    # One that others read by now stays for them, and is told when the node joins anew.
    with contextlib.suppress(AgentError):
        store.evict(snapshot, _DISK, last_copy=False)
