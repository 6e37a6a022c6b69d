"""The world that a run takes place in: everything but the trace, the policy and the seed."""

from dataclasses import dataclass, field

from inferx.core.types import FunctionSpec, NodeSpec
from inferx.core.units import NS_PER_S
from inferx.sim.faults import Faults
from inferx.sim.link import LinkModel
from inferx.sim.profile import Profile

__all__ = ["World"]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everything of a run but the trace, the policy and the seed.

    Attributes:
        prepared: Where snapshots are when the run begins: `none`, `remote` (the shared store) or
            `nvme` (every node's disk as well, as far as it has room).
        object_store_bytes_per_s: What the shared store gives to all nodes together; 0 for as much
            as their networks carry, as S3 does.
        detect_ns: How long the loss of a node goes unnoticed.
        merge_ns: Pauses shorter than this do not split a pod's working span in the timeline.
    """

    nodes: tuple[NodeSpec, ...]
    functions: tuple[FunctionSpec, ...]
    profile: Profile
    prepared: str = "remote"
    routers: int = 1
    object_store_bytes_per_s: int = 0
    link: LinkModel = field(default_factory=LinkModel)
    faults: Faults = field(default_factory=Faults)
    detect_ns: int = 10 * NS_PER_S
    merge_ns: int = NS_PER_S
