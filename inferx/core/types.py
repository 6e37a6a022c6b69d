"""Ids, tiers, and the descriptions that the kernel is built from.

Ids are dense counters, never reused and never parsed. Rows of arrays are not ids, except where a
table is fixed at start: node, GPU and function ids are row numbers of the tables they index.
"""

from enum import IntEnum
from typing import NewType

import msgspec
import numpy as np
from numpy.typing import NDArray

from inferx.core.units import FOREVER_NS, NS_PER_S

__all__ = [
    "ANY_NODE",
    "F64",
    "I32",
    "I64",
    "NO_FUNCTION",
    "NO_POD",
    "Bool",
    "FunctionId",
    "FunctionSpec",
    "GpuId",
    "LeaseId",
    "Links",
    "NodeId",
    "NodeSpec",
    "PodId",
    "RequestId",
    "RouterId",
    "Tier",
    "Want",
    "want_of",
]

NodeId = NewType("NodeId", int)
GpuId = NewType("GpuId", int)
FunctionId = NewType("FunctionId", int)
PodId = NewType("PodId", int)
RequestId = NewType("RequestId", int)
RouterId = NewType("RouterId", int)
LeaseId = NewType("LeaseId", int)

ANY_NODE = NodeId(-1)
NO_POD = PodId(-1)
NO_FUNCTION = FunctionId(-1)

Bool = NDArray[np.bool_]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
F64 = NDArray[np.float64]


class Tier(IntEnum):
    """Where a function's restorable state lives; higher is warmer."""

    ABSENT = 0
    REMOTE = 1
    NVME = 2
    DRAM = 3
    HBM = 4


class Links(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Bandwidth of a node's links, in bytes per second; 0 means the link is absent.

    `pcie_gpu` is one GPU's host link, `pcie_root` what the node's GPUs share, `network` the
    node's, over which the object store and its peers are reached.
    """

    pcie_gpu: int
    pcie_root: int
    dram: int
    nvme_read: int
    nvme_write: int
    ebs: int
    network: int


class NodeSpec(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One GPU node, as described.

    `platform` is what a snapshot's manifest must match for a restore to start here: GPU model and
    driver. `usd_per_hour` is the on-demand price; 0 when unknown.
    """

    name: str
    group: str
    zone: str
    instance_type: str
    gpu_type: str
    platform: str
    gpus: int
    hbm_bytes: int
    host_bytes: int
    nvme_bytes: int
    links: Links
    usd_per_hour: float = 0.0


class FunctionSpec(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One function, as deployed.

    A pod holds `gpus` equal slices on one node, each `milli_gpu` of compute and `hbm_bytes` of
    memory. `device_bytes` is the GPU state of a warmed-up pod over all its slices after its KV
    cache was released, `host_bytes` its CPU state: together they are the snapshot. `weight_bytes`
    is what a cold start reads. `slots` is how many requests one pod serves at once (`parallel`).
    """

    name: str
    tenant: str = "default"
    gpus: int = 1
    milli_gpu: int = 1000
    hbm_bytes: int
    gpu_type: str = "Any"
    enforcement: str = "none"
    device_bytes: int
    host_bytes: int
    weight_bytes: int
    slots: int = 50
    queue_len: int = 100
    queue_timeout_ns: int = 30 * NS_PER_S
    linger_ns: int = NS_PER_S
    wait_ratio: float = 0.1
    min_replica: int = 0
    max_replica: int = 1
    standby_per_node: int = 1
    priority: int = 0

    @property
    def snapshot_bytes(self) -> int:
        """Size of the frozen state: GPU and CPU side."""
        return self.device_bytes + self.host_bytes


class Want(msgspec.Struct, frozen=True, gc=False):
    """One pod that needs a place: `gpus` slices of equal size on one node.

    `node` narrows the choice to one node; -1 leaves it open. `since_ns` is when the oldest
    request that asks for this pod began to wait.
    """

    function: FunctionId
    gpus: int
    milli_gpu: int
    hbm_bytes: int
    host_bytes: int
    gpu_type: str
    node: NodeId = ANY_NODE
    since_ns: int = FOREVER_NS


def want_of(
    function: FunctionId,
    spec: FunctionSpec,
    *,
    node: NodeId = ANY_NODE,
    since_ns: int = FOREVER_NS,
) -> Want:
    """Return the want of one pod of a function."""
    return Want(
        function,
        spec.gpus,
        spec.milli_gpu,
        spec.hbm_bytes,
        spec.host_bytes,
        spec.gpu_type,
        node,
        since_ns,
    )
