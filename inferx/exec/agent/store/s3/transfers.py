"""A snapshot's data on its way to a bucket and from it, within a time that its size allows."""

import contextlib
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store.checksum import Watch
from inferx.exec.agent.store.s3.bucket import Bucket, Part
from inferx.exec.agent.store.s3.published import Published
from inferx.exec.agent.store.s3.stream import Deadline, carried, file_blocks

__all__ = ["Transfers"]

_PARTS_MAX: Final = 10_000
"""S3's limit on the parts of one upload."""


class Transfers:
    """Carries data of one bucket.

    Args:
        bucket: The bucket.
        title: What errors call it.
        block_bytes: Of one request.
        most_s: No transfer takes longer.
    """

    def __init__(self, bucket: Bucket, title: str, *, block_bytes: int, most_s: float) -> None:
        self._bucket = bucket
        self._title = title
        self._block_bytes = block_bytes
        self._most_s = most_s

    def blocks(self, published: Published) -> Generator[bytearray]:
        """Yield a snapshot's data in blocks; to be closed."""
        size_bytes = published.manifest.size_bytes
        deadline = Deadline(size_bytes, most_s=self._most_s)

        def read(begin: int) -> bytearray:
            count = min(self._block_bytes, size_bytes - begin)
            return self._bucket.read(published.data, begin, count, deadline.check)

        return carried(read, range(0, size_bytes, self._block_bytes))

    def bring(self, published: Published, folder: Path, watch: Watch) -> None:
        """Write the data that a manifest is to name."""
        size_bytes, key = published.manifest.size_bytes, published.data
        deadline = Deadline(size_bytes, most_s=self._most_s)
        part_bytes = max(self._block_bytes, -(-size_bytes // _PARTS_MAX))
        with closing(file_blocks(folder, published.manifest, part_bytes)) as blocks:
            if size_bytes <= part_bytes:
                content = next(blocks, bytearray())
                # To its end, for that is where the last file is found to be what it should.
                next(blocks, None)
                self._bucket.put(key, content)
                watch.add(size_bytes)
            else:
                with self._uploading(key) as upload:
                    self._bring_parts(key, upload, blocks, watch, deadline)
        there = self._bucket.head(key)
        if there.size_bytes != size_bytes:
            text = (
                f"{self._title}: {self._bucket.where}/{key} has {there.size_bytes:,} bytes, "
                f"{size_bytes:,} were written"
            )
            raise AgentError(text, phase="copy")

    def _bring_parts(
        self, key: str, upload: str, blocks: Iterator[bytearray], watch: Watch, deadline: Deadline
    ) -> None:
        def bring(numbered: tuple[int, bytearray]) -> Part:
            deadline.check()
            number, content = numbered
            part = self._bucket.part(key, upload, number, content)
            watch.add(len(content))
            return part

        with closing(carried(bring, enumerate(blocks, 1))) as parts:
            brought = list(parts)
        deadline.check()
        self._bucket.complete(key, upload, brought)

    @contextmanager
    def _uploading(self, key: str) -> Generator[str]:
        """Begin an upload in parts; where the body fails, nothing is left of it if it can be."""
        upload = self._bucket.begin(key)
        try:
            yield upload
        except BaseException:
            with contextlib.suppress(AgentError):
                self._bucket.abort(key, upload)
            raise
