"""What one run leaves behind: columns, written once by the driver, read by metrics and reports.

Times are nanoseconds since the trace's first arrival; -1 means "never".
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from inferx.core.types import F64, I32, I64, FunctionSpec, NodeSpec

__all__ = ["Cause", "DecisionRow", "Outcome", "RequestColumns", "RunRecord", "SpanRow"]


class Outcome(IntEnum):
    """How a request ended."""

    UNFINISHED = 0
    FINISHED = 1
    REFUSED = 2
    ABORTED = 3


class Cause(IntEnum):
    """What a request had to wait for before its service began."""

    WARM = 0
    """A free slot of a ready pod: at once, or after a wait for one."""
    RESUME = 1
    """A suspended pod came back from host memory."""
    RESTORE_NVME = 2
    """A pod was restored from a snapshot on the node's disk."""
    RESTORE_REMOTE = 3
    """A pod was restored from a snapshot in the shared store."""
    COLD = 4
    """A pod was started from its image."""


@dataclass(slots=True, kw_only=True)
class RequestColumns:
    """One row a request, in arrival order; every array has shape (requests,)."""

    function: I32
    input_tokens: I32
    output_tokens: I32
    arrived_ns: I64
    started_ns: I64
    """When the request got its slot."""
    first_ns: I64
    """First token; for a request without tokens, `started_ns`."""
    finished_ns: I64
    outcome: np.ndarray
    """int8, see Outcome."""
    cause: np.ndarray
    """int8, see Cause; any cause but WARM is a cold start."""
    pod: I64


@dataclass(slots=True, frozen=True)
class DecisionRow:
    """One decision of the scheduler, or a deferral with its repetitions (`inferx.sim.decisions`).

    `explain` is JSON, see `inferx.core.explain`; may be "".
    """

    at_ns: int
    kind: str
    """A `Decision`'s kind: place, evict, defer, sink, ..."""
    function: int
    pod: int
    node: int
    gpus: tuple[int, ...]
    start: str
    """How the pod starts: cold, restore-nvme, restore-remote, resume; "" where none does."""
    reason: str
    explain: str
    victims: tuple[int, ...] = ()
    """Pods that must leave for it."""
    again_ns: Sequence[int] = ()
    """When the same was decided again, in order."""
    again_explain: Sequence[str | None] = ()
    """Of each repetition, its explanation; None where it is that of the one before."""

    @property
    def count(self) -> int:
        """How many decisions the row stands for."""
        return 1 + len(self.again_ns)

    @property
    def until_ns(self) -> int:
        """When it was decided last."""
        return self.again_ns[-1] if self.again_ns else self.at_ns


@dataclass(slots=True, frozen=True)
class SpanRow:
    """A pod in one state for a while, on one GPU; `gpu` is -1 where it holds none.

    The snapshots on a node's disk are spans too, one for as long as they stay the same, all of them
    together: `state` is "snapshot"; `gpu`, `pod` and `function` are -1.
    """

    from_ns: int
    to_ns: int
    node: int
    gpu: int
    pod: int
    function: int
    state: str
    """A `PodState` name in lower case; ready time is split into `idle` and `working`."""
    milli_gpu: int
    hbm_bytes: int
    host_bytes: int
    nvme_bytes: int = 0
    snapshots: int = 0
    """How many the bytes on disk are."""


@dataclass(slots=True, kw_only=True)
class RunRecord:
    """One policy, one seed, one trace: everything that metrics and reports are made of."""

    policy: str
    seed: int
    span_ns: int
    """From the first arrival to the end of the run."""
    nodes: tuple[NodeSpec, ...]
    functions: tuple[FunctionSpec, ...]
    requests: RequestColumns
    refusals: dict[int, tuple[int, str]] = field(default_factory=dict[int, tuple[int, str]])
    """Refused request -> (when, why); the words are the routers' and the policies'."""
    decisions: list[DecisionRow]
    spans: Sequence[SpanRow]
    gpu_busy_ns: I64
    """Shape (gpus,): time with at least one request in service on the GPU."""
    gpu_allocated_milli_ns: F64
    """Shape (gpus,): integral of charged milli-GPU over time."""
    gpu_resident_byte_ns: F64
    """Shape (gpus,): integral of charged HBM bytes over time."""
    link_bytes: dict[str, int] = field(default_factory=dict[str, int])
    """Bytes moved by kind of link: pcie, nvme, network, ebs, dram."""
    counters: dict[str, int] = field(default_factory=dict[str, int])
    """Counts by name: evictions, useless_evictions, policy_errors, node_losses, ..."""
