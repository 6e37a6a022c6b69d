"""A small cluster by hand, for tests of policies: nodes of H100s, functions, pods, wants."""

from msgspec import structs

from inferx.core.cluster import Cluster
from inferx.core.lifecycle import PodState
from inferx.core.types import FunctionSpec, Links, NodeSpec
from inferx.policy import FunctionId, GpuId, NodeId, PodId, want_of

GIB = 1 << 30
LINKS = Links(pcie_gpu=1, pcie_root=0, dram=1, nvme_read=1, nvme_write=1, ebs=0, network=1)


def node(index, gpus=4):
    return NodeSpec(
        name=f"n{index}",
        group="g",
        zone="z",
        instance_type="t",
        gpu_type="H100",
        platform="H100/580",
        gpus=gpus,
        hbm_bytes=80 * GIB,
        host_bytes=512 * GIB,
        nvme_bytes=1000 * GIB,
        links=LINKS,
    )


def function(name, gib=20, milli=200, gpus=1):
    return FunctionSpec(
        name=name,
        gpus=gpus,
        milli_gpu=milli,
        hbm_bytes=gib * GIB,
        device_bytes=gpus * gib * GIB // 2,
        host_bytes=2 * GIB,
        weight_bytes=gib * GIB // 2,
    )


def cluster(functions, nodes=2, gpus=4):
    made = Cluster([node(i, gpus) for i in range(nodes)], functions)
    for index in range(nodes):
        made.set_schedulable(NodeId(index), yes=True)
        made.node_alive[index] = True
    return made


def add(c, pod, f, gpus, *, idle_since=0, state=PodState.READY):
    added = c.add_pod(
        PodId(pod), FunctionId(f), tuple(map(GpuId, gpus)), NodeId(int(c.gpu_node[gpus[0]]))
    )
    c.charge_gpus(added)
    c.charge_host(added, c.functions[f].host_bytes)
    c.enter(added, PodState.CREATING)
    if state is not PodState.CREATING:
        c.enter(added, PodState.READY)
    added.idle_since_ns = idle_since
    c.touch(added)
    return added


def want(c, f):
    return want_of(FunctionId(f), c.functions[f])


def wants(c, *functions, since=None):
    """Wants of several functions, asked for at these instants."""
    since = since or [0] * len(functions)
    return [
        structs.replace(want(c, f), since_ns=at) for f, at in zip(functions, since, strict=True)
    ]


def suspend(c, pod):
    """Bring a ready pod to standby."""
    c.enter(pod, PodState.SUSPENDING)
    c.charge_host(pod, pod.host_charged + c.functions[pod.function].device_bytes)
    c.release_gpus(pod)
    c.enter(pod, PodState.STANDBY)
    c.move(pod, ())
    return pod
