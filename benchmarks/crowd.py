"""A crowded cluster for timing decisions: pods idle, serving, starting and suspended."""

import numpy as np

from inferx.core.cluster import Cluster
from inferx.core.events import LeaseAsked, LoadReported
from inferx.core.lifecycle import PodState
from inferx.core.pod import Lease, Pod
from inferx.core.protocols import PolicyBundle
from inferx.core.rng import stream
from inferx.core.types import FunctionId, GpuId, LeaseId, NodeId, PodId, RouterId
from inferx.core.units import NS_PER_S
from inferx.core.view import ClusterView
from inferx.spec.cluster import load_cluster
from inferx.spec.template import auto_functions

__all__ = ["Crowd"]

_REPORTS = 120
"""Seconds of load that those who learn have seen."""


class Crowd:
    """Half of the pods serve, half are idle; on every fourth node one starts; a third again are
    suspended. One GPU in twenty is empty; the others are as full as the next pod leaves them.
    """

    def __init__(self, gpus: int, functions: int, *, snapshots: bool, seed: int = 1) -> None:
        """Fill a cluster of nodes of eight H100."""
        specs = auto_functions(
            [f"f{i:04d}" for i in range(functions)], seed=seed, template="auto:7b"
        )
        nodes = load_cluster(f"p5.48xlarge={gpus // 8}")
        self.cluster = c = Cluster(nodes, specs)
        self._rng = stream(seed, "crowd")
        self._load = stream(seed, "load")
        self._next = 0
        for node in range(len(nodes)):
            c.set_schedulable(NodeId(node), yes=True)
            c.node_alive[node] = True
        c.remote[:, :] = True
        c.nvme[:, :] = True
        c.now_ns = _REPORTS * NS_PER_S
        for _ in range(c.gpu_count // 2):
            self._suspended()
        for gpu in range(c.gpu_count):
            while gpu % 20 and self._starts(gpu):
                pass
        c.fn_queued[:] = self._rng.random(functions) < 0.1
        self.view = ClusterView(c, snapshots=snapshots)

    def _add(self, gpu: int) -> Pod | None:
        c = self.cluster
        function = FunctionId(int(self._rng.integers(len(c.functions))))
        spec = c.functions[function]
        node = NodeId(int(c.gpu_node[gpu]))
        fits = c.gpu_milli_open[gpu] >= spec.milli_gpu and c.gpu_hbm_open[gpu] >= spec.hbm_bytes
        if not fits or c.node_host_open[node] < spec.host_bytes + spec.device_bytes:
            return None
        pod = c.add_pod(PodId(self._next), function, (GpuId(gpu),), node)
        self._next += 1
        c.charge_gpus(pod)
        c.charge_host(pod, spec.host_bytes)
        c.enter(pod, PodState.RESTORING)
        return pod

    def _starts(self, gpu: int) -> bool:
        pod = self._add(gpu)
        if pod is None:
            return False
        c = self.cluster
        if gpu % 32 == 0:
            return True  # It stays on its way.
        c.enter(pod, PodState.READY)
        pod.ready_ns = pod.idle_since_ns = int(self._rng.integers(c.now_ns))
        if self._rng.random() < 0.5:
            pod.leases[LeaseId(pod.id)] = Lease(LeaseId(pod.id), RouterId(0), pod.id, 1)
            pod.leased_slots = 1
            c.fn_inflight[pod.function] += 1
        c.touch(pod)
        return True

    def _suspended(self) -> None:
        c = self.cluster
        free = np.flatnonzero(c.gpu_milli_open >= 200)
        if not len(free):
            return
        pod = self._add(int(free[self._rng.integers(len(free))]))
        if pod is not None:
            c.enter(pod, PodState.READY)
            c.enter(pod, PodState.SUSPENDING)
            c.charge_host(pod, pod.host_charged + c.functions[pod.function].device_bytes)
            c.release_gpus(pod)
            c.enter(pod, PodState.STANDBY)
            c.move(pod, ())

    def teach(self, bundle: PolicyBundle) -> None:
        """Show those who learn two minutes of load."""
        self._load = stream(1, "load")
        self.cluster.now_ns -= _REPORTS * NS_PER_S
        for _ in range(_REPORTS):
            self.second(bundle)

    def second(self, bundle: PolicyBundle) -> None:
        """Let a second pass, in which a tenth of the functions are asked for."""
        c = self.cluster
        c.now_ns += NS_PER_S
        some = np.flatnonzero(self._load.random(len(c.functions)) < 0.1)
        ids = tuple(FunctionId(int(f)) for f in some)
        ones = (1,) * len(ids)
        load = LoadReported(RouterId(0), NS_PER_S, ids, ones, (900,) * len(ids), (0,) * len(ids))
        asked = LeaseAsked(RouterId(0), ids[0], 1, 0, c.now_ns, c.now_ns)
        for f in ids:
            c.arrivals.learn(f, 1, c.now_ns, within_ns=NS_PER_S)
        for observer in bundle.observers:
            observer.observe(c.now_ns, load)
            observer.observe(c.now_ns, asked)
