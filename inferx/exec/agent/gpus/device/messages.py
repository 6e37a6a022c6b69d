"""What passes between the agent and its CUDA helper: one packet each, on a pair of sockets."""

import msgspec

__all__ = ["PACKET_BYTES", "Answer", "Ask", "Hello"]

PACKET_BYTES = 1 << 16
"""Limit of a packet: a map of 64 GPUs takes less than a tenth."""


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """The helper's first packet: which driver it speaks to, or why to none."""

    cuda: int = 0
    remap: bool = False
    library: str = ""
    reason: str = ""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One call about one process.

    Attributes:
        serial: Echoed by the answer.
        call: `lock`, `checkpoint`, `restore`, `unlock` or `state`.
        pid: As the host counts.
        timeout_ms: How long a lock may wait for work that runs; never 0, which is for ever.
        pairs: Old and new GPU of each, as the 16 bytes of their UUIDs; empty for where it was.
    """

    serial: int
    call: str
    pid: int
    timeout_ms: int = 0
    pairs: tuple[tuple[bytes, bytes], ...] = ()


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the driver said.

    Attributes:
        serial: Of the ask.
        error: `CUresult`; 0 is success.
        name: Of the error, as in `CUDA_ERROR_NOT_READY`.
        value: The state, where that was asked for.
    """

    serial: int
    error: int
    name: str = ""
    value: int = 0
