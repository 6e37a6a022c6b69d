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

    __slots__ = (
        "hbm_bytes_free",
        "hbm_bytes_total",
        "milli_free",
        "node",
        "pods",
        "schedulable",
        "starting",
    )

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
        self.starting: I32 = _locked(cluster.gpu_starting)
        """Pods that are on their way to ready there; those that wait for victims are not yet."""


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
        "starting",
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
        self.starting: I32 = _locked(cluster.node_starting)
        """Pods with GPUs that are on their way to ready there."""
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

    __slots__ = ("_n", "_seen")

    def __init__(self, cluster: Cluster) -> None:
        self._seen = cluster.columns.seen
        self._n = cluster.columns.count

    @property
    def id(self) -> I64:
        """Pod id."""
        return self._seen["id"][: self._n]

    @property
    def function(self) -> I32:
        """Function of the pod."""
        return self._seen["function"][: self._n]

    @property
    def node(self) -> I32:
        """Node of the pod."""
        return self._seen["node"][: self._n]

    @property
    def gpu(self) -> I32:
        """GPUs of the pod, padded with -1. Shape (rows, 8)."""
        return self._seen["gpu"][: self._n]

    @property
    def milli_gpu(self) -> I32:
        """Compute of each slice."""
        return self._seen["milli_gpu"][: self._n]

    @property
    def hbm_bytes(self) -> I64:
        """Memory of each slice."""
        return self._seen["hbm_bytes"][: self._n]

    @property
    def host_bytes(self) -> I64:
        """Host memory that the pod is charged."""
        return self._seen["host_bytes"][: self._n]

    @property
    def state(self) -> I32:
        """`PodState` of the pod."""
        return self._seen["state"][: self._n]

    @property
    def idle(self) -> Bool:
        """Ready, and leased by nobody: may be evicted at once."""
        return self._seen["idle"][: self._n]

    @property
    def ready(self) -> Bool:
        """Ready, leased or not: may be evicted, a leased one after it was drained."""
        ready: Bool = self._seen["state"][: self._n] == int(PodState.READY)
        return ready

    @property
    def standby(self) -> Bool:
        """Suspended: holds host memory and no GPU; may be evicted to free host memory."""
        standby: Bool = self._seen["state"][: self._n] == int(PodState.STANDBY)
        return standby

    @property
    def leased_slots(self) -> I32:
        """Slots that routers hold."""
        return self._seen["leased_slots"][: self._n]

    @property
    def idle_since_ns(self) -> I64:
        """When the pod was last given back, or became ready."""
        return self._seen["idle_since_ns"][: self._n]

    @property
    def ready_ns(self) -> I64:
        """When the pod became ready."""
        return self._seen["ready_ns"][: self._n]


class FunctionTable:
    """Row f is function f; every array has shape (functions,)."""

    __slots__ = (
        "_c",
        "copies",
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
        spec = {name: _locked(column) for name, column in cluster.fn_spec.items()}
        self.slots: I32 = spec["slots"]
        """Requests that one pod serves at once."""
        self.gpus: I32 = spec["gpus"]
        """Slices of one pod."""
        self.milli_gpu: I32 = spec["milli_gpu"]
        """Compute of each slice."""
        self.hbm_bytes: I64 = spec["hbm_bytes"]
        """Memory of each slice."""
        self.device_bytes: I64 = spec["device_bytes"]
        """GPU state of a suspended pod."""
        self.host_bytes: I64 = spec["host_bytes"]
        """Host memory of a live pod."""
        self.min_replica: I32 = spec["min_replica"]
        """Ready pods that the function is promised."""
        self.standby_per_node: I32 = spec["standby_per_node"]
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
        """Pods suspended in host memory, or leaving their GPUs for it."""
        self.copies: I32 = _locked(cluster.fn_copies)
        """Pods suspended in host memory, or on their way there without a GPU."""

    @property
    def arrivals_per_s(self) -> F64:
        """Learned arrival rate now."""
        return self._c.arrivals.per_s(self._c.now_ns)

    @property
    def last_arrival_ns(self) -> I64:
        """When each function was last asked for; 0 if never."""
        return _locked(self._c.arrivals.last_ns())
