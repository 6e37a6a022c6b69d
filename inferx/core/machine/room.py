"""Room for a want that has waited too long: the least busy pods in its way are drained.

The kernel's own last resort, for INV-6; policies see it happen, and a bundle sets its patience.
"""

import numpy as np

from inferx.core.cluster import Cluster
from inferx.core.lifecycle import PodState
from inferx.core.pod import Pod
from inferx.core.protocols import Evict
from inferx.core.types import GpuId, PodId, Tier, Want

__all__ = ["room_by_draining"]


def room_by_draining(want: Want, c: Cluster, *, grace_ns: int) -> Evict | None:
    """Return the cheapest set of pods to drain: fewest leased slots, then fewest pods.

    Only pods of other functions that are ready or suspended and not already leaving are taken, and
    none that became ready less than `grace_ns` ago: where too many functions want to serve at once,
    each start must be worth its while, or all of the time goes into starting.
    O(nodes * GPUs per node + pods).
    """
    if not _could_fit(want, c):
        return None
    leaving: dict[int, list[Pod]] = {}
    for pod in c.pods.values():
        settled = pod.state is PodState.READY and c.now_ns - pod.ready_ns >= grace_ns
        movable = settled or pod.state is PodState.STANDBY
        if movable and pod.blocks < 0 and pod.function != want.function:
            leaving.setdefault(pod.node, []).append(pod)
    best: tuple[tuple[int, int, int], Evict] | None = None
    for node in range(len(c.nodes)):
        if not c.node_schedulable[node] or (want.node >= 0 and want.node != node):
            continue
        plan = _on_node(want, c, node, leaving.get(node, []))
        if plan is not None:
            leased = sum(c.pods[pod].leased_slots for pod, _ in plan.victims)
            rank = (leased, len(plan.victims), node)
            if best is None or rank < best[0]:
                best = (rank, plan)
    return None if best is None else best[1]


def _could_fit(want: Want, c: Cluster) -> bool:
    """Tell whether any GPU would have room if every ready pod left: a bound, in a few scans."""
    columns, n = c.columns, c.columns.count
    ready = columns.state[:n] == int(PodState.READY)
    gpu = columns.gpu[:n][ready]
    row, slot = np.nonzero(gpu >= 0)
    hbm, milli = c.gpu_hbm_open.copy(), c.gpu_milli_open.copy()
    np.add.at(hbm, gpu[row, slot], columns.hbm_bytes[:n][ready][row])
    np.add.at(milli, gpu[row, slot], columns.milli_gpu[:n][ready][row])
    ok = (hbm >= want.hbm_bytes) & (milli >= want.milli_gpu) & c.gpu_schedulable
    return bool((ok & c.type_mask(want.gpu_type)).any())


def _on_node(want: Want, c: Cluster, node: int, pods: list[Pod]) -> Evict | None:
    pods = sorted(pods, key=lambda pod: (pod.leased_slots, pod.idle_since_ns, pod.id))
    gpus = [
        GpuId(gpu)
        for gpu in range(c.first_gpu[node], c.first_gpu[node + 1])
        if c.type_mask(want.gpu_type)[gpu]
    ]
    plans: list[tuple[int, int, dict[PodId, None]]] = []
    for gpu in gpus:
        milli, hbm = int(c.gpu_milli_open[gpu]), int(c.gpu_hbm_open[gpu])
        victims: dict[PodId, None] = {}
        leased = 0
        for pod in pods:
            if milli >= want.milli_gpu and hbm >= want.hbm_bytes:
                break
            if pod.holds_gpu and gpu in pod.gpus:
                spec = c.functions[pod.function]
                milli += spec.milli_gpu
                hbm += spec.hbm_bytes
                victims[pod.id] = None
                leased += pod.leased_slots
        if milli >= want.milli_gpu and hbm >= want.hbm_bytes:
            plans.append((leased, gpu, victims))
    if len(plans) < want.gpus:
        return None
    plans.sort(key=lambda plan: (plan[0], len(plan[2]), plan[1]))
    chosen = plans[: want.gpus]
    all_victims: dict[PodId, None] = {}
    for _, _, victims in chosen:
        all_victims.update(victims)
    # Host memory: what the victims hold comes back, for they go below DRAM.
    host = int(c.node_host_open[node]) + sum(c.pods[v].host_charged for v in all_victims)
    for pod in sorted(pods, key=lambda pod: pod.state is not PodState.STANDBY):
        if host >= want.host_bytes:
            break
        if pod.id not in all_victims:
            all_victims[pod.id] = None
            host += pod.host_charged
    if host < want.host_bytes or not all_victims:
        return None
    return Evict(
        tuple(sorted(GpuId(gpu) for _, gpu, _ in chosen)),
        tuple((victim, Tier.NVME) for victim in all_victims),
    )
