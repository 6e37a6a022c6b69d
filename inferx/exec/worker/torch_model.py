"""A small decoder-only transformer in torch: float32, bytes for tokens, rotary positions.

Nothing in it is trained: its weights follow from a seed, scaled so that activations keep their
size. What counts is that it really computes, and that the same weights and prompt give the same
bytes, on one number of threads.
"""

import math
from collections.abc import Iterator
from typing import Final, NamedTuple, cast

import msgspec
import torch
import torch.nn.functional as F  # noqa: N812  # As everywhere that torch is used.
from torch import Tensor

from inferx.exec.worker.engine import WorkerError

__all__ = ["BEGIN", "END", "HEAD_DIM", "ModelShape", "Transformer", "shape_within", "tensors_of"]

BEGIN: Final = 256
"""The token before every prompt; the others are bytes."""
END: Final = 10
"""A line's end is an answer's end."""
VOCABULARY: Final = 257
HEAD_DIM: Final = 64
FLOAT_BYTES: Final = 4
_DEEP_BYTES: Final = 64 << 20
_SPOKEN: Final = range(32, 127)
"""Only printable ASCII is spoken: an untrained model would otherwise not even be UTF-8."""


class ModelShape(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of the model. Its width is a multiple of `HEAD_DIM`."""

    layers: int
    width: int

    @property
    def heads(self) -> int:
        """Attention heads of a layer."""
        return self.width // HEAD_DIM

    @property
    def parameters(self) -> int:
        """Numbers that the model has."""
        return sum(math.prod(one.shape) for one in tensors_of(self))

    @property
    def weight_bytes(self) -> int:
        """Bytes that they take."""
        return FLOAT_BYTES * self.parameters

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values of one token."""
        return 2 * self.layers * self.width * FLOAT_BYTES


class _Named(NamedTuple):
    """One tensor of the model: where it is used, its shape, and how large its numbers are."""

    name: str
    shape: tuple[int, int]
    deviation: float


def tensors_of(shape: ModelShape) -> Iterator[_Named]:
    """Yield all tensors, in the order in which they lie in memory and in files."""
    w = shape.width
    yield _Named("embed", (VOCABULARY, w), 1.0)
    for layer in range(shape.layers):
        yield _Named(f"{layer}.qkv", (3 * w, w), w**-0.5)
        yield _Named(f"{layer}.out", (w, w), w**-0.5)
        yield _Named(f"{layer}.up", (4 * w, w), w**-0.5)
        yield _Named(f"{layer}.down", (w, 4 * w), (4 * w) ** -0.5)
    yield _Named("head", (VOCABULARY, w), w**-0.5)


def shape_within(size: int) -> ModelShape:
    """Return the widest model whose weights take at most `size` bytes.

    Raises:
        WorkerError: Not even the narrowest does.
    """
    layers = 12 if size >= _DEEP_BYTES else 4
    # 12 w^2 a layer and two embeddings; the square root is exact enough to begin from.
    width = int(math.sqrt(size / FLOAT_BYTES / 12 / layers)) // HEAD_DIM * HEAD_DIM
    while width >= HEAD_DIM:
        shape = ModelShape(layers=layers, width=width)
        if shape.weight_bytes <= size:
            return shape
        width -= HEAD_DIM
    least = ModelShape(layers=layers, width=HEAD_DIM).weight_bytes
    raise WorkerError(f"a torch model of {size} bytes: expected at least {least}")


class Transformer:
    """The model over one flat range of numbers; it keeps no state between calls."""

    def __init__(self, shape: ModelShape, flat: Tensor) -> None:
        assert flat.numel() == shape.parameters, "a model has as many numbers as its shape"
        self.shape = shape
        self._device = flat.device
        self._tensors: dict[str, Tensor] = {}
        at = 0
        for one in tensors_of(shape):
            count = math.prod(one.shape)
            self._tensors[one.name] = flat[at : at + count].view(one.shape)
            at += count
        spoken = torch.full((VOCABULARY,), -math.inf)
        spoken[list(_SPOKEN)] = 0.0
        self._mute_end = spoken.to(self._device)
        spoken = spoken.clone()
        spoken[END] = 0.0
        self._mute = spoken.to(self._device)
        self._pace = (10_000.0 ** -(torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)).to(self._device)

    @torch.inference_mode()
    def next_token(
        self, tokens: list[int], position: int, keys: Tensor, values: Tensor, *, endless: bool
    ) -> int:
        """Return the likeliest token after `tokens`, the first of which stands at `position`.

        Args:
            tokens: The whole prompt at position 0, or the one token before.
            position: How many tokens came before.
            keys: Shape (layers, heads, context, HEAD_DIM): of the tokens before; those of `tokens`
                are added.
            values: The same.
            endless: Never return `END`.
        """
        assert position == 0 or len(tokens) == 1, "what follows the prompt comes one by one"
        shape, get, end = self.shape, self._tensors, position + len(tokens)
        x = get["embed"][torch.tensor(tokens, device=self._device)]
        turn = self._turn(position, end)
        for layer in range(shape.layers):
            qkv = F.linear(_norm(x), get[f"{layer}.qkv"])
            q, k, v = qkv.view(len(tokens), 3, shape.heads, HEAD_DIM).permute(1, 2, 0, 3)
            keys[layer, :, position:end] = _rotate(k, turn)
            values[layer, :, position:end] = v
            seen = F.scaled_dot_product_attention(
                _rotate(q, turn)[None],
                keys[layer, None, :, :end],
                values[layer, None, :, :end],
                is_causal=position == 0,
            )[0]
            x = x + F.linear(seen.transpose(0, 1).flatten(1), get[f"{layer}.out"])
            up = F.gelu(F.linear(_norm(x), get[f"{layer}.up"]))
            x = x + F.linear(up, get[f"{layer}.down"])
        scores = F.linear(_norm(x[-1]), get["head"]) + (self._mute_end if endless else self._mute)
        return int(scores.argmax())

    @torch.inference_mode()
    def embedding(self, tokens: list[int]) -> list[float]:
        """Return the mean of the tokens' embeddings, of length one."""
        mean = self._tensors["embed"][torch.tensor(tokens, device=self._device)].mean(0)
        return cast("list[float]", F.normalize(mean, dim=0).tolist())

    def _turn(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        angle = torch.arange(start, end, device=self._device)[:, None] * self._pace
        return angle.cos(), angle.sin()


def _norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:])


def _rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = turn
    even, odd = x[..., ::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)
