"""What the store needs of a tier: a place that holds whole snapshots within a budget of bytes.

A folder is one (`FolderTier`), whose files can be read where they are. A bucket is another
(`S3Tier`): it uploads in `take`, downloads in `export`, and lists only what it has whole. All
methods block and may be called from several threads; all raise `AgentError`, and a failed one
leaves nothing behind.
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

import msgspec

from inferx.exec.agent.store.checksum import Watch
from inferx.exec.agent.store.manifest import Manifest

__all__ = ["Contents", "Held", "Hold", "Recovery", "Tier", "TierName"]

TierName = Literal["dram", "nvme", "shared"]


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What is on a tier.

    Attributes:
        manifests: Of all whole snapshots, by function, then age, oldest first.
        unreadable: One line for each that is there and cannot be used.
    """

    manifests: tuple[Manifest, ...]
    unreadable: tuple[str, ...]


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """What was found after a crash.

    Attributes:
        removed: Leftovers that are gone now: half-written and half-deleted snapshots.
        unreadable: As in `Contents`; they are kept, for somebody to look at.
    """

    removed: int
    unreadable: tuple[str, ...]


class Hold(Protocol):
    """A snapshot in use: it is not deleted until released, or until this process ends."""

    @property
    def manifest(self) -> Manifest:
        """What it is."""
        ...

    def release(self) -> None:
        """Let go; twice is fine."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Held(Hold, Protocol):
    """One whose files can be read where they are."""

    @property
    def folder(self) -> Path:
        """Where its files are, to be read only."""
        ...


class Tier(Protocol):
    """Holds snapshots."""

    @property
    def name(self) -> TierName:
        """Which tier this is."""
        ...

    @property
    def budget_bytes(self) -> int:
        """What all snapshots together may take."""
        ...

    def recover(self) -> Recovery:
        """Remove what a crash has left; what others are at work on stays. For the start."""
        ...

    def contents(self) -> Contents:
        """Return what is here; what cannot be read hides nothing else."""
        ...

    def get(self, snapshot: str) -> Manifest:
        """Return a snapshot's manifest; it is an error where there is none."""
        ...

    def has(self, snapshot: str) -> bool:
        """Whether a snapshot is here, with a manifest that can be read."""
        ...

    def has_any(self, snapshot: str) -> bool:
        """Whether there is something of that id, which may be unreadable."""
        ...

    def verify(self, snapshot: str, watch: Watch) -> Sequence[str]:
        """Read every byte of a snapshot, and return what is wrong with it, a line for each."""
        ...

    def hold(self, snapshot: str, holder: str, *, now_ns: int) -> Hold:
        """Use a snapshot. `holder` is for messages; `now_ns` becomes when it was last used."""
        ...

    def users(self, snapshot: str) -> Sequence[str]:
        """Return who holds a snapshot; other processes are not told apart."""
        ...

    def last_used_ns(self, snapshot: str) -> int:
        """Return when a snapshot was last held, or made."""
        ...

    def used_bytes(self) -> int:
        """Bytes of all snapshots, and what is reserved for those that are being written."""
        ...

    def require_room(self, size_bytes: int, *, freed_bytes: int = 0) -> None:
        """Raise where so many bytes would not fit, after others have been freed."""
        ...

    def delete(self, snapshot: str) -> None:
        """Remove a snapshot, whole: from the first moment it is not seen. Never one in use."""
        ...

    def export(self, snapshot: str, into: Path, watch: Watch) -> None:
        """Write a snapshot's files into an empty folder; each byte is verified as it is read."""
        ...

    def take(self, manifest: Manifest, source: "Tier", watch: Watch) -> None:
        """Have a copy of a snapshot of another tier; here already is fine."""
        ...
