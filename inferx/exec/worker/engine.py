"""What a server needs of the thing behind it: load, generate, give memory back."""

from collections.abc import AsyncGenerator
from typing import Protocol

import msgspec

from inferx.core.errors import InferXError

__all__ = ["Checksum", "Engine", "Generation", "WorkerError"]


class WorkerError(InferXError):
    """A worker that cannot start or go on: one line, what, where, and what was expected."""


class Checksum(msgspec.Struct, frozen=True):
    """SHA-256 of all weights as they lie in memory, and how many bytes these are."""

    sha256: str
    bytes: int


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """What to generate.

    Attributes:
        prompt: The whole text that the answer follows.
        seed: Of the request; the same seed and prompt give the same text.
        limit: Tokens at most.
        complete: Use the whole limit, even where the answer would have ended before.
    """

    prompt: str
    seed: int
    limit: int
    complete: bool


class Engine(Protocol):
    """A model in memory.

    `load`, `checksum`, `release_kv` and `take_kv` block, and are called one at a time from a thread
    of their own; the others are called on the event loop, once the model is loaded.
    """

    @property
    def name(self) -> str:
        """Which engine this is: a label."""
        ...

    @property
    def device(self) -> str:
        """Where the weights are: `cpu` or `cuda`."""
        ...

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights held, 0 before they are loaded."""
        ...

    @property
    def kv_bytes(self) -> int:
        """Bytes of KV cache held now."""
        ...

    @property
    def context(self) -> int:
        """Tokens of a prompt and its answer together, at most."""
        ...

    def load(self) -> None:
        """Read the weights, take the KV cache, and be warm: the next request costs no more.

        Raises:
            WorkerError: The file is not what was declared, or there is no room.
        """
        ...

    def checksum(self) -> Checksum:
        """Read all weights as they are held."""
        ...

    def release_kv(self) -> None:
        """Give the KV cache's memory back to the system; nothing generates meanwhile."""
        ...

    def take_kv(self) -> None:
        """Take the KV cache's memory again, empty."""
        ...

    def count(self, text: str) -> int:
        """Return the number of tokens of a text."""
        ...

    def generate(self, generation: Generation) -> AsyncGenerator[str, None]:
        """Yield one text a token; at most `limit`. Closing it ends the work at once."""
        ...

    def embed(self, text: str) -> list[float]:
        """Return a vector of length one."""
        ...
