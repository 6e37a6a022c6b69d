"""Where a pod starts from: nothing, a snapshot in the store or on the disk, a suspended pod.

Law: a restore starts only where the manifest matches: from the node's own disk, or from the shared
store's copy for the node's platform (INV-11).
"""

from collections.abc import Collection

from inferx.core.cluster import Cluster
from inferx.core.lifecycle import PodState
from inferx.core.machine.disks import Disks
from inferx.core.pod import Pod
from inferx.core.types import FunctionId, NodeId, PodId, Tier

__all__ = ["Sources"]

COLDER_MUST_WIN_BY = 2
"""A start from a colder tier is chosen only where it is expected to be this many times faster."""


class Sources:
    """Knows what of a function is where, and how long a start from there is expected to take."""

    def __init__(self, cluster: Cluster, disks: Disks, *, snapshots: bool) -> None:
        self._c = cluster
        self._disks = disks
        self._snapshots = snapshots

    def soonest(
        self, function: FunctionId, node: NodeId, leaving: Collection[PodId] = ()
    ) -> tuple[Tier, Pod | None]:
        """Return where a start on `node` comes from soonest, and the suspended pod if from DRAM.

        Ties go to the warmer tier. Pods of `leaving` are about to go.
        """
        c = self._c
        if not self._snapshots:
            return Tier.ABSENT, None
        spec, group = c.functions[function], int(c.node_group[node])
        best, standby = Tier.ABSENT, None
        soonest = c.starts.start_ns(Tier.ABSENT, group, spec)
        there: list[tuple[Tier, Pod | None]] = []
        if self._disks.is_remote(node, function):
            there.append((Tier.REMOTE, None))
        if c.nvme[node, function]:
            there.append((Tier.NVME, None))
        for pod in c.by_function[function].values():
            if pod.node == node and pod.state is PodState.STANDBY and pod.id not in leaving:
                if c.node_host_open[node] < spec.host_bytes:
                    # No room for a second process: the suspended one it must be.
                    return Tier.DRAM, pod
                there.append((Tier.DRAM, pod))
                break
        for tier, pod_there in there:
            estimate = c.starts.start_ns(tier, group, spec)
            # The warmer tier moves fewer bytes: an estimate must be far off to say otherwise, and
            # a tier that is never chosen would never be learned about again.
            if estimate <= COLDER_MUST_WIN_BY * soonest:
                best, standby, soonest = tier, pod_there, estimate
        return best, standby
