"""An engine of declared size and pace: real bytes, real memory, tokens when they are due.

Token `i` of a request is due `ttft + i / tokens_per_s` after it begins. What it says follows from
seed and prompt, and from nothing else.
"""

import asyncio
import hashlib
import math
import re
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from time import monotonic

import msgspec

from inferx.exec.worker.engine import Checksum, Generation, WorkerError
from inferx.exec.worker.memory import Block, block_on
from inferx.exec.worker.weights import from_file, from_seed

__all__ = ["ANSWER_TOKENS_LEAST", "ANSWER_TOKENS_MOST", "CONTEXT", "PacedEngine", "PacedShape"]

ANSWER_TOKENS_LEAST, ANSWER_TOKENS_MOST = 16, 64
"""How long an answer is that nothing cuts short; where between follows from seed and prompt."""
CATCH_UP_S = 1.0
"""How far behind a stream may hurry: what was frozen for an hour does not burst."""
CONTEXT = 131_072
"""No arithmetic grows with the context here; a limit says that requests have one."""
_EMBEDDING = 64
_TOKEN = re.compile(r"\s*\w+|\s*[^\w\s]|\s+")
_CONSONANTS, _VOWELS = "bdfghjklmnprstvz", "aeio"


class PacedShape(msgspec.Struct, frozen=True, kw_only=True):
    """What was declared: sizes in bytes, times in seconds.

    Attributes:
        weights: File to load; none generates the bytes that it would have held.
        weight_bytes: Without a file, bytes to hold.
        tokens_per_s: Pace of each request; it does not fall with company.
    """

    weights: Path | None
    weight_bytes: int
    kv_bytes: int
    tokens_per_s: float
    ttft_s: float
    seed: int
    device: str


class PacedEngine:
    """Holds what was declared, and says what follows from seed and prompt."""

    name = "paced"
    context = CONTEXT

    def __init__(self, shape: PacedShape) -> None:
        self._shape = shape
        self.device = shape.device
        self._weights: Block | None = None
        self._kv: Block | None = None

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights held."""
        return 0 if self._weights is None else self._weights.size

    @property
    def kv_bytes(self) -> int:
        """Bytes of KV cache held now."""
        return 0 if self._kv is None else self._kv.size

    def load(self) -> None:
        """Read or make all weights, and take the KV cache."""
        shape = self._shape
        if shape.weights is None:
            block = block_on(shape.device, shape.weight_bytes)
            block.fill(from_seed(shape.seed))
        else:
            try:
                with shape.weights.open("rb", buffering=0) as file:
                    block = block_on(shape.device, shape.weights.stat().st_size)
                    block.fill(from_file(shape.weights, file))
            except OSError as error:
                raise WorkerError(f"{shape.weights}: {error.strerror}") from error
        self._weights = block
        self.take_kv()

    def checksum(self) -> Checksum:
        """Hash the weights."""
        assert self._weights is not None, "the server asks only after loading"
        return self._weights.checksum()

    def release_kv(self) -> None:
        """Unmap the KV cache."""
        if self._kv is not None:
            self._kv.release()
            self._kv = None

    def take_kv(self) -> None:
        """Map the KV cache and write to all of it."""
        if self._kv is None:
            kv = block_on(self._shape.device, self._shape.kv_bytes)
            kv.touch()
            self._kv = kv

    def count(self, text: str) -> int:
        """Words, marks and stray blanks are a token each, with the blanks before them."""
        return sum(1 for _ in _TOKEN.finditer(text))

    async def generate(self, generation: Generation) -> AsyncGenerator[str, None]:
        """Yield words, each when it is due."""
        due = monotonic() + self._shape.ttft_s
        for token in _answer(self._shape.seed, generation):
            due = max(due, monotonic() - CATCH_UP_S)
            await asyncio.sleep(due - monotonic())
            yield token
            due += 1.0 / self._shape.tokens_per_s

    def embed(self, text: str) -> list[float]:
        """Return numbers that follow from seed and text."""
        words = hashlib.shake_256(f"{self._shape.seed}\0{text}".encode()).digest(_EMBEDDING * 2)
        raw = [int.from_bytes(words[i : i + 2]) - 32767.5 for i in range(0, len(words), 2)]
        length = math.hypot(*raw)
        return [value / length for value in raw]


def _answer(seed: int, generation: Generation) -> Iterator[str]:
    """Yield the tokens of an answer: words of up to three syllables."""
    start = hashlib.sha256(f"{seed}\0{generation.seed}\0{generation.prompt}".encode()).digest()
    span = ANSWER_TOKENS_MOST - ANSWER_TOKENS_LEAST
    natural = ANSWER_TOKENS_LEAST + int.from_bytes(start[:4]) % span
    limit = generation.limit if generation.complete else min(generation.limit, natural)
    for index in range(limit):
        draw = hashlib.blake2b(index.to_bytes(8), key=start, digest_size=4).digest()
        word = "".join(_syllable(byte) for byte in draw[: 1 + draw[3] % 3])
        yield f" {word}" if index else word


def _syllable(byte: int) -> str:
    return _CONSONANTS[byte & 15] + _VOWELS[byte >> 4 & 3]
