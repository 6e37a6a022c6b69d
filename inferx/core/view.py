"""What a policy may see: the cluster as read-only columns, and learned estimates.

A view is valid for one call. Its arrays are not writeable; a policy that changes one raises.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import numpy as np

from inferx.core.cluster import Cluster
from inferx.core.estimate import moved_bytes
from inferx.core.lifecycle import PodState
from inferx.core.tables import FunctionTable, GpuTable, NodeTable, PodTable
from inferx.core.types import (
    F64,
    I32,
    I64,
    Bool,
    FunctionId,
    FunctionSpec,
    GpuId,
    NodeId,
    PodId,
    Tier,
    Want,
)
from inferx.core.units import GIB

__all__ = ["ClusterView", "Trial"]

_BELOW_HBM: Final = (Tier.ABSENT, Tier.REMOTE, Tier.NVME, Tier.DRAM)


class ClusterView:
    """The cluster at one instant, for one call."""

    __slots__ = (
        "_best",
        "_c",
        "_moved_gib",
        "_snapshots",
        "_start_table",
        "_start_version",
        "_start_versions",
        "functions",
        "gpus",
        "nodes",
    )

    def __init__(self, cluster: Cluster, *, snapshots: bool) -> None:
        """Look at `cluster`; `snapshots` says whether starts may use them."""
        self._c = cluster
        self._snapshots = snapshots
        self._moved_gib: F64 = np.zeros((len(_BELOW_HBM), 0))
        self.grown()

    def grown(self) -> None:
        """Look anew at a cluster that has other nodes or functions."""
        cluster = self._c
        # What a pod moves never changes: only functions that are new are looked at.
        more = cluster.functions[self._moved_gib.shape[1] :]
        moved = [[moved_bytes(spec, tier) / GIB for spec in more] for tier in _BELOW_HBM]
        self._moved_gib = np.concatenate((self._moved_gib, np.array(moved)), axis=1)
        shape = (len(_BELOW_HBM), len(cluster.groups), len(cluster.functions))
        self._start_table: I64 = np.zeros(shape, np.int64)
        self._start_version = -1
        self._start_versions: dict[tuple[Tier, int], int] = {}
        self._best: dict[Tier, I64] = {}
        self.gpus = GpuTable(cluster)
        self.nodes = NodeTable(cluster)
        self.functions = FunctionTable(cluster)

    @property
    def now_ns(self) -> int:
        """The present instant."""
        return self._c.now_ns

    @property
    def pods(self) -> PodTable:
        """The pods."""
        return PodTable(self._c)

    def spec(self, function: FunctionId) -> FunctionSpec:
        """Return a function as described."""
        return self._c.functions[function]

    def pod_ids(self, function: FunctionId) -> tuple[PodId, ...]:
        """Pods of a function, in pod order."""
        return tuple(self._c.by_function[function])

    def nodes_in(self, function: FunctionId, state: PodState) -> list[NodeId]:
        """Nodes of a function's pods that are in a state, in pod order."""
        return [pod.node for pod in self._c.by_function[function].values() if pod.state is state]

    def eligible(self, want: Want) -> Bool:
        """GPUs that could ever hold one slice of `want`, full or not. Shape (gpus,)."""
        c = self._c
        ok = c.gpu_schedulable & c.type_mask(want.gpu_type)
        if want.node >= 0:
            ok &= c.gpu_node == want.node
        ok &= c.gpu_hbm_total >= want.hbm_bytes
        return ok

    def fits(self, want: Want) -> Bool:
        """GPUs that can hold one slice of `want` now. Shape (gpus,).

        For a want of several slices, only GPUs of nodes that have enough of them.
        """
        c = self._c
        return _fits(c, want, c.gpu_milli_open, c.gpu_hbm_open, c.node_host_open)

    def tier(self, function: FunctionId) -> I32:
        """Warmest `Tier` of `function` on each GPU's node. Shape (gpus,)."""
        tier = self._node_tier(function)
        for pod in self._c.by_function[function].values():
            if pod.state is PodState.READY:
                tier[pod.node] = int(Tier.HBM)
        return tier[self._c.gpu_node]

    def node_tier(self, function: FunctionId) -> I32:
        """Warmest `Tier` below HBM that a start can use, on each node. Shape (nodes,)."""
        return self._node_tier(function)

    def _node_tier(self, function: FunctionId) -> I32:
        c = self._c
        tier = np.zeros(len(c.nodes), np.int32)
        if self._snapshots:
            tier[c.remote[c.node_platform, function]] = int(Tier.REMOTE)
            tier[c.nvme[:, function]] = int(Tier.NVME)
        for pod in c.by_function[function].values():
            if pod.state is PodState.STANDBY:
                tier[pod.node] = int(Tier.DRAM)
        return tier

    def restore_ns(self, function: FunctionId) -> I64:
        """Estimated start-up time on each GPU, from the warmest tier there. Shape (gpus,)."""
        return self.node_restore_ns(function)[self._c.gpu_node]

    def node_restore_ns(self, function: FunctionId) -> I64:
        """Estimated start-up time on each node, from the warmest tier there. Shape (nodes,)."""
        c = self._c
        starts: I64 = self._starts()[self._node_tier(function), c.node_group, function]
        return starts

    def start_ns(self, function: FunctionId, source: Tier, node: NodeId) -> int:
        """Estimated start-up time from one tier on one node."""
        return int(self._starts()[int(source), int(self._c.node_group[node]), function])

    def starts_ns(self, source: Tier) -> I64:
        """Estimated start-up time of every function from one tier below HBM.

        Returns:
            Shape (groups of nodes, functions); `nodes.group` says which row is a node's.
        """
        table: I64 = self._starts()[int(source)]
        table.flags.writeable = False
        return table

    def best_starts_ns(self, source: Tier) -> I64:
        """Estimated start-up time of every function from a tier, the best group's.

        Returns:
            Shape (functions,). Kept until a start is learned from.
        """
        table = self._starts()
        best = self._best.get(source)
        if best is None:
            self._best[source] = best = np.minimum.reduce(table[int(source)], axis=0)
            best.flags.writeable = False
        return best

    def _starts(self) -> I64:
        """Shape (tiers below HBM, groups, functions); only what was learned anew is computed."""
        starts = self._c.starts
        if self._start_version != starts.version:
            self._start_version = starts.version
            self._best.clear()
            for (tier, group), version in starts.versions.items():
                if self._start_versions.get((tier, group)) != version:
                    self._start_versions[tier, group] = version
                    moved = self._moved_gib[int(tier)]
                    self._start_table[int(tier), group] = starts.starts_ns(tier, group, moved)
        return self._start_table.view()

    def arrivals_per_s(self, function: FunctionId) -> float:
        """Learned arrival rate of one function now."""
        return self._c.arrivals.one_per_s(function, self._c.now_ns)

    def trial(self) -> "Trial":
        """Open a what-if: release and place on a copy, undo, ask `fits` again."""
        return Trial(self._c)


def _fits(c: Cluster, want: Want, milli: I32, hbm: I64, host: I64) -> Bool:
    ok: Bool = (milli >= want.milli_gpu) & (hbm >= want.hbm_bytes)
    ok &= c.gpu_schedulable
    if want.gpu_type != "Any":
        ok &= c.type_mask(want.gpu_type)
    if want.node >= 0:
        ok &= c.gpu_node == want.node
    short = host < want.host_bytes
    for pod in c.by_function[want.function].values():
        # A suspended pod brings its host memory along.
        if pod.state is PodState.STANDBY:
            short[pod.node] = False
    if short.any():
        ok &= ~short[c.gpu_node]
    if want.gpus > 1:
        per_node = np.bincount(c.gpu_node[ok], minlength=len(c.nodes))
        ok &= (per_node >= want.gpus)[c.gpu_node]
    return ok


class Trial:
    """A what-if on copies of the free columns; the cluster itself is never touched.

    Use as a context manager, or drop it. `undo()` takes back the latest change.
    """

    __slots__ = ("_c", "_hbm", "_host", "_log", "_milli")

    def __init__(self, cluster: Cluster) -> None:
        self._c = cluster
        self._milli = cluster.gpu_milli_open.copy()
        self._hbm = cluster.gpu_hbm_open.copy()
        self._host = cluster.node_host_open.copy()
        self._log: list[tuple[tuple[GpuId, ...], int, int, int, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._log.clear()

    def release(self, pod: PodId) -> None:
        """Suppose that a pod and all it holds were gone."""
        held = self._c.pods[pod]
        spec = self._c.functions[held.function]
        gpus = held.gpus if held.holds_gpu else ()
        self._apply(gpus, spec.milli_gpu, spec.hbm_bytes, int(held.node), held.host_charged)

    def suspend(self, pod: PodId) -> None:
        """Suppose that a pod were suspended to host memory."""
        held = self._c.pods[pod]
        spec = self._c.functions[held.function]
        self._apply(held.gpus, spec.milli_gpu, spec.hbm_bytes, int(held.node), -spec.device_bytes)

    def place(self, want: Want, gpus: Sequence[GpuId]) -> None:
        """Suppose that `want` were placed on `gpus`."""
        node = int(self._c.gpu_node[gpus[0]])
        self._apply(tuple(gpus), -want.milli_gpu, -want.hbm_bytes, node, -want.host_bytes)

    def _apply(self, gpus: tuple[GpuId, ...], milli: int, hbm: int, node: int, host: int) -> None:
        for gpu in gpus:
            self._milli[gpu] += milli
            self._hbm[gpu] += hbm
        self._host[node] += host
        self._log.append((gpus, milli, hbm, node, host))

    def undo(self) -> None:
        """Take back the latest change."""
        gpus, milli, hbm, node, host = self._log.pop()
        for gpu in gpus:
            self._milli[gpu] -= milli
            self._hbm[gpu] -= hbm
        self._host[node] -= host

    def fits(self, want: Want) -> Bool:
        """GPUs that could hold one slice of `want` in this what-if. Shape (gpus,)."""
        return _fits(self._c, want, self._milli, self._hbm, self._host)

    def host_bytes_free(self, node: NodeId) -> int:
        """Host memory of a node in this what-if."""
        return int(self._host[node])
