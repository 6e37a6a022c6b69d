"""States of a process with GPU state, the calls between them, and what the driver's errors mean.

Pure: what may be asked and what is believed of a process is decided here. The numbers are those of
the CUDA driver API (`CUprocessState`, `CUresult`).
"""

from typing import Final

__all__ = [
    "CUSTOM_STORAGE_CUDA",
    "LEGAL",
    "MINIMUM_CUDA",
    "REMAP_CUDA",
    "STATES",
    "Error",
    "explain",
    "state_after",
    "version",
]

MINIMUM_CUDA: Final = 12080
"""The first driver API with checkpoints of a process by another: 12.8, driver 570."""
REMAP_CUDA: Final = 13000
"""The first that restores onto other GPUs: 13.0, driver 580."""
CUSTOM_STORAGE_CUDA: Final = 13040
"""The first that hands GPU memory to the caller instead of the process's host memory: 13.4."""

STATES: Final = {
    0: "running",
    1: "locked",
    2: "checkpointed",
    3: "failed",
    4: "checkpointing",
    5: "restoring",
}
LEGAL: Final = {
    "lock": ("running", "locked"),
    "checkpoint": ("locked", "checkpointed"),
    "restore": ("checkpointed", "locked"),
    "unlock": ("locked", "running"),
}
"""Each call: the only state that it may be made in, and the one that it leads to."""


class Error:
    """The driver's answers that mean something of their own."""

    SUCCESS: Final = 0
    INVALID_VALUE: Final = 1
    OUT_OF_MEMORY: Final = 2
    NOT_INITIALIZED: Final = 3
    ILLEGAL_STATE: Final = 401
    NOT_READY: Final = 600
    NOT_SUPPORTED: Final = 801


_REFUSED: Final = frozenset(
    {
        Error.INVALID_VALUE,
        Error.NOT_INITIALIZED,
        Error.NOT_READY,
        Error.NOT_SUPPORTED,
    }
)
"""Answers after which a process is as it was."""


def state_after(call: str, before: str, error: int) -> str:
    """Return what is known of a process after a call; empty is nothing.

    A checkpoint or restore that fails in the middle leaves a process that only a kill can end: so
    does the driver say, and a restore without enough memory was seen to.

    Args:
        call: One of `LEGAL`.
        before: What was known.
        error: What the driver answered.
    """
    if error == Error.SUCCESS:
        return LEGAL[call][1]
    if error in _REFUSED:
        return before
    if error == Error.ILLEGAL_STATE:
        return ""
    return "failed" if call in {"checkpoint", "restore"} else ""


def explain(call: str, error: int) -> str:
    """Return what an answer is likely to mean, for the person who reads it."""
    match call, error:
        case _, Error.ILLEGAL_STATE:
            return f"it is not {LEGAL[call][0]}" if call in LEGAL else "not in this state"
        case "lock", Error.NOT_READY:
            return "its GPU work did not end in time; it runs on"
        case "restore", Error.OUT_OF_MEMORY:
            return "not enough free memory on the GPU; the process is lost"
        case "restore", Error.INVALID_VALUE:
            return "no GPU state, or a map that does not name each GPU of its node once"
        case "checkpoint", Error.OUT_OF_MEMORY:
            return "no host memory for it, or a MIG device, which cannot be checkpointed"
        case _, Error.INVALID_VALUE:
            return "a process without GPU state"
        case _:
            return ""


def version(cuda: int) -> str:
    """Return a driver API version as people write it: 12080 is 12.8."""
    return f"{cuda // 1000}.{cuda % 1000 // 10}"
