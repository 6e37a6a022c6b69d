"""What a node tells of itself when it registers: the description that schedulers place by."""

import platform as host

from inferx.core.types import Links, NodeSpec
from inferx.exec.agent.host_memory import total_bytes
from inferx.exec.agent.node import Node

__all__ = ["describe"]

HOST_SHARE = 0.9
"""Of the host's memory that pods may be given; the rest is for the agent, the kernel, the cache."""
GB = 1_000_000_000
LINKS = Links(
    pcie_gpu=20 * GB,
    pcie_root=20 * GB,
    dram=20 * GB,
    nvme_read=1 * GB,
    nvme_write=GB // 2,
    ebs=0,
    network=GB,
)
"""Where nobody says how fast they are: a scheduler begins with these, and learns from starts."""


def describe(
    node: Node,
    *,
    name: str,
    group: str = "",
    zone: str = "",
    instance_type: str = "",
    host_bytes: int = 0,
    links: Links = LINKS,
    usd_per_hour: float = 0.0,
) -> NodeSpec:
    """Return a node's description.

    Args:
        node: What it has.
        name: What it is called in the cluster.
        group: Nodes of one group are alike; empty makes one of what it is.
        zone: Where it is.
        instance_type: What it was bought as.
        host_bytes: What pods may be given of its memory; 0 is most of it.
        links: How fast its links are.
        usd_per_hour: What it costs.
    """
    # One that is cut is none of them: its MIG devices are.
    gpus = [gpu for gpu in node.inventory.gpus() if not gpu.mig_enabled]
    models = sorted({f"{gpu.name} {gpu.mig_profile}".strip() for gpu in gpus}) or ["none"]
    kind = "+".join(models)
    # A snapshot of a node with another processor, driver or GPU does not fit: see `require_fit`.
    platform = "/".join((host.machine(), kind, node.platform.driver or "none"))
    disk = sum(tier.budget_bytes for tier in node.config.tiers if tier.tier == "nvme")
    return NodeSpec(
        name=name,
        group=group or f"{instance_type or 'node'}:{len(gpus)}x{kind}",
        zone=zone or "-",
        instance_type=instance_type or "-",
        gpu_type=models[0] if len(models) == 1 else "mixed",
        platform=platform,
        gpus=len(gpus),
        hbm_bytes=min((gpu.memory_total for gpu in gpus), default=0),
        host_bytes=host_bytes or int(total_bytes() * HOST_SHARE),
        nvme_bytes=disk,
        links=links,
        usd_per_hour=usd_per_hour,
    )
