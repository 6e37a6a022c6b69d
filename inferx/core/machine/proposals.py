"""The kernel's check of what a policy proposes: a broken check raises, and charges nothing."""

import numpy as np

from inferx.core.cluster import Cluster
from inferx.core.errors import PolicyError
from inferx.core.lifecycle import PodState
from inferx.core.pod import Pod
from inferx.core.protocols import Demote, Evict, Place, Promote, Retain
from inferx.core.types import I32, GpuId, NodeId, Tier, Want

__all__ = ["check_evict", "check_move", "check_place", "check_retain", "check_targets"]


def check_place(want: Want, proposal: Place, c: Cluster) -> None:
    """Assert that the wanted pod fits the proposed GPUs now."""
    _check_shape(want, proposal.gpus, c, "placement", proposal)
    for gpu in proposal.gpus:
        if c.gpu_milli_open[gpu] < want.milli_gpu or c.gpu_hbm_open[gpu] < want.hbm_bytes:
            raise PolicyError("placement", f"GPU {gpu} is too full", proposal)
    _check_host(want, proposal.gpus, c, 0, set(), "placement", proposal)


def check_evict(want: Want, proposal: Evict, c: Cluster) -> None:
    """Assert that the victims may leave, and that the wanted pod fits when they have."""
    slot = "eviction"
    if not proposal.gpus and not proposal.victims:
        raise PolicyError(slot, "no GPUs and no victims", proposal)
    seen: set[int] = set()
    milli: dict[int, int] = {}
    hbm: dict[int, int] = {}
    host = 0
    node = int(c.gpu_node[proposal.gpus[0]]) if proposal.gpus else -1
    for victim, to in proposal.victims:
        pod = c.pods.get(victim)
        if pod is None or victim in seen:
            raise PolicyError(slot, f"pod {victim} is named twice or is not there", proposal)
        seen.add(victim)
        _check_victim(pod, to, proposal)
        spec = c.functions[pod.function]
        if pod.holds_gpu:
            for gpu in pod.gpus:
                milli[gpu] = milli.get(gpu, 0) + spec.milli_gpu
                hbm[gpu] = hbm.get(gpu, 0) + spec.hbm_bytes
        if pod.node == node:
            suspends = to is Tier.DRAM and c.node_host_open[node] >= spec.device_bytes
            host += -spec.device_bytes if suspends else pod.host_charged
    if not proposal.gpus:
        return
    _check_shape(want, proposal.gpus, c, slot, proposal)
    for gpu in proposal.gpus:
        if (
            c.gpu_milli_open[gpu] + milli.get(gpu, 0) < want.milli_gpu
            or c.gpu_hbm_open[gpu] + hbm.get(gpu, 0) < want.hbm_bytes
        ):
            raise PolicyError(slot, f"GPU {gpu} stays too full without the victims", proposal)
    _check_host(want, proposal.gpus, c, host, seen, slot, proposal)


def _check_victim(pod: Pod, to: Tier, proposal: Evict) -> None:
    if pod.state not in (PodState.READY, PodState.STANDBY) or pod.blocks >= 0:
        raise PolicyError("eviction", f"pod {pod.id} is {pod.state.name}, not READY", proposal)
    if to is Tier.HBM or (to is Tier.DRAM and pod.state is PodState.STANDBY):
        raise PolicyError("eviction", f"pod {pod.id} cannot sink to {to.name}", proposal)


def _check_shape(
    want: Want, gpus: tuple[GpuId, ...], c: Cluster, slot: str, proposal: object
) -> None:
    if len(gpus) != want.gpus or len(set(gpus)) != len(gpus):
        raise PolicyError(slot, f"{want.gpus} distinct GPUs were wanted", proposal)
    for gpu in gpus:
        if not 0 <= gpu < c.gpu_count:
            raise PolicyError(slot, f"there is no GPU {gpu}", proposal)
        if not c.gpu_schedulable[gpu]:
            raise PolicyError(slot, f"GPU {gpu} takes no new pods", proposal)
        if not c.type_mask(want.gpu_type)[gpu]:
            raise PolicyError(slot, f"GPU {gpu} is not a {want.gpu_type}", proposal)
    nodes = {int(c.gpu_node[gpu]) for gpu in gpus}
    if len(nodes) != 1 or (want.node >= 0 and want.node not in nodes):
        raise PolicyError(slot, "the GPUs are not of the one node wanted", proposal)


def _check_host(
    want: Want,
    gpus: tuple[GpuId, ...],
    c: Cluster,
    freed: int,
    leaving: set[int],
    slot: str,
    proposal: object,
) -> None:
    node = int(c.gpu_node[gpus[0]])
    for pod in c.by_function[want.function].values():
        if pod.node == node and pod.state is PodState.STANDBY and pod.id not in leaving:
            return  # A suspended pod brings its host memory along.
    if c.node_host_open[node] + freed < want.host_bytes:
        raise PolicyError(slot, f"node {node} has too little host memory", proposal)


def check_retain(proposal: Retain, at: Tier) -> None:
    """Assert that a hold is not negative and sinks below where the pod is."""
    if proposal.hold_ns < 0 or proposal.then >= at:
        raise PolicyError("keep_alive", f"a hold >= 0 and a tier below {at.name}", proposal)


def check_targets(proposal: I32 | None, c: Cluster) -> None:
    """Assert that there is one target for each function."""
    if proposal is not None and np.shape(proposal) != (len(c.functions),):
        raise PolicyError("scaling", f"targets of shape ({len(c.functions)},)", proposal)


def check_move(proposal: Promote | Demote, c: Cluster) -> None:
    """Assert that a promotion or demotion names things that are there."""
    function, node = proposal.function, NodeId(proposal.node)
    if not (0 <= function < len(c.functions) and 0 <= node < len(c.nodes)):
        raise PolicyError("prewarm", "there is no such function or node", proposal)
    if isinstance(proposal, Promote) and proposal.to not in (Tier.HBM, Tier.DRAM, Tier.NVME):
        raise PolicyError("prewarm", "a promotion goes to NVME, DRAM or HBM", proposal)
    if isinstance(proposal, Demote) and proposal.tier not in (Tier.HBM, Tier.DRAM, Tier.NVME):
        raise PolicyError("prewarm", "a demotion is from HBM, DRAM or NVME", proposal)
