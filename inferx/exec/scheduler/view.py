"""The cluster as the leader knows it, as JSON's builtins: for pages, clients and people."""

from collections.abc import Mapping
from typing import Any

from inferx.core.lifecycle import REFERENCE_NAME, PodState
from inferx.core.pod import Pod
from inferx.core.types import FunctionId, Tier
from inferx.exec.scheduler.explaining import decision_view
from inferx.exec.scheduler.leader import Term

__all__ = ["view_of"]

DECISIONS_SHOWN = 200


def view_of(term: Term) -> Mapping[str, Any]:
    """Return nodes with their GPUs, pods, functions, snapshots, who waits, and latest decisions."""
    cluster, machine = term.machine.cluster, term.machine
    names = term.book.names
    lines = set(term.nodes.connected())
    nodes: list[Mapping[str, Any]] = []
    for n, spec in enumerate(cluster.nodes):
        first, last = cluster.first_gpu[n], cluster.first_gpu[n + 1]
        gpus = [
            {
                "milli_charged": int(cluster.gpu_milli_charged[gpu]),
                "hbm_bytes_charged": int(cluster.gpu_hbm_charged[gpu]),
                "hbm_bytes": int(cluster.gpu_hbm_total[gpu]),
            }
            for gpu in range(first, last)
        ]
        nodes.append(
            {
                "name": spec.name,
                "gpu_type": spec.gpu_type,
                "platform": spec.platform,
                "connected": spec.name in lines,
                "alive": bool(cluster.node_alive[n]),
                "schedulable": bool(cluster.node_schedulable[n]),
                "host_bytes": spec.host_bytes,
                "host_bytes_charged": int(cluster.node_host_charged[n]),
                "nvme_bytes": spec.nvme_bytes,
                "nvme_bytes_free": int(cluster.node_nvme_free[n]),
                "snapshots": [
                    names.name_of(FunctionId(f))
                    for f in range(len(cluster.functions))
                    if cluster.nvme[n, f]
                ],
                "gpus": gpus,
            }
        )
    return {
        "epoch": term.epoch,
        "now_ns": cluster.now_ns,
        "nodes": nodes,
        "pods": [_pod(term, pod) for pod in cluster.pods.values()],
        "functions": [
            {
                "name": names.name_of(called.id),
                "queued": int(cluster.fn_queued[called.id]),
                "inflight": int(cluster.fn_inflight[called.id]),
                "ready": int(cluster.fn_ready[called.id]),
                "starting": int(cluster.fn_starting[called.id]),
                "standby": int(cluster.fn_standby[called.id]),
                "waits_for_room": called.id in machine.placing.waiting,
            }
            for called in term.book.all().values()
            if called.id < len(cluster.functions)
        ],
        "gateways": term.routers.connected(),
        "counters": dict(machine.fleet.counters),
        "decisions": [decision_view(term, one) for one in list(term.decisions)[-DECISIONS_SHOWN:]],
    }


def _pod(term: Term, pod: Pod) -> Mapping[str, Any]:
    first = term.machine.cluster.first_gpu[pod.node]
    spec = term.machine.cluster.functions[pod.function]
    return {
        "pod": pod.id,
        "function": term.book.names.name_of(pod.function),
        "node": term.node_name(pod.node),
        "gpus": [gpu - first for gpu in pod.gpus],
        "milli_gpu": spec.milli_gpu,
        "hbm_bytes": spec.hbm_bytes,
        "state": pod.state.name.lower(),
        "reference_state": REFERENCE_NAME[pod.state],
        "working": pod.state is PodState.READY and bool(pod.leases),
        "leased_slots": pod.leased_slots,
        "slots": spec.slots,
        "started_from": pod.start.name.lower(),
        "sinks_to": "" if pod.sink_to is Tier.HBM else pod.sink_to.name.lower(),
        "address": term.address_of(pod.id),
        "idle_since_ns": pod.idle_since_ns,
        "ready_ns": pod.ready_ns,
    }
