"""The least that a start can take: a lone one on idle links."""

from inferx.core.types import Tier
from inferx.core.units import NS_PER_S
from inferx.sim.clock import SimClock
from inferx.sim.device import Link, NodeDevices
from inferx.sim.profile import load_profile
from inferx.spec.cluster import load_cluster
from inferx.spec.serving import serving_for
from studies.density.points import MECHANISMS, MODELS, NODES, TOKENS_IN, shape

ABSENT_S = float("inf")


def lone_start_s(node: str, model: str, profile: str) -> dict[Tier, float]:
    """Return the seconds from asking to ready by where the state lies, or was meant to lie."""
    (spec,) = load_cluster(f"{node}=1")
    how, function = load_profile(profile), shape(model, node)
    store = Link("object-store", max(1, spec.links.network))
    devices = NodeDevices(SimClock(), spec, store)
    found = dict.fromkeys((Tier.DRAM, Tier.NVME, Tier.ABSENT), ABSENT_S)
    ways = (("resume", Tier.DRAM, Tier.DRAM), ("restore", Tier.NVME, Tier.NVME))
    # A cold start reads the weights from the disk once the function has been on the node.
    for operation, source, tier in (*ways, ("cold", Tier.NVME, Tier.ABSENT)):
        if how.offers(operation):  # type: ignore[arg-type]  # a literal, in a tuple
            took_ns = how.estimate_ns(operation, function, devices, gpus=(0,), source=source)  # type: ignore[arg-type]
            found[tier] = took_ns / NS_PER_S
    # What a mechanism cannot do, the node does by the next best way.
    for tier, instead in ((Tier.NVME, Tier.ABSENT), (Tier.DRAM, Tier.NVME)):
        if found[tier] == ABSENT_S:
            found[tier] = found[instead]
    return found


def prefill_s(node: str, model: str) -> float:
    """Return the time of a lone prefill: a cold request needs it after the start."""
    (spec,) = load_cluster(f"{node}=1")
    return TOKENS_IN / serving_for(shape(model, node), spec.gpu_type).prefill_tokens_per_s


def floors() -> dict[tuple[str, str, str], dict[Tier, float]]:
    """Return the least cold TTFT by (node, model, mechanism) and tier."""
    return {
        (node, model, profile): {
            tier: start + prefill_s(node, model)
            for tier, start in lone_start_s(node, model, profile).items()
        }
        for node in NODES
        for model in MODELS
        for profile in MECHANISMS
    }
