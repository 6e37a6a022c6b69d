"""What a policy sees of GPUs, nodes, pods and functions: read-only columns, the cluster's own."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from inferx.core.cluster import Cluster
from inferx.core.lifecycle import PodState
from inferx.core.types import F64, I32, I64, Bool, FunctionSpec, NodeSpec

__all__ = ["FunctionTable", "GpuTable", "NodeTable", "PodTable"]

_T = TypeVar("_T", bound=np.generic)


def _locked(array: NDArray[_T]) -> NDArray[_T]:
    seen = array.view()
    seen.flags.writeable = False
    return seen


class GpuTable:
    """Row g is GPU g; every array has shape (gpus,)."""

    __slots__ = ("hbm_bytes_free", "hbm_bytes_total", "milli_free", "node", "pods", "schedulable")

    def __init__(self, cluster: Cluster) -> None:
        self.node: I32 = _locked(cluster.gpu_node)
        """Node of each GPU."""
        self.milli_free: I32 = _locked(cluster.gpu_milli_open)
        """Compute neither charged nor promised; negative while victims of a promise leave."""
        self.hbm_bytes_free: I64 = _locked(cluster.gpu_hbm_open)
        """Memory neither charged nor promised; negative while victims of a promise leave."""
        self.hbm_bytes_total: I64 = _locked(cluster.gpu_hbm_total)
        """Memory of each GPU."""
        self.pods: I32 = _locked(cluster.gpu_pods)
        """Pods that hold a slice of each GPU."""
        self.schedulable: Bool = _locked(cluster.gpu_schedulable)
        """Whether new pods may be placed there."""


class NodeTable:
    """Row n is node n; every array has shape (nodes,) unless it says otherwise."""

    __slots__ = (
        "group",
        "host_bytes_free",
        "host_bytes_total",
        "nvme_bytes_free",
        "platform",
        "remote_snapshots",
        "schedulable",
        "snapshots",
        "specs",
    )

    def __init__(self, cluster: Cluster) -> None:
        self.specs: tuple[NodeSpec, ...] = cluster.nodes
        """The nodes as described."""
        self.group: I32 = _locked(cluster.node_group)
        """Nodes of one group are alike; see `ClusterView.starts_ns`."""
        self.host_bytes_free: I64 = _locked(cluster.node_host_open)
        """Host memory neither charged nor promised."""
        self.host_bytes_total: I64 = _locked(cluster.node_host_total)
        """Host memory."""
        self.nvme_bytes_free: I64 = _locked(cluster.node_nvme_free)
        """Local disk not held by snapshots."""
        self.schedulable: Bool = _locked(cluster.node_schedulable)
        """Whether new pods may be placed there."""
        self.snapshots: Bool = _locked(cluster.nvme)
        """Which functions' snapshots are on the node's disk. Shape (nodes, functions)."""
        self.platform: I32 = _locked(cluster.node_platform)
        """Row of `remote_snapshots` that fits the node."""
        self.remote_snapshots: Bool = _locked(cluster.remote)
        """Which snapshots the shared store has. Shape (platforms, functions)."""


class PodTable:
    """Rows are pods in pod order; every array has shape (rows,).

    Rows of pods that are gone stay for a while: their `id` is -1, `idle` is False, `state` GONE.
    """

    __slots__ = ("_c", "_n")

    def __init__(self, cluster: Cluster) -> None:
        self._c = cluster.columns
        self._n = cluster.columns.count

    @property
    def id(self) -> I64:
        """Pod id."""
        return _locked(self._c.id[: self._n])

    @property
    def function(self) -> I32:
        """Function of the pod."""
        return _locked(self._c.function[: self._n])

    @property
    def node(self) -> I32:
        """Node of the pod."""
        return _locked(self._c.node[: self._n])

    @property
    def gpu(self) -> I32:
        """GPUs of the pod, padded with -1. Shape (rows, 8)."""
        return _locked(self._c.gpu[: self._n])

    @property
    def milli_gpu(self) -> I32:
        """Compute of each slice."""
        return _locked(self._c.milli_gpu[: self._n])

    @property
    def hbm_bytes(self) -> I64:
        """Memory of each slice."""
        return _locked(self._c.hbm_bytes[: self._n])

    @property
    def host_bytes(self) -> I64:
        """Host memory that the pod is charged."""
        return _locked(self._c.host_bytes[: self._n])

    @property
    def state(self) -> I32:
        """`PodState` of the pod."""
        return _locked(self._c.state[: self._n])

    @property
    def idle(self) -> Bool:
        """Ready, and leased by nobody: may be evicted at once."""
        return _locked(self._c.idle[: self._n])

    @property
    def ready(self) -> Bool:
        """Ready, leased or not: may be evicted, a leased one after it was drained."""
        ready: Bool = self._c.state[: self._n] == int(PodState.READY)
        return ready

    @property
    def standby(self) -> Bool:
        """Suspended: holds host memory and no GPU; may be evicted to free host memory."""
        standby: Bool = self._c.state[: self._n] == int(PodState.STANDBY)
        return standby

    @property
    def leased_slots(self) -> I32:
        """Slots that routers hold."""
        return _locked(self._c.leased_slots[: self._n])

    @property
    def idle_since_ns(self) -> I64:
        """When the pod was last given back, or became ready."""
        return _locked(self._c.idle_since_ns[: self._n])

    @property
    def ready_ns(self) -> I64:
        """When the pod became ready."""
        return _locked(self._c.ready_ns[: self._n])


class FunctionTable:
    """Row f is function f; every array has shape (functions,)."""

    __slots__ = (
        "_c",
        "device_bytes",
        "gpus",
        "hbm_bytes",
        "host_bytes",
        "inflight",
        "milli_gpu",
        "min_replica",
        "queued",
        "ready",
        "slots",
        "specs",
        "standby",
        "standby_per_node",
        "starting",
    )

    def __init__(self, cluster: Cluster) -> None:
        self._c = cluster
        self.specs: tuple[FunctionSpec, ...] = cluster.functions
        """The functions as described."""
        specs = cluster.functions
        self.slots: I32 = _locked(np.array([spec.slots for spec in specs], np.int32))
        """Requests that one pod serves at once."""
        self.gpus: I32 = _locked(np.array([spec.gpus for spec in specs], np.int32))
        """Slices of one pod."""
        self.milli_gpu: I32 = _locked(np.array([spec.milli_gpu for spec in specs], np.int32))
        """Compute of each slice."""
        self.hbm_bytes: I64 = _locked(np.array([spec.hbm_bytes for spec in specs], np.int64))
        """Memory of each slice."""
        self.device_bytes: I64 = _locked(np.array([s.device_bytes for s in specs], np.int64))
        """GPU state of a suspended pod."""
        self.host_bytes: I64 = _locked(np.array([s.host_bytes for s in specs], np.int64))
        """Host memory of a live pod."""
        self.min_replica: I32 = _locked(np.array([s.min_replica for s in specs], np.int32))
        """Ready pods that the function is promised."""
        self.standby_per_node: I32 = _locked(
            np.array([spec.standby_per_node for spec in specs], np.int32)
        )
        """Suspended pods that the function asks for on each node."""
        self.queued: I32 = _locked(cluster.fn_queued)
        """Requests that wait in routers, as last reported."""
        self.inflight: I32 = _locked(cluster.fn_inflight)
        """Requests in service, as last reported."""
        self.ready: I32 = _locked(cluster.fn_ready)
        """Pods that are ready."""
        self.starting: I32 = _locked(cluster.fn_starting)
        """Pods on their way to ready."""
        self.standby: I32 = _locked(cluster.fn_standby)
        """Pods suspended in host memory, or on their way there."""

    @property
    def arrivals_per_s(self) -> F64:
        """Learned arrival rate now."""
        return self._c.arrivals.per_s(self._c.now_ns)

    @property
    def last_arrival_ns(self) -> I64:
        """When each function was last asked for; 0 if never."""
        return _locked(self._c.arrivals.last_ns())
