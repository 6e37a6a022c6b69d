"""A snapshot that is being written, where nobody sees it, and how it becomes one that all see.

The order is the proof: files and folders are on the disk, then the manifest, and then one rename
shows all of them. Until then a crash leaves a folder in `staging` that nobody has locked, and
`recover` knows it by that.
"""

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store.checksum import Watch, each_in_parallel, seal
from inferx.exec.agent.store.durable import (
    FileLock,
    make_folder,
    plain_files,
    remove_tree,
    sync_folder,
    told,
    write,
)
from inferx.exec.agent.store.manifest import (
    FILES,
    MANIFEST,
    Draft,
    Entry,
    Manifest,
    encode,
    finished,
)

__all__ = ["RESERVED", "Publisher", "Staging", "content_of", "is_abandoned", "sync_tree"]

RESERVED: Final = "reserved"
"""In a staging folder: how many bytes it was given; locked while its writer lives."""
_CONTENT: Final = "content"


class Publisher(Protocol):
    """The tier, as a staging folder sees it."""

    @property
    def title(self) -> str:
        """What errors call it."""
        ...

    def grow(self, staging: "Staging", size_bytes: int) -> None:
        """Reserve more than at first, or raise."""
        ...

    def publish(self, content: Path, manifest: Manifest) -> None:
        """Show a whole snapshot to all."""
        ...


def content_of(home: Path) -> Path:
    """Return the folder in a staging folder that becomes the snapshot's."""
    return home / _CONTENT


def sync_tree(folder: Path) -> None:
    """Have all folders of a tree on the disk, the deepest first; and let nobody else in."""
    for path, _, _ in os.walk(folder, topdown=False, onerror=_raise):
        Path(path).chmod(0o700)
        sync_folder(Path(path))


def _raise(error: OSError) -> None:
    raise error


def is_abandoned(home: Path) -> bool:
    """Whether a staging folder's writer has ended; with the tier locked, where it is made."""
    try:
        lock = FileLock.take(home / RESERVED, exclusive=True, wait=False)
    except (FileNotFoundError, NotADirectoryError):
        return True
    if lock is None:
        return False
    lock.release()
    return True


class Staging:
    """Room for one snapshot, and the folder to write it into.

    Attributes:
        folder: Where the files go: plain files in folders; empty folders are not kept.
    """

    __slots__ = ("_lock", "_published", "_publisher", "folder", "home", "reserved_bytes")

    def __init__(
        self, publisher: Publisher, home: Path, lock: FileLock, *, reserved_bytes: int
    ) -> None:
        self._publisher = publisher
        self._lock = lock
        self._published = False
        self.home = home
        self.folder = content_of(home) / FILES
        self.reserved_bytes = reserved_bytes

    def commit(self, draft: Draft, watch: Watch | None = None) -> Manifest:
        """Make what was written a snapshot: durable, checksummed, and seen by all or by nobody.

        Returns:
            Its manifest. Of the same content there may have been one already: then that stays.

        Raises:
            AgentError: It could not be, and nothing is left of it.
        """
        with told(f"{self._publisher.title}: cannot commit a snapshot", phase="commit"):
            try:
                found = plain_files(self.folder)
                if not found:
                    msg = f"{self._publisher.title}: no files were written, so there is no snapshot"
                    raise AgentError(msg, phase="commit")
                self._publisher.grow(self, sum(facts.st_size for _, facts in found))
                entries = each_in_parallel(
                    self._seal(watch or Watch()), [path for path, _ in found]
                )
                manifest = finished(draft, entries)
                self.adopt(manifest, used_ns=draft.created_ns)
            finally:
                self.abandon()
        return manifest

    def _seal(self, watch: Watch) -> Callable[[str], Entry]:
        return lambda path: seal(self.folder / path, path, watch)

    def adopt(self, manifest: Manifest, *, used_ns: int) -> None:
        """Make files that are on the disk, and are what this manifest says, its snapshot."""
        content = content_of(self.home)
        sync_tree(self.folder)
        write(content / MANIFEST, encode(manifest))
        os.utime(content / MANIFEST, ns=(used_ns, used_ns))
        sync_folder(content)
        self._publisher.publish(content, manifest)
        self._published = True

    def make(self) -> None:
        """Make the folder of files."""
        make_folder(self.folder)

    def abandon(self) -> None:
        """Remove what was written, and give the room back; after a commit there is nothing left."""
        try:
            if self.home.exists():
                with told(f"{self._publisher.title}: cannot clean up", phase="commit"):
                    remove_tree(self.home)
        except AgentError:
            # Of what is seen by all by now, an empty folder remains: the next recovery's work.
            if not self._published:
                raise
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abandon()
