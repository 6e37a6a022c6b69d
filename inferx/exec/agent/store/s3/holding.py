"""Who uses which snapshot of a bucket, as far as this process knows."""

from types import TracebackType
from typing import Self

from inferx.exec.agent.store.holds import Holders, Holding
from inferx.exec.agent.store.s3.published import Published

__all__ = ["S3Hold"]


class S3Hold:
    """A snapshot in use by this process."""

    __slots__ = ("_holding", "manifest", "published")

    def __init__(self, published: Published, holders: Holders, holder: str) -> None:
        self.published = published
        self.manifest = published.manifest
        self._holding = Holding(holders, published.manifest.id, holder)

    def release(self) -> None:
        """Let go; twice is fine."""
        self._holding.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
