"""Functions that come, change and go while the scheduler runs.

Law: of a function that is retired nobody gets another pod; its pods end as they fall idle, and its
snapshots on nodes' disks go, those too that were being read or written when it was retired.
"""

import msgspec
import numpy as np

from inferx.core.cluster import Cluster
from inferx.core.commands import REMOVED
from inferx.core.errors import LocalProtocolError
from inferx.core.lifecycle import PodState
from inferx.core.machine.chronicle import Chronicle
from inferx.core.machine.demand import Demand
from inferx.core.machine.fleet import Fleet
from inferx.core.machine.placing import Placing
from inferx.core.types import FunctionId, FunctionSpec, NodeId, Tier
from inferx.core.units import MILLI_PER_GPU

__all__ = ["Functions", "as_sliced"]


def as_sliced(spec: FunctionSpec, *, whole_gpus: bool) -> FunctionSpec:
    """Return a function as it is placed: on GPUs of its own, where policies give no fractions."""
    if not whole_gpus:
        return spec
    return msgspec.structs.replace(spec, milli_gpu=MILLI_PER_GPU, enforcement="exclusive")


class Functions:
    """Keeps which functions there are; runs inside the scheduler's step."""

    def __init__(
        self,
        cluster: Cluster,
        fleet: Fleet,
        demand: Demand,
        placing: Placing,
        chronicle: Chronicle,
        *,
        whole_gpus: bool,
    ) -> None:
        self._c = cluster
        self._fleet = fleet
        self._demand = demand
        self._placing = placing
        self._tell = chronicle
        self._whole_gpus = whole_gpus
        self._new: list[FunctionSpec] = []
        self._retired: dict[FunctionId, None] = {}
        self._ending: dict[FunctionId, None] = {}
        """Retired functions that may have pods or snapshots left."""

    def __contains__(self, function: FunctionId) -> bool:
        """Tell whether a function may have pods: it is not retired."""
        return function not in self._retired

    def announce(self, function: FunctionId, spec: FunctionSpec) -> bool:
        """Note a function that is new; False if it is none. `enter` takes it in.

        A new leader hears of thousands at once: what grows with their number grows once.
        """
        if function != len(self._c.functions) + len(self._new):
            return False
        self._new.append(as_sliced(spec, whole_gpus=self._whole_gpus))
        return True

    def enter(self) -> bool:
        """Take in the functions that were announced; False if none was."""
        new, self._new = self._new, []
        if new:
            self._c.add_functions(new)
        return bool(new)

    def redefine(self, function: FunctionId, spec: FunctionSpec) -> None:
        """Serve a function by another specification from now on."""
        known = len(self._c.functions)
        if not 0 <= function < known:
            raise LocalProtocolError(f"function {function} is defined, expected up to {known}")
        self._c.redefine(function, as_sliced(spec, whole_gpus=self._whole_gpus))

    def retire(self, function: FunctionId) -> bool:
        """Let a function end; False if it was retired before."""
        c = self._c
        if function in self._retired:
            return False
        self._retired[function] = None
        self._ending[function] = None
        spec = c.functions[function]
        gone = {"min_replica": 0, "max_replica": 0, "standby_per_node": 0}
        c.redefine(function, msgspec.structs.replace(spec, **gone))
        self._tell.decided("retire", function)
        self._demand.refuse(function, REMOVED)
        self._placing.waiting.pop(function, None)
        for pod in list(c.by_function[function].values()):
            rests = pod.state in (PodState.READY, PodState.STANDBY)
            if rests and pod.sink_to is Tier.HBM and pod.blocks < 0:
                self._fleet.sink(pod, Tier.ABSENT)
        self._drop_snapshots(function)
        return True

    def node_joined(self, node: NodeId) -> None:
        """Drop the snapshots of retired functions that a node has brought along."""
        for function in self._retired:
            if self._c.nvme[node, function]:
                self._ending[function] = None
                self._drop_snapshots(function)

    def end_retired(self) -> None:
        """Drop what could not be dropped before, and forget the functions that have nothing left.

        A snapshot stays while it is read; one that is being written comes later.
        """
        c, arriving = self._c, {function for _, function in self._fleet.disks.arriving}
        for function in list(self._ending):
            self._drop_snapshots(function)
            if not (c.by_function[function] or function in arriving or c.nvme[:, function].any()):
                del self._ending[function]

    def _drop_snapshots(self, function: FunctionId) -> None:
        for node in np.flatnonzero(self._c.nvme[:, function] & self._c.node_alive):
            self._fleet.disks.drop(function, NodeId(int(node)))
