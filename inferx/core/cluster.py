"""The state of the cluster as the scheduler believes it: GPUs, nodes, pods, snapshots.

Laws:
1. Only a machine's `step` changes it; policies see it through `ClusterView`.
2. Capacity is charged when a start is decided and released when its end is confirmed (INV-1).
3. A pod that waits for victims to leave holds a *claim*: capacity that is promised to it, hidden
   from others, and turned into a charge when the last victim is gone.
4. Scalars of one pod live in `Pod`; the same facts lie in `PodColumns` for scans.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from inferx.core.counts import CHANGES, UNDER_WAY, is_copy
from inferx.core.estimate import ArrivalEstimate, StartEstimate
from inferx.core.lifecycle import PodState, check_transition
from inferx.core.pod import Pod, PodColumns
from inferx.core.recount import recount
from inferx.core.types import (
    I32,
    I64,
    Bool,
    FunctionId,
    FunctionSpec,
    GpuId,
    NodeId,
    NodeSpec,
    PodId,
)
from inferx.core.units import MILLI_PER_GPU

__all__ = ["Cluster"]

_T = TypeVar("_T", bound=np.generic)


class Cluster:
    """Owned by the scheduler machine. Row g of every `gpu_*` array is GPU g, row n node n."""

    def __init__(self, nodes: Sequence[NodeSpec], functions: Sequence[FunctionSpec]) -> None:
        self.now_ns = 0
        self.nodes: tuple[NodeSpec, ...] = ()
        self.functions: tuple[FunctionSpec, ...] = ()
        self.gpu_count = 0
        self.gpu_node: I32 = np.zeros(0, np.int32)
        self.first_gpu: list[int] = [0]
        self.gpu_hbm_total: I64 = np.zeros(0, np.int64)
        self.gpu_milli_charged: I32 = np.zeros(0, np.int32)
        self.gpu_hbm_charged: I64 = np.zeros(0, np.int64)
        # Open: neither charged nor claimed. Negative while victims of a claim are still there.
        self.gpu_milli_open: I32 = np.zeros(0, np.int32)
        self.gpu_hbm_open: I64 = np.zeros(0, np.int64)
        self.gpu_pods: I32 = np.zeros(0, np.int32)
        self.gpu_schedulable: Bool = np.zeros(0, np.bool_)
        self.gpu_starting: I32 = np.zeros(0, np.int32)
        self.node_starting: I32 = np.zeros(0, np.int32)

        self.node_host_total: I64 = np.zeros(0, np.int64)
        self.node_host_charged: I64 = np.zeros(0, np.int64)
        self.node_host_open: I64 = np.zeros(0, np.int64)
        self.node_nvme_total: I64 = np.zeros(0, np.int64)
        self.node_nvme_free: I64 = np.zeros(0, np.int64)
        self.node_schedulable: Bool = np.zeros(0, np.bool_)
        self.node_alive: Bool = np.zeros(0, np.bool_)
        self.platforms: tuple[str, ...] = ()
        self.node_platform: I32 = np.zeros(0, np.int32)
        self.groups: tuple[str, ...] = ()
        self.node_group: I32 = np.zeros(0, np.int32)
        self._type_mask: dict[str, Bool] = {}
        self._any_type: Bool = np.zeros(0, np.bool_)
        self._no_type: Bool = np.zeros(0, np.bool_)

        self.nvme: Bool = np.zeros((0, 0), np.bool_)
        self.remote: Bool = np.zeros((0, 0), np.bool_)
        self.snapshot_bytes: I64 = np.zeros(0, np.int64)

        self.pods: dict[PodId, Pod] = {}
        self.columns = PodColumns()
        self.by_function: list[dict[PodId, Pod]] = []
        self.fn_queued: I32 = np.zeros(0, np.int32)
        self.fn_inflight: I32 = np.zeros(0, np.int32)
        self.fn_ready: I32 = np.zeros(0, np.int32)
        self.fn_starting: I32 = np.zeros(0, np.int32)
        self.fn_standby: I32 = np.zeros(0, np.int32)
        self.fn_copies: I32 = np.zeros(0, np.int32)
        self.fn_spec: dict[str, NDArray[Any]] = {
            name: np.zeros(0, kind) for name, kind in _SPEC_COLUMNS.items()
        }
        """What functions are described as, those fields that are scanned."""
        self.arrivals = ArrivalEstimate()
        self.starts = StartEstimate()
        self.add_nodes(nodes)
        self.add_functions(functions)

    # -- what there is: it grows, and rows are never taken back ---
    def add_nodes(self, nodes: Sequence[NodeSpec]) -> None:
        """Enter nodes that have not joined; their ids follow those that are known."""
        known, counts = len(self.nodes), [node.gpus for node in nodes]
        self.nodes = (*self.nodes, *nodes)
        more = sum(counts)
        numbers = np.arange(known, known + len(nodes), dtype=np.int32)
        self.gpu_node = _longer(self.gpu_node, np.repeat(numbers, counts))
        for count in counts:
            self.first_gpu.append(self.first_gpu[-1] + count)
        hbm = np.repeat(np.array([node.hbm_bytes for node in nodes], np.int64), counts)
        self.gpu_hbm_total = _longer(self.gpu_hbm_total, hbm)
        self.gpu_hbm_open = _longer(self.gpu_hbm_open, hbm)
        self.gpu_milli_open = _longer(self.gpu_milli_open, np.full(more, MILLI_PER_GPU, np.int32))
        for name in ("milli_charged", "hbm_charged", "pods", "schedulable", "starting"):
            setattr(self, f"gpu_{name}", _longer(getattr(self, f"gpu_{name}"), more))
        self.gpu_count += more

        host = np.array([node.host_bytes for node in nodes], np.int64)
        self.node_host_total = _longer(self.node_host_total, host)
        self.node_host_open = _longer(self.node_host_open, host)
        disk = np.array([node.nvme_bytes for node in nodes], np.int64)
        self.node_nvme_total = _longer(self.node_nvme_total, disk)
        self.node_nvme_free = _longer(self.node_nvme_free, disk)
        for name in (
            "node_host_charged",
            "node_schedulable",
            "node_alive",
            "node_starting",
            "nvme",
        ):
            setattr(self, name, _longer(getattr(self, name), len(nodes)))

        platforms = sorted({node.platform for node in nodes} - set(self.platforms))
        self.platforms = (*self.platforms, *platforms)
        self.remote = _longer(self.remote, len(platforms))
        at = [self.platforms.index(node.platform) for node in nodes]
        self.node_platform = _longer(self.node_platform, np.array(at, np.int32))
        groups = {node.group: node for node in reversed(nodes) if node.group not in self.groups}
        ordered = list(dict.fromkeys(node.group for node in nodes if node.group in groups))
        self.groups = (*self.groups, *ordered)
        self.starts.add_groups([groups[group] for group in ordered])
        at = [self.groups.index(node.group) for node in nodes]
        self.node_group = _longer(self.node_group, np.array(at, np.int32))

        self._any_type = np.ones(self.gpu_count, np.bool_)
        self._no_type = np.zeros(self.gpu_count, np.bool_)
        counts = [node.gpus for node in self.nodes]
        self._type_mask = {
            kind: np.repeat(np.array([n.gpu_type == kind for n in self.nodes], np.bool_), counts)
            for kind in dict.fromkeys(node.gpu_type for node in self.nodes)
        }

    def add_functions(self, functions: Sequence[FunctionSpec]) -> None:
        """Enter functions; their ids follow those that are known."""
        more = len(functions)
        self.functions = (*self.functions, *functions)
        sizes = np.array([spec.snapshot_bytes for spec in functions], np.int64)
        self.snapshot_bytes = _longer(self.snapshot_bytes, sizes)
        self.nvme = np.pad(self.nvme, ((0, 0), (0, more)))
        self.remote = np.pad(self.remote, ((0, 0), (0, more)))
        self.by_function += [{} for _ in functions]
        for name in ("queued", "inflight", "ready", "starting", "standby", "copies"):
            setattr(self, f"fn_{name}", _longer(getattr(self, f"fn_{name}"), more))
        for name, column in self.fn_spec.items():
            described = [getattr(spec, name) for spec in functions]
            self.fn_spec[name] = _longer(column, np.array(described, column.dtype))
        self.arrivals.grow(more)

    def redefine(self, function: FunctionId, spec: FunctionSpec) -> None:
        """Change how a function is served; what its pods hold stays what it is."""
        old = self.functions[function]
        assert _held(spec) == _held(old), f"function {function}: what a pod holds cannot change"
        self.functions = (*self.functions[:function], spec, *self.functions[function + 1 :])
        for name, column in self.fn_spec.items():
            column[function] = getattr(spec, name)

    # -- queries ---
    def type_mask(self, gpu_type: str) -> Bool:
        """GPUs of the wanted type. Shape (gpus,)."""
        if gpu_type == "Any":
            return self._any_type
        return self._type_mask.get(gpu_type, self._no_type)

    def live(self, function: FunctionId) -> int:
        """Pods of a function that serve or soon will."""
        return int(self.fn_ready[function]) + int(self.fn_starting[function])

    def has_room(
        self, node: NodeId, gpus: Sequence[GpuId], spec: FunctionSpec, host_bytes: int
    ) -> bool:
        """Tell whether slices and host memory could be charged, whatever is promised to others."""
        if self.node_host_charged[node] + host_bytes > self.node_host_total[node]:
            return False
        return all(
            self.gpu_milli_charged[gpu] + spec.milli_gpu <= MILLI_PER_GPU
            and self.gpu_hbm_charged[gpu] + spec.hbm_bytes <= self.gpu_hbm_total[gpu]
            for gpu in gpus
        )

    def can_charge(self, pod: Pod) -> bool:
        """Tell whether what a pod is promised is free by now."""
        spec = self.functions[pod.function]
        return self.has_room(pod.node, pod.gpus, spec, self.claimed_host(pod))

    # -- pods ---
    def add_pod(
        self, pod: PodId, function: FunctionId, gpus: tuple[GpuId, ...], node: NodeId
    ) -> Pod:
        """Enter a pod in state INIT; it holds nothing yet."""
        columns = self.columns
        row = columns.add()
        spec = self.functions[function]
        new = Pod(pod, function, node, gpus, PodState.INIT, row)
        columns.id[row] = pod
        columns.function[row] = function
        columns.node[row] = node
        columns.milli_gpu[row] = spec.milli_gpu
        columns.hbm_bytes[row] = spec.hbm_bytes
        columns.host_bytes[row] = 0
        columns.state[row] = int(PodState.INIT)
        columns.idle[row] = False
        columns.idle_since_ns[row] = 0
        columns.ready_ns[row] = 0
        columns.leased_slots[row] = 0
        self._place_row(row, gpus)
        self.pods[pod] = new
        self.by_function[function][pod] = new
        self.fn_starting[function] += 1
        return new

    def _place_row(self, row: int, gpus: tuple[GpuId, ...]) -> None:
        self.columns.gpu[row] = -1
        self.columns.gpu[row, : len(gpus)] = gpus

    def move(self, pod: Pod, gpus: tuple[GpuId, ...]) -> None:
        """Name the GPUs of a pod that holds none."""
        assert not pod.holds_gpu
        assert not pod.claims
        pod.gpus = gpus
        self._place_row(pod.row, gpus)

    def enter(self, pod: Pod, state: PodState) -> None:
        """Change a pod's state along the lifecycle table; counts and columns follow."""
        old = pod.state
        check_transition(old, state)
        pod.state = state
        self.columns.state[pod.row] = int(state)
        for which, by in CHANGES[old, state]:
            getattr(self, which)[pod.function] += by
        began = UNDER_WAY[state] - UNDER_WAY[old]
        if began and pod.gpus:
            self.node_starting[pod.node] += began
            for gpu in pod.gpus:
                self.gpu_starting[gpu] += began
        copied = is_copy(pod)
        if copied is not pod.copied:
            pod.copied = copied
            self.fn_copies[pod.function] += 1 if copied else -1
        self.touch(pod)

    def touch(self, pod: Pod) -> None:
        """Bring the columns of leases and idleness up to date."""
        row, columns = pod.row, self.columns
        columns.leased_slots[row] = pod.leased_slots
        columns.idle[row] = pod.state is PodState.READY and not pod.leases
        columns.idle_since_ns[row] = pod.idle_since_ns
        columns.ready_ns[row] = pod.ready_ns

    def remove(self, pod: Pod) -> None:
        """Forget a pod that is gone; it must hold nothing."""
        assert pod.state is PodState.GONE
        assert not pod.holds_gpu
        assert not pod.claims
        assert pod.host_charged == 0
        del self.pods[pod.id]
        del self.by_function[pod.function][pod.id]
        self.columns.drop(pod.row)
        if self.columns.wants_compaction():
            self.columns.compact()
            for row, survivor in enumerate(self.pods.values()):
                survivor.row = row

    # -- capacity: every change of a charge is one of these ---
    def charge_gpus(self, pod: Pod) -> None:
        """Charge a pod's slices. They must be open, or claimed by this pod."""
        assert not pod.holds_gpu
        if pod.claims:
            self.unclaim(pod)
        self._shift(pod, 1, charged=True)
        pod.holds_gpu = True
        for gpu in pod.gpus:
            # Not open >= 0: another claim here may still wait for its victims.
            assert self.gpu_milli_charged[gpu] <= MILLI_PER_GPU, f"GPU {gpu}: milli overcommitted"
            assert self.gpu_hbm_charged[gpu] <= self.gpu_hbm_total[gpu], f"GPU {gpu}: HBM"

    def release_gpus(self, pod: Pod) -> None:
        """Release a pod's slices; the release is confirmed."""
        assert pod.holds_gpu
        self._shift(pod, -1, charged=True)
        pod.holds_gpu = False

    def claim(self, pod: Pod) -> None:
        """Promise a pod its slices and its host memory while victims leave."""
        assert not pod.claims
        assert not pod.holds_gpu
        self._shift(pod, 1, charged=False)
        self.node_host_open[pod.node] -= self.claimed_host(pod)
        pod.claims = True

    def unclaim(self, pod: Pod) -> None:
        """Withdraw the promise."""
        assert pod.claims
        self._shift(pod, -1, charged=False)
        self.node_host_open[pod.node] += self.claimed_host(pod)
        pod.claims = False

    def claimed_host(self, pod: Pod) -> int:
        """Host memory that a start needs beyond what the pod is charged."""
        return max(0, self.functions[pod.function].host_bytes - pod.host_charged)

    def _shift(self, pod: Pod, sign: int, *, charged: bool) -> None:
        spec = self.functions[pod.function]
        milli, hbm = sign * spec.milli_gpu, sign * spec.hbm_bytes
        for gpu in pod.gpus:
            self.gpu_milli_open[gpu] -= milli
            self.gpu_hbm_open[gpu] -= hbm
            if charged:
                self.gpu_milli_charged[gpu] += milli
                self.gpu_hbm_charged[gpu] += hbm
                self.gpu_pods[gpu] += sign

    def charge_host(self, pod: Pod, amount: int) -> None:
        """Set what a pod is charged of its node's host memory to `amount` bytes."""
        delta = amount - pod.host_charged
        self.node_host_charged[pod.node] += delta
        self.node_host_open[pod.node] -= delta
        pod.host_charged = amount
        self.columns.host_bytes[pod.row] = amount
        assert self.node_host_charged[pod.node] <= self.node_host_total[pod.node], "host memory"

    def charge_nvme(self, node: NodeId, function: FunctionId) -> None:
        """Charge a node's disk with a snapshot."""
        self.node_nvme_free[node] -= self.snapshot_bytes[function]
        assert self.node_nvme_free[node] >= 0, "disk overcommitted"

    def release_nvme(self, node: NodeId, function: FunctionId) -> None:
        """Release a snapshot's bytes."""
        self.node_nvme_free[node] += self.snapshot_bytes[function]
        assert self.node_nvme_free[node] <= self.node_nvme_total[node]

    def hold_snapshots(self, node: NodeId, functions: I64) -> None:
        """Enter snapshots that a node's disk holds, each that still fits, in the order given."""
        sizes = self.snapshot_bytes[functions]
        while len(functions):
            total = np.cumsum(sizes)
            free: np.int64 = self.node_nvme_free[node]
            fitting = int(np.searchsorted(total, free, side="right"))
            if fitting:
                self.nvme[node, functions[:fitting]] = True
                self.node_nvme_free[node] = free = free - total[fitting - 1]
            # The first that does not fit may be followed by smaller ones that do.
            rest = np.flatnonzero(sizes[fitting:] <= free) + fitting
            functions, sizes = functions[rest], sizes[rest]

    def lose_snapshots(self, node: NodeId, functions: I64) -> None:
        """Forget snapshots that a node's disk held."""
        self.nvme[node, functions] = False
        self.node_nvme_free[node] += self.snapshot_bytes[functions].sum()

    # -- nodes ---
    def set_schedulable(self, node: NodeId, *, yes: bool) -> None:
        """Open or close a node for new pods."""
        self.node_schedulable[node] = yes
        self.gpu_schedulable[self.first_gpu[node] : self.first_gpu[node + 1]] = yes

    # -- truth ---
    def check(self, nvme_pending: Sequence[tuple[NodeId, FunctionId]] = ()) -> None:
        """Assert INV-1 by recounting every charge and claim from the pods. O(pods + GPUs).

        Args:
            nvme_pending: Snapshots whose bytes are charged but which are not there yet.
        """
        recount(self, nvme_pending)


def _longer(array: NDArray[_T], more: NDArray[_T] | int) -> NDArray[_T]:
    """Return an array with rows added: those of `more`, or so many of zeros."""
    if isinstance(more, int):
        more = np.zeros((more, *array.shape[1:]), array.dtype)
    return np.concatenate((array, more))


def _held(spec: FunctionSpec) -> tuple[int, ...]:
    shape = (spec.gpus, spec.milli_gpu, spec.hbm_bytes)
    return (*shape, spec.device_bytes, spec.host_bytes, spec.weight_bytes)


_SPEC_COLUMNS: dict[str, type[np.int32 | np.int64]] = {
    "slots": np.int32,
    "gpus": np.int32,
    "milli_gpu": np.int32,
    "hbm_bytes": np.int64,
    "device_bytes": np.int64,
    "host_bytes": np.int64,
    "min_replica": np.int32,
    "standby_per_node": np.int32,
}
