"""Pod spans as columns: who held which GPU, in what state, and what was left over.

Owns the grouping of pod states that people read: working, idle, starting, suspending, leaving.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from inferx.core.types import F64, I32, I64, FunctionSpec, NodeSpec
from inferx.core.units import MILLI_PER_GPU
from inferx.sim.record import SpanRow
from inferx.sim.spans import column, states

__all__ = ["GROUPS", "GROUP_OF_STATE", "Spans", "fragmentation_pct", "gpu_rows", "state_pct"]

GROUPS: Final = ("working", "idle", "starting", "suspending", "leaving", "off-gpu")
"""What a pod does, in the order of the legend. `off-gpu` is standby, and snapshots on disk."""

_WORKING, _IDLE, _STARTING, _SUSPENDING, _LEAVING, _OFF = range(len(GROUPS))

GROUP_OF_STATE: Final[dict[str, int]] = {
    "working": _WORKING,
    "ready": _IDLE,
    "idle": _IDLE,
    "init": _STARTING,
    "creating": _STARTING,
    "restoring": _STARTING,
    "resuming": _STARTING,
    "suspending": _SUSPENDING,
    "snapshotting": _SUSPENDING,
    "draining": _LEAVING,
    "terminating": _LEAVING,
    "failed": _LEAVING,
    "gone": _LEAVING,
    "standby": _OFF,
    "snapshot": _OFF,
}

_INSTANTS: Final = 64
"""How many evenly spaced instants fragmentation is averaged over."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Spans:
    """`SpanRow`s as arrays of shape (spans,)."""

    from_ns: I64
    to_ns: I64
    node: I32
    gpu: I32
    pod: I64
    function: I32
    group: I32
    """Index into GROUPS."""
    milli_gpu: I64
    hbm_bytes: I64
    host_bytes: I64
    nvme_bytes: I64
    snapshots: I64

    @classmethod
    def of(cls, rows: Sequence[SpanRow]) -> "Spans":
        """Turn rows into columns, once."""

        def number(name: str, dtype: type[np.int32 | np.int64] = np.int64) -> np.ndarray:
            return column(rows, name, dtype)

        codes, words = states(rows)
        group_of = np.array([GROUP_OF_STATE[word] for word in words], np.int32)
        return cls(
            from_ns=number("from_ns"),
            to_ns=number("to_ns"),
            node=number("node", np.int32),
            gpu=number("gpu", np.int32),
            pod=number("pod"),
            function=number("function", np.int32),
            group=group_of[codes],
            milli_gpu=number("milli_gpu"),
            hbm_bytes=number("hbm_bytes"),
            host_bytes=number("host_bytes"),
            nvme_bytes=number("nvme_bytes"),
            snapshots=number("snapshots"),
        )


def gpu_rows(nodes: Sequence[NodeSpec]) -> I32:
    """Return the node of every GPU, shape (gpus,): GPU ids run node by node."""
    return np.repeat(np.arange(len(nodes), dtype=np.int32), [node.gpus for node in nodes])


def state_pct(spans: Spans, *, gpus: int, span_ns: int) -> dict[str, float]:
    """Return the share of all GPU time charged to pods of each group, in percent.

    A slice counts by its share of the GPU. What is missing from 100 was free.
    """
    total = gpus * MILLI_PER_GPU * span_ns
    held = spans.gpu >= 0
    shares: dict[str, float] = {}
    for group, name in enumerate(GROUPS[:_OFF]):
        mine = held & (spans.group == group)
        # A whole trace stays below 2**63: 4,096 GPUs * 1,000 milli * 26 days in nanoseconds.
        charge = int(((spans.to_ns - spans.from_ns)[mine] * spans.milli_gpu[mine]).sum())
        shares[name] = 100.0 * charge / total if total else 0.0
    return shares


def fragmentation_pct(
    spans: Spans,
    *,
    nodes: Sequence[NodeSpec],
    functions: Sequence[FunctionSpec],
    weight: F64,
    span_ns: int,
) -> float | None:
    """Return how much of the free GPU compute the mix of functions could not use, in percent.

    For a function, the free milli-GPU of a node is unusable where a GPU does not fit one slice,
    or where too few GPUs of the node do. The mean over functions is weighted by `weight`, shape
    (functions,); the mean over time takes 64 instants. None where nothing was ever free or asked.

    Source: after Weng et al., ATC'23, section 3. Differs: HBM is a second dimension, and the
    share is of what is free, not of the whole cluster.
    """
    of_gpu = gpu_rows(nodes)
    gpus = len(of_gpu)
    asked = np.flatnonzero(weight > 0)
    if not gpus or not asked.size or span_ns <= 0:
        return None
    hbm = np.array([node.hbm_bytes for node in nodes], dtype=np.int64)[of_gpu]
    shapes: dict[tuple[int, int, int, str], float] = {}
    for row in asked.tolist():
        spec = functions[row]
        key = (spec.gpus, spec.milli_gpu, spec.hbm_bytes, spec.gpu_type)
        shapes[key] = shapes.get(key, 0.0) + float(weight[row])
    fits_type = {
        kind: np.array([kind in {"Any", node.gpu_type} for node in nodes])[of_gpu]
        for kind in {key[3] for key in shapes}
    }
    held = spans.gpu >= 0
    unusable = free = 0.0
    for k in range(_INSTANTS):
        at = (2 * k + 1) * span_ns // (2 * _INSTANTS)
        on = np.flatnonzero(held & (spans.from_ns <= at) & (at < spans.to_ns))
        milli_free = MILLI_PER_GPU - np.bincount(
            spans.gpu[on], weights=spans.milli_gpu[on], minlength=gpus
        )
        hbm_free = hbm - np.bincount(spans.gpu[on], weights=spans.hbm_bytes[on], minlength=gpus)
        milli_free = np.maximum(milli_free, 0.0)
        free_now = float(milli_free.sum())
        for (count, milli, size, kind), share in shapes.items():
            fit = (milli_free >= milli) & (hbm_free >= size) & fits_type[kind]
            enough = np.bincount(of_gpu[fit], minlength=len(nodes)) >= count
            usable = float(milli_free[fit & enough[of_gpu]].sum())
            unusable += share * (free_now - usable)
            free += share * free_now
    return 100.0 * unusable / free if free else None
