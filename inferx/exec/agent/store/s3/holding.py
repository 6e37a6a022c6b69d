"""Who uses which snapshot of a bucket, as far as this process knows."""

from threading import Lock
from types import TracebackType
from typing import Self

from inferx.exec.agent.store.holds import Holders
from inferx.exec.agent.store.s3.published import Published

__all__ = ["S3Hold"]


class S3Hold:
    """A snapshot in use by this process."""

    __slots__ = ("_done", "_guard", "_holder", "_holders", "manifest", "published")

    def __init__(self, published: Published, holders: Holders, holder: str) -> None:
        self.published = published
        self.manifest = published.manifest
        self._holders = holders
        self._holder = holder
        self._guard = Lock()
        self._done = False
        holders.add(published.manifest.id, holder)

    def release(self) -> None:
        """Let go; twice is fine."""
        with self._guard:
            if self._done:
                return
            self._done = True
        self._holders.remove(self.manifest.id, self._holder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
