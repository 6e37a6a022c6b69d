"""Bytes that are really held: private anonymous memory of the process, or GPU memory through torch.

A block of host memory is mapped, never malloc'ed, so that releasing it lowers the resident size at
once, and CRIU sees plain private pages.
"""

import hashlib
import mmap
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from inferx.exec.worker.engine import Checksum, WorkerError

if TYPE_CHECKING:
    import torch

__all__ = ["CHUNK_BYTES", "Block", "CudaBlock", "HostBlock", "block_on"]

CHUNK_BYTES = 16 << 20
"""Memory is filled and read in pieces of this size."""
_TOUCH = b"\x01" * CHUNK_BYTES

Fill = Callable[[memoryview, int], None]
"""Fills a piece with the bytes that belong at an offset."""


class Block(Protocol):
    """A range of memory of fixed size, held until it is released."""

    size: int

    def fill(self, fill: Fill) -> None:
        """Let `fill` write every piece, in order."""
        ...

    def touch(self) -> None:
        """Write every page, so that all of it is really taken."""
        ...

    def checksum(self) -> Checksum:
        """Read every byte."""
        ...

    def tensor(self) -> "torch.Tensor":
        """Return the same memory as a tensor of bytes; it must be gone before `release`."""
        ...

    def release(self) -> None:
        """Give the memory back; the block is of no use after."""
        ...


class HostBlock:
    """Private anonymous memory."""

    def __init__(self, size: int) -> None:
        self.size = size
        try:
            self._map = (
                mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) if size else None
            )
        except OSError as error:
            raise WorkerError(f"{size} bytes of host memory: {error.strerror}") from error

    def fill(self, fill: Fill) -> None:
        """Fill in place."""
        if self._map is None:
            return
        with memoryview(self._map) as view:
            for offset in range(0, self.size, CHUNK_BYTES):
                with view[offset : offset + CHUNK_BYTES] as piece:
                    fill(piece, offset)

    def touch(self) -> None:
        """Write bytes that are not zero: pages of zeros are not kept in a dump."""
        self.fill(_touch)

    def checksum(self) -> Checksum:
        """Hash in place."""
        digest = hashlib.sha256()
        if self._map is not None:
            with memoryview(self._map) as view:
                for offset in range(0, self.size, CHUNK_BYTES):
                    with view[offset : offset + CHUNK_BYTES] as piece:
                        digest.update(piece)
        return Checksum(digest.hexdigest(), self.size)

    def tensor(self) -> "torch.Tensor":
        """Return a tensor over the mapping."""
        import torch

        assert self._map is not None, "an empty block has no tensor"
        return torch.frombuffer(self._map, dtype=torch.uint8)

    def release(self) -> None:
        """Unmap."""
        if self._map is not None:
            self._map.close()


class CudaBlock:
    """GPU memory, as a torch tensor of bytes."""

    def __init__(self, size: int) -> None:
        try:
            import torch
        except ImportError as error:
            raise WorkerError(
                f"device cuda: {error}; expected pip install 'inferx[torch]'"
            ) from error

        self.size = size
        self._tensor: torch.Tensor | None = None
        if not torch.cuda.is_available():
            raise WorkerError("device cuda: torch finds no GPU; expected one, or --device cpu")
        try:
            self._tensor = torch.empty(size, dtype=torch.uint8, device="cuda")
        except torch.OutOfMemoryError as error:
            raise WorkerError(f"{size} bytes of GPU memory: {error}") from error

    def fill(self, fill: Fill) -> None:
        """Copy through a piece of pinned host memory."""
        import torch

        assert self._tensor is not None, "a block is not used after its release"
        stage = torch.empty(min(self.size, CHUNK_BYTES), dtype=torch.uint8, pin_memory=True)
        for offset in range(0, self.size, CHUNK_BYTES):
            piece = stage[: min(CHUNK_BYTES, self.size - offset)]
            fill(piece.numpy().data, offset)
            self._tensor[offset : offset + len(piece)].copy_(piece)
        torch.cuda.synchronize()

    def touch(self) -> None:
        """GPU memory is taken when it is allocated; give it a content."""
        assert self._tensor is not None, "a block is not used after its release"
        self._tensor.fill_(1)

    def checksum(self) -> Checksum:
        """Copy back and hash."""
        assert self._tensor is not None, "a block is not used after its release"
        digest = hashlib.sha256()
        for offset in range(0, self.size, CHUNK_BYTES):
            piece = self._tensor[offset : offset + CHUNK_BYTES].cpu()
            digest.update(piece.numpy().data)
        return Checksum(digest.hexdigest(), self.size)

    def tensor(self) -> "torch.Tensor":
        """Return the tensor itself."""
        assert self._tensor is not None, "a block is not used after its release"
        return self._tensor

    def release(self) -> None:
        """Free it, and have torch's allocator give it back to the driver."""
        import torch

        self._tensor = None
        torch.cuda.empty_cache()


def block_on(device: str, size: int) -> Block:
    """Take `size` bytes on `cpu` or `cuda`."""
    return CudaBlock(size) if device == "cuda" else HostBlock(size)


def _touch(piece: memoryview, offset: int) -> None:
    del offset
    piece[:] = _TOUCH[: len(piece)]
