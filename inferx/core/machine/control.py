"""The control loop: once a period, pods up to what scaling wants, and state up and down the tiers.

It starts pods that nobody waits for. They get room as any others do, but stand in no line: where
there was none, they are not asked for again before room has come.
"""

from collections.abc import Callable

import numpy as np

from inferx.core.cluster import Cluster
from inferx.core.lifecycle import PodState
from inferx.core.machine.asking import Asking
from inferx.core.machine.chronicle import Chronicle
from inferx.core.machine.fleet import Fleet
from inferx.core.machine.placing import Placing
from inferx.core.pod import Pod
from inferx.core.protocols import Demote, Promote
from inferx.core.types import I32, FunctionId, NodeId, Tier

__all__ = ["Control"]


class Control:
    """Carries out what scaling and prewarming want of their own accord."""

    def __init__(
        self,
        cluster: Cluster,
        fleet: Fleet,
        asking: Asking,
        placing: Placing,
        chronicle: Chronicle,
        room: Callable[[], int],
    ) -> None:
        """`room` counts the times that room came."""
        self._c = cluster
        self._fleet = fleet
        self._ask = asking
        self._placing = placing
        self._tell = chronicle
        self._room = room
        self._no_room: dict[FunctionId, int] = {}
        """Functions that found no room, and the count of room then."""
        self.functions_changed()

    def functions_changed(self) -> None:
        """Look anew at which functions are promised pods."""
        self._min_replicas = [
            (FunctionId(f), spec.min_replica)
            for f, spec in enumerate(self._c.functions)
            if spec.min_replica
        ]

    def run(self) -> None:
        """Do one period's work; without nodes or functions there is none."""
        if not (self._c.nodes and self._c.functions):
            return
        for function, replicas in self._min_replicas:
            self._grow(function, replicas)
        targets = self._ask.targets()
        if targets is not None:
            self._scale(targets)
        for move in self._ask.moves():
            self._move(move)

    # -- scaling ---
    def _scale(self, targets: I32) -> None:
        c = self._c
        live = c.fn_ready + c.fn_starting
        for f in np.flatnonzero((targets >= 0) & (targets != live)):
            function = FunctionId(int(f))
            spec = c.functions[function]
            target = min(max(int(targets[f]), spec.min_replica), spec.max_replica)
            if not self._placing.backs_off(function):
                self._grow(function, target)
            surplus = c.live(function) - target
            if surplus > 0:
                self._scale_in(function, surplus)

    def _grow(self, function: FunctionId, target: int) -> None:
        """Start pods up to `target`, while there is room."""
        if self._no_room.get(function) == self._room():
            return
        while self._c.live(function) < target:
            if not self._placing.want(function, prewarmed=True):
                self._no_room[function] = self._room()
                return

    def _scale_in(self, function: FunctionId, surplus: int) -> None:
        """Let pods go: idle ones first, then the least leased, which are drained."""
        pods = [
            pod
            for pod in self._c.by_function[function].values()
            if pod.state is PodState.READY and pod.sink_to is Tier.HBM and pod.blocks < 0
        ]
        pods.sort(key=lambda pod: (pod.leased_slots, pod.idle_since_ns, pod.id))
        for pod in pods[:surplus]:
            self._tell.decided("scale-in", function, pod=pod.id, node=pod.node)
            self._sink_as_held(pod)

    # -- tiers ---
    def _move(self, move: Promote | Demote) -> None:
        if isinstance(move, Demote):
            self._demote(move.function, move.node, move.tier)
        elif self._c.node_schedulable[move.node] and self._c.functions[move.function].max_replica:
            self._promote(move.function, move.node, move.to)

    def _promote(self, function: FunctionId, node: NodeId, to: Tier) -> None:
        c, fleet = self._c, self._fleet
        spec = c.functions[function]
        done = False
        if to is Tier.HBM:
            done = self._placing.want(function, prewarmed=True, node=node)
        elif to is Tier.NVME:
            if fleet.disks.is_remote(node, function):
                done = fleet.disks.copy_in(function, node)
            elif (
                fleet.disks.fits(node, function)
                # It is a pod of its own: a suspended one's host memory is of no use to it.
                and c.node_host_open[node] >= spec.host_bytes
            ):
                done = self._placing.want(function, prewarmed=True, node=node, bakes=True)
        else:
            source, _ = fleet.sources.soonest(function, node)
            room = c.node_host_open[node] >= spec.host_bytes + spec.device_bytes
            if source in (Tier.NVME, Tier.REMOTE) and room:
                self._tell.started("promote", fleet.standby(function, node, source), "standby")
        if done:
            self._tell.decided("promote", function, node=node, reason=to.name.lower())

    def _demote(self, function: FunctionId, node: NodeId, tier: Tier) -> None:
        if tier is Tier.NVME:
            if self._fleet.disks.drop(function, node):
                self._tell.decided("demote", function, node=node, reason="nvme")
            return
        if tier is Tier.HBM:
            self._make_room(function, node)
            return
        for pod in list(self._c.by_function[function].values()):
            if pod.node == node and pod.state is PodState.STANDBY and pod.blocks < 0:
                self._tell.decided("demote", function, pod=pod.id, node=node, reason="dram")
                self._fleet.sink(pod, Tier.NVME)

    def _make_room(self, function: FunctionId, node: NodeId) -> None:
        """Sink the pod of a function on a node that is idle longest, if one is."""
        idle = [
            pod
            for pod in self._c.by_function[function].values()
            if pod.node == node
            and pod.state is PodState.READY
            and not pod.leases
            and pod.sink_to is Tier.HBM
            and pod.blocks < 0
        ]
        if idle:
            pod = min(idle, key=lambda pod: (pod.idle_since_ns, pod.id))
            self._tell.decided("demote", function, pod=pod.id, node=node, reason="hbm")
            self._sink_as_held(pod)

    def _sink_as_held(self, pod: Pod) -> None:
        hold = self._ask.retain(pod.function, Tier.HBM)
        self._fleet.sink(pod, Tier.ABSENT if hold is None else hold.then)
