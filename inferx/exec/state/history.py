"""The latest commits of a store in this process: what watches read, each from its place."""

from collections import deque
from collections.abc import Iterable

from inferx.exec.state.store import Committed, Entry, TooOldError

__all__ = ["HISTORY_BYTES", "HISTORY_COMMITS", "History"]

HISTORY_COMMITS = 10_000
"""How many commits a watch may be behind."""
HISTORY_BYTES = 64 << 20
"""Of their keys and values; the latest commit is kept whatever its size."""


class History:
    """Commits of consecutive revisions, the oldest of which are forgotten.

    Attributes:
        floor: Commits after this revision are kept.
    """

    __slots__ = ("_bytes", "_commits", "_most", "floor")

    def __init__(
        self, floor: int, commits: Iterable[Committed] = (), *, most: int = HISTORY_COMMITS
    ) -> None:
        """Hold at most `most` commits, the first of them that after `floor`."""
        self.floor = floor
        self._most = most
        # Its middle is reached in steps of 64: cheap enough for what is at most this long.
        self._commits: deque[Committed] = deque()
        self._bytes = 0
        for committed in commits:
            self.append(committed)

    @property
    def revision(self) -> int:
        """Of the latest commit."""
        return self.floor + len(self._commits)

    def append(self, committed: Committed) -> None:
        """Add the next commit, and forget what is too much."""
        assert committed.revision == self.revision + 1
        self._commits.append(committed)
        self._bytes += size_of(committed)
        while len(self._commits) > 1 and (
            len(self._commits) > self._most or self._bytes > HISTORY_BYTES
        ):
            self._bytes -= size_of(self._commits.popleft())
            self.floor += 1

    def next(self, after: int) -> Committed | None:
        """Return the first commit after a revision, or None if there is none yet.

        Raises:
            TooOldError: It is forgotten.
        """
        if after < self.floor:
            raise TooOldError(
                f"the commits after revision {after} are no longer kept, only those after "
                f"{self.floor}: list again"
            )
        if after >= self.revision:
            return None
        return self._commits[after - self.floor]


def size_of(committed: Committed) -> int:
    """Return the bytes of a commit's keys and values."""
    return sum(
        len(change.key) + (len(change.value) if isinstance(change, Entry) else 0)
        for change in committed.changes
    )
