"""A tier that is a folder: tmpfs for DRAM, a local disk for NVMe, a network file system as shared.

    ROOT/lock                          taken for moments: names change and room is given under it
    ROOT/snapshots/ID/manifest.json    locked by who uses the snapshot
    ROOT/snapshots/ID/files/...
    ROOT/staging/TOKEN/...             being written
    ROOT/deleted/TOKEN/...             being removed

Laws: a snapshot comes into `snapshots` and leaves it by one rename, with the tier locked; who would
use or delete one locks its manifest, with the tier locked. So several processes and nodes can have
one folder, where its file system has renames and `flock` (NFS version 4 has; object stores mounted
as files have not).
"""

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store.checksum import Watch, copy, each_in_parallel, faults
from inferx.exec.agent.store.durable import (
    FileLock,
    MomentLock,
    make_folder,
    remove_tree,
    sync_folder,
    told,
)
from inferx.exec.agent.store.holds import FolderHold, Holders
from inferx.exec.agent.store.manifest import (
    FILES,
    MANIFEST,
    Entry,
    Manifest,
    check_id,
    read_manifest,
)
from inferx.exec.agent.store.room import Room
from inferx.exec.agent.store.staging import RESERVED, Staging, is_abandoned
from inferx.exec.agent.store.tier import Contents, Recovery, Tier, TierName

__all__ = ["FolderTier"]

_OPEN_TO_OTHERS: Final = 0o022


class FolderTier:
    """Snapshots in a folder, within a budget of bytes.

    Args:
        name: Which tier this is; DRAM is also held to the memory that the host has left.
        root: Its folder; made where there is none.
        budget_bytes: What all snapshots together may take.

    Raises:
        AgentError: The folder cannot be made, or others may write to it.
    """

    def __init__(self, name: TierName, root: Path, *, budget_bytes: int) -> None:
        self.name: TierName = name
        self.root = root
        self.budget_bytes = budget_bytes
        self._snapshots = root / "snapshots"
        self._staging = root / "staging"
        self._deleted = root / "deleted"
        self._room = Room(
            self.title,
            self._snapshots,
            self._staging,
            budget_bytes=budget_bytes,
            in_memory=self.in_memory,
        )
        self._moment = MomentLock(root / "lock")
        self._holders = Holders()
        with told(f"{self.title}: cannot use {root} for snapshots", phase="open"):
            for folder in (root, self._snapshots, self._staging, self._deleted):
                make_folder(folder)
                if folder.stat().st_mode & _OPEN_TO_OTHERS:
                    msg = f"{self.title}: others may write to {folder}; expected `chmod go-w`"
                    raise AgentError(msg, phase="open")

    @property
    def title(self) -> str:
        """What errors call this tier."""
        return f"tier {self.name}"

    @property
    def in_memory(self) -> bool:
        """Whether what is written here takes the host's memory."""
        return self.name == "dram"

    def share_host_memory(self, promised_bytes: Callable[[], int]) -> None:
        """Leave to others what they have been promised of the host's memory."""
        self._room.promised_bytes = promised_bytes

    # -- looking ---
    def contents(self) -> Contents:
        """Return what is here; what cannot be read is told, and hides nothing else."""
        found: list[Manifest] = []
        unreadable: list[str] = []
        for name in self._names():
            try:
                found.append(self.get(name))
            except AgentError as error:
                if (self._snapshots / name).exists():
                    unreadable.append(f"{self.title}: {error}")
        found.sort(key=lambda one: (one.function, one.created_ns, one.id))
        return Contents(manifests=tuple(found), unreadable=tuple(unreadable))

    def get(self, snapshot: str) -> Manifest:
        """Return a snapshot's manifest."""
        home = self._home(snapshot)
        if not home.exists():
            raise AgentError(f"{self.title}: no snapshot {snapshot}", phase="get")
        manifest = read_manifest(home / MANIFEST)
        if manifest.id != snapshot:
            msg = f"{home}: the manifest is of snapshot {manifest.id}, not of this one"
            raise AgentError(msg, phase="manifest")
        return manifest

    def has(self, snapshot: str) -> bool:
        """Whether a snapshot is here, with a manifest that can be read."""
        try:
            self.get(snapshot)
        except AgentError:
            return False
        return True

    def has_any(self, snapshot: str) -> bool:
        """Whether there is something of that id, which may be unreadable."""
        return self._home(snapshot).exists()

    def verify(self, snapshot: str, watch: Watch) -> list[str]:
        """Read every byte, and return what is wrong, a line for each file."""
        try:
            held = self.hold(snapshot, "verify", now_ns=0)
        except AgentError as error:
            return [str(error)]
        with held, told(f"{self.title}: cannot verify {snapshot}", phase="verify"):
            return faults(held.folder, held.manifest, watch)

    def last_used_ns(self, snapshot: str) -> int:
        """Return when it was last held, or made."""
        with told(f"{self.title}: no snapshot {snapshot}", phase="get"):
            return (self._home(snapshot) / MANIFEST).stat().st_mtime_ns

    def used_bytes(self) -> int:
        """Bytes of all snapshots and reservations."""
        return self._room.used_bytes()

    def unwritten_bytes(self) -> int:
        """Bytes that are reserved for snapshots and not yet written."""
        return self._room.unwritten_bytes()

    def require_room(self, size_bytes: int, *, freed_bytes: int = 0) -> None:
        """Raise where so many bytes do not fit: into the budget, or onto what is below it."""
        self._room.require_budget(size_bytes, freed_bytes=freed_bytes)
        self._room.require_free(size_bytes, freed_bytes=freed_bytes)

    # -- writing ---
    def begin(self, size_bytes: int) -> Staging:
        """Reserve room for a snapshot, and return where to write it.

        Raises:
            AgentError: It would not fit; nothing was written.
        """
        with self._moment, told(f"{self.title}: cannot begin a snapshot", phase="begin"):
            self.require_room(size_bytes)
            home = self._staging / secrets.token_hex(8)
            home.mkdir(mode=0o700)
            lock = None
            try:
                lock = FileLock.take(home / RESERVED, exclusive=True, wait=False, create=True)
                assert lock is not None, "the name was drawn a moment ago"
                (home / RESERVED).write_text(str(size_bytes))
                staging = Staging(self, home, lock, reserved_bytes=size_bytes)
                staging.make()
            except BaseException:
                remove_tree(home)
                if lock is not None:
                    lock.release()
                raise
            return staging

    def grow(self, staging: Staging, size_bytes: int) -> None:
        """Reserve what was written beyond what was asked for; for `Staging`."""
        more_bytes = size_bytes - staging.reserved_bytes
        if more_bytes > 0:
            with self._moment:
                # It is on the disk already: only the budget can say no.
                self._room.require_budget(more_bytes, freed_bytes=0)
                (staging.home / RESERVED).write_text(str(size_bytes))
                staging.reserved_bytes = size_bytes

    def publish(self, content: Path, manifest: Manifest) -> None:
        """Show a snapshot to all; the same one there already stays. For `Staging`."""
        home = self._home(manifest.id)
        broken: Path | None = None
        with self._moment:
            if home.exists() and self.has(manifest.id):
                return
            if home.exists():
                broken = self._retire(manifest.id)
            content.rename(home)
            sync_folder(self._snapshots)
        if broken is not None:
            remove_tree(broken)

    def export(self, snapshot: str, into: Path, watch: Watch) -> None:
        """Write a snapshot's files into an empty folder, verified; for other tiers."""
        with (
            self.hold(snapshot, "copy", now_ns=0) as held,
            told(f"{self.title}: cannot copy {snapshot} to {into}", phase="copy"),
        ):
            for folder in {(into / entry.path).parent for entry in held.manifest.files}:
                make_folder(folder)

            def export(entry: Entry) -> None:
                copy(held.folder / entry.path, into / entry.path, entry, watch)

            each_in_parallel(export, held.manifest.files)

    def take(self, manifest: Manifest, source: Tier, watch: Watch) -> None:
        """Have a copy of a snapshot of another tier; a folder that is whole or not there."""
        if self.has(manifest.id):
            return
        with (
            self.begin(manifest.size_bytes) as staging,
            told(f"{self.title}: cannot take {manifest.id}", phase="copy"),
        ):
            source.export(manifest.id, staging.folder, watch)
            staging.adopt(manifest, used_ns=source.last_used_ns(manifest.id))

    # -- using and deleting ---
    def hold(self, snapshot: str, holder: str, *, now_ns: int) -> FolderHold:
        """Use a snapshot, until released or the end of this process."""
        home = self._home(snapshot)
        with self._moment:
            manifest = self.get(snapshot)
            with told(f"{self.title}: cannot use {snapshot}", phase="hold"):
                lock = FileLock.take(home / MANIFEST, exclusive=False, wait=False)
                assert lock is not None, "exclusive locks are taken with the tier locked, only"
                if now_ns > (home / MANIFEST).stat().st_mtime_ns:
                    os.utime(home / MANIFEST, ns=(now_ns, now_ns))
        return FolderHold(manifest, home / FILES, lock, self._holders, holder)

    def users(self, snapshot: str) -> tuple[str, ...]:
        """Return who holds a snapshot."""
        with self._moment, told(f"{self.title}: cannot look at {snapshot}", phase="get"):
            return self._users(snapshot)

    def _users(self, snapshot: str) -> tuple[str, ...]:
        try:
            lock = FileLock.take(self._home(snapshot) / MANIFEST, exclusive=True, wait=False)
        except FileNotFoundError:
            return ()
        if lock is None:
            return self._holders.of(snapshot)
        lock.release()
        return ()

    def delete(self, snapshot: str) -> None:
        """Remove a snapshot; from the first moment it is not seen."""
        with self._moment:
            gone = self._retire(snapshot)
        with told(f"{self.title}: cannot remove all of {snapshot}", phase="delete"):
            remove_tree(gone)

    def _retire(self, snapshot: str) -> Path:
        """Take a snapshot out of sight, with the tier locked, and return where it is now."""
        home = self._home(snapshot)
        if not home.exists():
            raise AgentError(f"{self.title}: no snapshot {snapshot}", phase="delete")
        gone = self._deleted / f"{snapshot}.{secrets.token_hex(8)}"
        with told(f"{self.title}: cannot delete {snapshot}", phase="delete"):
            if users := self._users(snapshot):
                msg = f"{self.title}: {snapshot} is in use by {', '.join(users)}"
                raise AgentError(msg, phase="delete")
            home.rename(gone)
            sync_folder(self._snapshots)
        return gone

    def recover(self) -> Recovery:
        """Remove what nobody is at work on any more."""
        with told(f"{self.title}: cannot recover", phase="recover"):
            with self._moment:
                for home in sorted(self._staging.iterdir()):
                    if is_abandoned(home):
                        with suppress(FileNotFoundError):
                            home.rename(self._deleted / f"staging.{secrets.token_hex(8)}")
            leftovers = sorted(self._deleted.iterdir())
            for path in leftovers:
                remove_tree(path)
        return Recovery(removed=len(leftovers), unreadable=self.contents().unreadable)

    def _home(self, snapshot: str) -> Path:
        return self._snapshots / check_id(snapshot)

    def _names(self) -> list[str]:
        with told(f"{self.title}: cannot be read", phase="get"):
            return sorted(path.name for path in self._snapshots.iterdir())
