"""ServerlessLLM as its repository has it: storage-aware scheduling without migration.

Source: repository ServerlessLLM/ServerlessLLM at 9f50241,
`sllm/schedulers/storage_aware_scheduler.py` (schedule, line 210; _get_model_loading_time, 454);
beside it `store_manager.py` (get_store_info, load_to_host, register), `hardware_info_collector.py`
and `routers/roundrobin_router.py` (auto_scaler). The paper's variant is `serverlessllm`.

- A server is a candidate if the model's checkpoint is on its disk and it has the free GPUs, whole
  ones. Loading is expected to take size / PCIe bandwidth where the checkpoint is in the server's
  pool of host memory, else what its queue of loads still takes plus size / disk bandwidth. The
  least wins; ties go to the server whose number comes first as text: 10 comes before 2.
- A load from disk joins the server's queue, unless the model is in it: it is expected to end one
  size / disk bandwidth after the latest there.
- PCIe bandwidth is 25 GB/s whatever the server has, disk bandwidth the mean of writing and reading.
- A model is put on one server's disk when it is deployed, in turn; nothing copies it elsewhere.
- Every second, each model with fewer instances than ongoing requests / 2, rounded up and at most
  10, gets one more, each with more loses one once it has had too many for `keep_alive_s` seconds,
  which need not be in a row.
- `enable_migration` is off in the original unless it is asked for, and off here: what does not fit
  waits.

Differs: bandwidths are the described ones, where the original times a file of 100 MB, its page
cache and its random numbers included; a model that no server has yet is fetched by its first start,
where the original's requests wait until it is deployed; a full disk, a lost server or one without
such GPUs passes a model on to the next in turn; the pool holds what has left a GPU, where the
original loads through it and drops the least recently used; requests reach the scheduler in the
kernel's order, where the original sorts them by their place in their own model's queue; with
migration, the original reserves the newcomer's GPUs at the target, not the moved model's, and a
failed search for a target ends the whole search: neither is here.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

from inferx.policy import (
    FOREVER_NS,
    I32,
    I64,
    NS_PER_S,
    Bool,
    ClusterView,
    Defer,
    Demote,
    FunctionId,
    GpuId,
    NodeId,
    Place,
    PolicyBundle,
    Promote,
    Tier,
    Want,
    serverlessllm,
    want_of,
)
from inferx.policy.basics import FixedHold

__all__ = ["OngoingRequests", "RoundRobinDeployment", "StorageAware", "bundle"]

PCIE_BYTES_PER_S = 25_000_000_000
"""`collect_all_info`: PCIe 4.0 x16, not measured."""
_NO_GPU = Defer("no GPU fits")
_NO_CHECKPOINT = Defer("no checkpoint")


def _homes(function: FunctionId, view: ClusterView) -> list[int]:
    """Return the nodes that could hold a model and run it, from its turn on."""
    spec, gpus, nodes = view.spec(function), view.gpus, view.nodes
    want = want_of(function, spec)
    count = len(nodes.specs)
    runs = np.bincount(gpus.node[view.eligible(want)], minlength=count) >= spec.gpus
    runs &= (nodes.nvme_bytes_free >= spec.snapshot_bytes) | nodes.snapshots[:, function]
    turn = (int(function) + np.arange(count)) % count
    return [int(node) for node in turn[runs[turn]]]


@dataclass(slots=True)
class StorageAware:
    """Places on the server that is expected to have loaded the model soonest."""

    _ends_ns: dict[int, int] = field(default_factory=dict[int, int])
    """When the latest load in each node's queue is expected to end."""
    _loads: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    """The same of each (node, function) that was queued."""

    def place(self, want: Want, view: ClusterView, rng: Generator) -> Place | Defer:
        """Return the lowest free GPUs of the best server, and queue its load."""
        fits = view.fits(want)
        if want.node >= 0:
            return self._on(want, int(want.node), fits, view)
        pool = view.node_tier(want.function) == int(Tier.DRAM)
        has = (view.nodes.snapshots[:, want.function] | pool) & view.nodes.schedulable
        if not has.any():
            homes = _homes(want.function, view)
            if not homes:
                return _NO_CHECKPOINT
            return self._on(want, homes[0], fits, view)
        open_nodes = np.zeros(len(has), np.bool_)
        open_nodes[view.gpus.node[fits]] = True
        candidates = np.flatnonzero(has & open_nodes)
        if not len(candidates):
            return _NO_GPU
        latency_ns = self.latency_ns(want.function, pool, view)
        node = min(candidates.tolist(), key=lambda n: (int(latency_ns[n]), str(n)))
        if not pool[node]:
            self._queue(node, want.function, view)
        return self._on(want, node, fits, view)

    def latency_ns(self, function: FunctionId, pool: Bool, view: ClusterView) -> I64:
        """Return how long loading is expected to take on each node. Shape (nodes,)."""
        size = view.spec(function).weight_bytes
        waits = np.zeros(len(pool), np.int64)
        for node, ends_ns in self._ends_ns.items():
            waits[node] = max(0, ends_ns - view.now_ns)
        reads = np.array([_disk_ns(size, node, view) for node in range(len(pool))], np.int64)
        latency: I64 = np.where(pool, size * NS_PER_S // PCIE_BYTES_PER_S, waits + reads)
        return latency

    def _queue(self, node: int, function: FunctionId, view: ClusterView) -> None:
        if self._loads.get((node, function), 0) > view.now_ns:
            return
        starts_ns = max(self._ends_ns.get(node, 0), view.now_ns)
        ends_ns = starts_ns + _disk_ns(view.spec(function).weight_bytes, node, view)
        self._ends_ns[node] = self._loads[node, function] = ends_ns

    def _on(self, want: Want, node: int, fits: Bool, view: ClusterView) -> Place | Defer:
        here = np.flatnonzero(fits & (view.gpus.node == node))[: want.gpus]
        if len(here) < want.gpus:
            return _NO_GPU
        return Place(tuple(GpuId(int(gpu)) for gpu in here))


def _disk_ns(size_bytes: int, node: int, view: ClusterView) -> int:
    links = view.nodes.specs[node].links
    mean = (links.nvme_read + links.nvme_write) // 2 or links.ebs
    return size_bytes * NS_PER_S // max(mean, 1)


@dataclass(frozen=True, slots=True)
class RoundRobinDeployment:
    """Puts each model on the disk of one server, in turn."""

    def promote(self, view: ClusterView, rng: Generator) -> Sequence[Promote | Demote]:
        """Return a copy for each model that no open server has."""
        functions, nodes = view.functions, view.nodes
        there = (nodes.snapshots & nodes.schedulable[:, np.newaxis]).any(axis=0)
        moves: list[Promote] = []
        # One that starts leaves its copy where it does.
        for f in np.flatnonzero(~there & (functions.starting == 0)).tolist():
            homes = _homes(FunctionId(f), view)
            if homes:
                moves.append(Promote(FunctionId(f), NodeId(homes[0]), Tier.NVME))
        return moves


@dataclass(slots=True)
class OngoingRequests:
    """One instance more or less a second, towards the ongoing requests over a target."""

    target_requests: int
    max_instances: int
    keep_alive_s: int
    _created_ns: dict[int, int] = field(default_factory=dict[int, int])
    _idle_s: I64 = field(default_factory=lambda: np.zeros(0, np.int64))

    def target(self, function: FunctionId, view: ClusterView) -> int:
        """Return the instances there are, or one more once a second; one at least."""
        table = view.functions
        live = int(table.ready[function]) + int(table.starting[function])
        ongoing = int(table.queued[function]) + int(table.inflight[function])
        desired = min(self.max_instances, -(-ongoing // self.target_requests))
        if live == 0:
            return 1
        since_ns = view.now_ns - self._created_ns.get(function, -FOREVER_NS)
        if desired <= live or since_ns < NS_PER_S:
            return live
        self._created_ns[function] = view.now_ns
        return live + 1

    def targets(self, view: ClusterView) -> I32:
        """Return one instance more or less where the requests say so. Shape (functions,)."""
        table = view.functions
        live = table.ready + table.starting
        if len(self._idle_s) < len(live):
            self._idle_s = np.zeros(len(live), np.int64)
        desired = -(-(table.queued + table.inflight) // self.target_requests)
        desired = np.minimum(self.max_instances, desired)
        over = desired < live
        stops = over & (self._idle_s >= self.keep_alive_s)
        self._idle_s[over & ~stops] += 1
        self._idle_s[stops] = 0
        more = desired > live
        for f in np.flatnonzero(more).tolist():
            more[f] = view.now_ns - self._created_ns.get(f, -FOREVER_NS) >= NS_PER_S
            if more[f]:
                self._created_ns[f] = view.now_ns
        wanted: I32 = (live + more - stops).astype(np.int32)
        return wanted


def bundle(
    keep_alive_s: int = 0, target_requests: int = 2, max_instances: int = 10
) -> PolicyBundle:
    """Return the bundle.

    Args:
        keep_alive_s: For how many seconds a model keeps an instance too many.
        target_requests: Ongoing requests an instance.
        max_instances: Instances of a model at most.

    Raises:
        ValueError: A setting is out of its range.
    """
    if not 0 <= keep_alive_s <= 366 * 86_400:
        raise ValueError(f"keep_alive_s is {keep_alive_s}; expected seconds, 0 to a year")
    if not 1 <= target_requests <= 1_000_000:
        raise ValueError(f"target_requests is {target_requests}; expected 1 to 1000000")
    if not 1 <= max_instances <= 10_000:
        raise ValueError(f"max_instances is {max_instances}; expected 1 to 10000")
    return dataclasses.replace(
        serverlessllm.bundle(),
        name="serverlessllm-repository",
        placement=StorageAware(),
        prewarm=RoundRobinDeployment(),
        scaling=OngoingRequests(target_requests, max_instances, keep_alive_s),
        keep_alive=FixedHold(FOREVER_NS, Tier.DRAM),
        control_period_ns=NS_PER_S,
        # Until the last of the instances has gone.
        settle_ns=(keep_alive_s + 1) * (max_instances + 1) * NS_PER_S,
    )
