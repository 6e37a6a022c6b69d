"""An engine that computes: a small transformer in torch, greedy, a thread of its own for all steps.

Starting it is really importing torch, reading the weights and a first pass through the model.
"""

import importlib
from asyncio import get_running_loop
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from inferx.exec.worker.engine import Checksum, Generation, WorkerError
from inferx.exec.worker.memory import Block, block_on

if TYPE_CHECKING:
    from torch import Tensor

    from inferx.exec.worker.torch_model import ModelShape, Transformer

__all__ = ["TorchEngine", "TorchSettings"]

CONTEXT_LEAST: Final = 64
CONTEXT_MOST: Final = 4096


class TorchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for.

    Attributes:
        weights: File to load; none makes the weights from the seed.
        weight_bytes: Without a file, how large the weights may be.
        kv_bytes: Room for keys and values, shared evenly by the slots; gives the context.
        threads: Of torch on a CPU; another number may give another text.
    """

    weights: Path | None
    weight_bytes: int
    kv_bytes: int
    slots: int
    seed: int
    device: str
    threads: int


class TorchEngine:
    """Generates byte by byte. Steps of different requests take turns."""

    name = "torch"

    def __init__(self, settings: TorchSettings) -> None:
        self._settings = settings
        self.device = settings.device
        self.context = 0
        self._block: Block | None = None
        self._kv_block: Block | None = None
        self._cache: Tensor | None = None
        self._model: Transformer | None = None
        self._free_rows = list(range(settings.slots))
        # All that touches the cache runs here: a step that outlives its request comes to its end.
        self._steps = ThreadPoolExecutor(1, thread_name_prefix="torch")

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights held."""
        return 0 if self._model is None else self._model.shape.weight_bytes

    @property
    def kv_bytes(self) -> int:
        """Bytes of keys and values held now."""
        return 0 if self._kv_block is None else self._kv_block.size

    def load(self) -> None:
        """Import torch, read the weights, take the cache, and generate two tokens."""
        self._steps.submit(self._load).result()

    def checksum(self) -> Checksum:
        """Hash the weights where they lie."""
        assert self._block is not None, "the server asks only after loading"
        return self._steps.submit(self._block.checksum).result()

    def release_kv(self) -> None:
        """Drop the cache, and its memory."""
        self._steps.submit(self._release_kv).result()

    def take_kv(self) -> None:
        """Map the cache and write to all of it."""
        self._steps.submit(self._take_kv).result()

    def count(self, text: str) -> int:
        """A byte is a token; a prompt has one more in front, which is not counted."""
        return len(text.encode())

    async def generate(self, generation: Generation) -> AsyncGenerator[str, None]:
        """Yield a character a token."""
        from inferx.exec.worker.torch_model import BEGIN, END

        assert self._model is not None, "the server asks only after loading"
        loop, model = get_running_loop(), self._model
        row = self._free_rows.pop()
        try:
            tokens, position = [BEGIN, *generation.prompt.encode()], 0
            for _ in range(generation.limit):
                step = partial(
                    self._step, model, row, tokens, position, endless=generation.complete
                )
                token = await loop.run_in_executor(self._steps, step)
                if token == END:
                    return
                yield chr(token)
                position += len(tokens)
                tokens = [token]
        finally:
            self._free_rows.append(row)

    def embed(self, text: str) -> list[float]:
        """Return the mean of the bytes' embeddings."""
        from inferx.exec.worker.torch_model import BEGIN

        assert self._model is not None, "the server asks only after loading"
        return self._model.embedding([BEGIN, *text.encode()])

    # -- in the thread of steps ---
    def _load(self) -> None:
        try:
            torch = importlib.import_module("torch")
        except ImportError as error:
            raise WorkerError(
                f"engine torch: {error}; expected pip install 'inferx[torch]'"
            ) from error
        from inferx.exec.worker.torch_model import BEGIN, shape_within

        torch.set_num_threads(self._settings.threads)
        settings = self._settings
        if settings.weights is None:
            from inferx.exec.worker.torch_weights import from_numbers

            shape = shape_within(settings.weight_bytes)
            self._set_context(shape)
            block = block_on(settings.device, shape.weight_bytes)
            block.fill(from_numbers(shape, settings.seed))
        else:
            from inferx.exec.worker.torch_weights import opened

            with opened(settings.weights) as (shape, fill):
                self._set_context(shape)
                block = block_on(settings.device, shape.weight_bytes)
                block.fill(fill)
        from inferx.exec.worker.torch_model import Transformer

        self._block = block
        model = Transformer(shape, block.tensor().view(torch.float32))
        self._model = model
        self._take_kv()
        # The second pass is a step, which takes another way through torch than a prompt.
        first = self._step(model, 0, [BEGIN, *b"warm"], 0, endless=True)
        self._step(model, 0, [first], 5, endless=True)

    def _set_context(self, shape: "ModelShape") -> None:
        """Find out how many tokens a slot has room for."""
        settings = self._settings
        per_token = shape.kv_bytes_per_token * settings.slots
        room = settings.kv_bytes // per_token
        if room < CONTEXT_LEAST:
            raise WorkerError(
                f"a KV cache of {settings.kv_bytes} bytes: {settings.slots} slots of this model "
                f"need at least {CONTEXT_LEAST * per_token}"
            )
        # One position belongs to the token in front.
        self.context = min(room, CONTEXT_MOST) - 1

    def _take_kv(self) -> None:
        if self._kv_block is not None:
            return
        assert self._model is not None, "the model is loaded first"
        torch = importlib.import_module("torch")
        shape, context = self._model.shape, self.context + 1
        size = shape.kv_bytes_per_token * self._settings.slots * context
        block = block_on(self._settings.device, size)
        block.touch()
        sizes = (self._settings.slots, 2, shape.layers, shape.heads, context, -1)
        self._cache = block.tensor().view(torch.float32).view(sizes)
        self._kv_block = block

    def _release_kv(self) -> None:
        if self._kv_block is not None:
            # Memory is not unmapped under a tensor that still points to it.
            self._cache = None
            self._kv_block.release()
            self._kv_block = None

    def _step(
        self, model: "Transformer", row: int, tokens: list[int], position: int, *, endless: bool
    ) -> int:
        assert self._cache is not None, "nothing generates without a cache"
        keys, values = self._cache[row]
        return model.next_token(tokens, position, keys, values, endless=endless)
