"""A tier that is a bucket of S3, shared by any number of nodes. Restores fetch from it first.

Laws:

- A snapshot is there from the moment when its manifest is, which is written last and removed first.
- Its data is one writer's alone (`published.py`). Who finds the manifest written by another removes
  the data it has brought; who does not know what became of its own leaves it.
- Data that no manifest names is removed once it is older than a grace period, and so are unfinished
  uploads. A writer gives up within half of that period.
- Nothing is locked between nodes. One that removes a snapshot here may do so while another fetches
  it, whose fetch then fails, whole.
- A server that does not answer hides what is here and nothing else: `contents` tells why, and
  whoever asks for a certain snapshot is told the same.
"""

import contextlib
import secrets
import time
from contextlib import closing
from pathlib import Path
from threading import Lock
from typing import Final

from inferx.core.units import NS_PER_S
from inferx.exec.agent.ports import AgentError, Capability
from inferx.exec.agent.store.checksum import Watch, each_in_parallel
from inferx.exec.agent.store.durable import told
from inferx.exec.agent.store.folder import FolderTier
from inferx.exec.agent.store.holds import Holders
from inferx.exec.agent.store.manifest import Manifest, check_id
from inferx.exec.agent.store.s3.bucket import Bucket, Stored
from inferx.exec.agent.store.s3.client import S3Config
from inferx.exec.agent.store.s3.holding import S3Hold
from inferx.exec.agent.store.s3.leftovers import remove_leftovers
from inferx.exec.agent.store.s3.published import (
    LIMIT_BYTES,
    SNAPSHOTS,
    Published,
    key_of,
    named_by,
)
from inferx.exec.agent.store.s3.said import GoneError, NoAnswerError, TakenError
from inferx.exec.agent.store.s3.stream import faults_of, write_files
from inferx.exec.agent.store.s3.transfers import Transfers
from inferx.exec.agent.store.tier import Contents, Recovery, Tier, TierName

__all__ = ["S3Tier"]

_BLOCK_BYTES: Final = 16 << 20
_GRACE_S: Final = 86_400.0


class S3Tier:
    """Snapshots in a bucket, within a budget of bytes.

    Args:
        name: Which tier this is.
        config: Where the bucket is.
        block_bytes: Of one request; S3 wants 5 MiB at least.
        grace_s: How old what no manifest names has to be to be removed.
    """

    def __init__(
        self,
        name: TierName,
        config: S3Config,
        *,
        block_bytes: int = _BLOCK_BYTES,
        grace_s: float = _GRACE_S,
    ) -> None:
        self.name: TierName = name
        self.config = config
        self.budget_bytes = config.budget_bytes
        self._bucket = Bucket(config, self.title)
        self._grace_s = grace_s
        self._data = Transfers(
            self._bucket, self.title, block_bytes=block_bytes, most_s=grace_s / 2
        )
        self._holders = Holders()
        self._lock = Lock()
        self._known: dict[str, tuple[str, Published]] = {}

    @property
    def title(self) -> str:
        """What errors call this tier."""
        return f"tier {self.name}"

    def probe(self) -> Capability:
        """Ask the bucket for one key. Never raises, and writes nothing."""
        facts = {"bucket": self._bucket.where}
        facts |= {"region": self.config.region} if self.config.region else {}
        facts |= {"endpoint": self.config.endpoint} if self.config.endpoint else {}
        reason = ""
        try:
            next(self._bucket.list(SNAPSHOTS, most=1), None)
        except AgentError as error:
            reason = str(error)
        facts |= {"credentials": self._bucket.credentials} if self._bucket.credentials else {}
        return Capability(name="store/s3", available=not reason, reason=reason, facts=facts)

    # -- looking ---
    def contents(self) -> Contents:
        """Return what is here; what cannot be read is told, and hides nothing else."""
        try:
            found, unreadable = self._listed()
        except AgentError as error:
            return Contents(manifests=(), unreadable=(str(error),))
        manifests = sorted(
            (one.manifest for one in found),
            key=lambda one: (one.function, one.created_ns, one.id),
        )
        return Contents(manifests=tuple(manifests), unreadable=tuple(sorted(unreadable.values())))

    def _listed(self) -> tuple[list[Published], dict[str, str]]:
        """Return all snapshots, and a line for each that cannot be used, by id."""
        stored = {
            snapshot: one for one in self._bucket.list(SNAPSHOTS) if (snapshot := named_by(one.key))
        }
        with self._lock:
            known = {
                snapshot: self._known[snapshot][1]
                for snapshot, one in stored.items()
                if snapshot in self._known and self._known[snapshot][0] == one.tag
            }
        unreadable: dict[str, str] = {}

        def read(snapshot: str) -> tuple[Stored, Published] | None:
            try:
                return self._read(snapshot)
            except GoneError:
                return None
            except AgentError as error:
                unreadable[snapshot] = str(error)
                return None

        there = each_in_parallel(read, [one for one in stored if one not in known])
        with self._lock:
            self._known = {one: (stored[one].tag, known[one]) for one in known} | {
                published.manifest.id: (one.tag, published)
                for one, published in filter(None, there)
            }
            return [published for _, published in self._known.values()], unreadable

    def _read(self, snapshot: str) -> tuple[Stored, Published]:
        key = key_of(check_id(snapshot))
        stored, content = self._bucket.get(key, limit_bytes=LIMIT_BYTES)
        where = f"{self.title}: {self._bucket.where}/{key}"
        return stored, Published.decode(content, snapshot=snapshot, where=where)

    def _published(self, snapshot: str, *, phase: str = "get") -> Published:
        try:
            return self._read(snapshot)[1]
        except GoneError as error:
            raise GoneError(f"{self.title}: no snapshot {snapshot}", phase=phase) from error

    def get(self, snapshot: str) -> Manifest:
        """Return a snapshot's manifest."""
        return self._published(snapshot).manifest

    def has(self, snapshot: str) -> bool:
        """Whether a snapshot is here, with a manifest that can be read."""
        try:
            self._published(snapshot)
        except AgentError:
            return False
        return True

    def has_any(self, snapshot: str) -> bool:
        """Whether there is something of that id, which may be unreadable."""
        try:
            self._bucket.head(key_of(check_id(snapshot)))
        except GoneError:
            return False
        return True

    def verify(self, snapshot: str, watch: Watch) -> list[str]:
        """Read every byte, and return what is wrong, a line for each file."""
        try:
            with (
                self.hold(snapshot, "verify", now_ns=0) as held,
                closing(self._data.blocks(held.published)) as blocks,
            ):
                return faults_of(held.manifest, blocks, watch)
        except AgentError as error:
            if error.phase == "cancel":
                raise
            return [str(error)]

    def last_used_ns(self, snapshot: str) -> int:
        """Return when it was made: uses are not noted here."""
        try:
            return self._bucket.head(key_of(check_id(snapshot))).modified_ns
        except GoneError as error:
            raise AgentError(f"{self.title}: no snapshot {snapshot}", phase="get") from error

    def used_bytes(self) -> int:
        """Bytes of all snapshots; of those that were seen last, where the server is away."""
        with contextlib.suppress(AgentError):
            self._listed()
        return self._known_bytes()

    def _known_bytes(self) -> int:
        with self._lock:
            return sum(published.manifest.size_bytes for _, published in self._known.values())

    def require_room(self, size_bytes: int, *, freed_bytes: int = 0) -> None:
        """Raise where so many bytes do not fit into the budget, as far as this node knows."""
        self._listed()
        used_bytes = self._known_bytes() - freed_bytes
        if used_bytes + size_bytes > self.budget_bytes:
            text = (
                f"{self.title}: {size_bytes:,} bytes do not fit: {used_bytes:,} of the budget of "
                f"{self.budget_bytes:,} are used"
            )
            raise AgentError(text, phase="room")

    # -- fetching ---
    def export(self, snapshot: str, into: Path, watch: Watch) -> None:
        """Write a snapshot's files into an empty folder, verified; for other tiers."""
        with (
            self.hold(snapshot, "copy", now_ns=0) as held,
            closing(self._data.blocks(held.published)) as blocks,
            told(f"{self.title}: cannot copy {snapshot} to {into}", phase="copy"),
        ):
            where = f"{self.title}: {self._bucket.where}/{held.published.data}"
            write_files(into, held.manifest, blocks, watch, where=where)

    # -- bringing ---
    def take(self, manifest: Manifest, source: Tier, watch: Watch) -> None:
        """Have a copy of a snapshot of a folder; all of it is seen, or nothing."""
        if self.has(manifest.id):
            return
        self.require_room(manifest.size_bytes)
        if not isinstance(source, FolderTier):
            text = f"{self.title}: cannot take {manifest.id} from tier {source.name}"
            raise AgentError(text, phase="copy")
        published = Published(token=secrets.token_hex(8), manifest=manifest)
        with (
            source.hold(manifest.id, "copy", now_ns=0) as held,
            told(f"{self.title}: cannot take {manifest.id}", phase="copy"),
        ):
            self._data.bring(published, held.folder, watch)
        self._publish(published)

    def _publish(self, published: Published) -> None:
        """Show a snapshot to all; the same one there already stays."""
        snapshot = published.manifest.id
        key, content = key_of(snapshot), published.encode()
        try:
            self._bucket.put_new(key, content)
        except TakenError:
            try:
                theirs = self._published(snapshot)
            except NoAnswerError:
                raise
            except AgentError:
                # It cannot be read, or went in this moment: this one is whole.
                self._bucket.put(key, content)
                return
            # After an answer that was lost, and so was asked for again, it is our own.
            if theirs.token != published.token:
                with contextlib.suppress(AgentError):
                    self._bucket.delete(published.data)

    # -- using and deleting ---
    def hold(self, snapshot: str, holder: str, *, now_ns: int) -> S3Hold:
        """Use a snapshot; its data is there, of its size."""
        del now_ns
        published = self._published(snapshot, phase="hold")
        there = self._bucket.head(published.data)
        if there.size_bytes != published.manifest.size_bytes:
            text = (
                f"{self.title}: {self._bucket.where}/{published.data} has "
                f"{there.size_bytes:,} bytes, its manifest says "
                f"{published.manifest.size_bytes:,}"
            )
            raise AgentError(text, phase="hold")
        return S3Hold(published, self._holders, holder)

    def users(self, snapshot: str) -> tuple[str, ...]:
        """Return who holds a snapshot on this node; of other nodes nothing is known."""
        return self._holders.here(snapshot)

    def delete(self, snapshot: str) -> None:
        """Remove a snapshot; from the first moment it is not seen."""
        key = key_of(check_id(snapshot))
        if users := self.users(snapshot):
            text = f"{self.title}: {snapshot} is in use by {', '.join(users)}"
            raise AgentError(text, phase="delete")
        data = ""
        try:
            data = self._published(snapshot, phase="delete").data
        except GoneError:
            raise
        except AgentError:
            # Unreadable: what it named is found when it is old enough. Or the server is away.
            self._bucket.head(key)
        self._bucket.delete(key)
        if data:
            self._bucket.delete(data)

    def recover(self) -> Recovery:
        """Remove what nobody is at work on any more."""
        removed, lines = remove_leftovers(
            self._bucket,
            self._listed,
            before_ns=time.time_ns() - int(self._grace_s * NS_PER_S),
        )
        return Recovery(removed=removed, unreadable=tuple(lines))
