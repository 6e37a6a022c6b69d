"""Pods that fail to start or to end: their functions wait, and who counted on them starts anew."""

from collections.abc import Callable

from inferx.core.cluster import Cluster
from inferx.core.commands import PodCommand
from inferx.core.lifecycle import PodState
from inferx.core.machine.chronicle import Chronicle
from inferx.core.machine.fleet import Fleet
from inferx.core.machine.placing import Placing
from inferx.core.machine.resting import Resting
from inferx.core.machine.serving import Serving
from inferx.core.machine.timers import WANT, Timers
from inferx.core.pod import Pod
from inferx.core.types import NodeId, Tier

__all__ = ["Failing"]


class Failing:
    """Takes failures in."""

    def __init__(
        self,
        cluster: Cluster,
        fleet: Fleet,
        placing: Placing,
        serving: Serving,
        resting: Resting,
        timers: Timers,
        chronicle: Chronicle,
        close: Callable[[NodeId], None],
    ) -> None:
        """`close` closes a node that cannot end its pods, and empties it."""
        self._c = cluster
        self._fleet = fleet
        self._placing = placing
        self._serving = serving
        self._resting = resting
        self._timers = timers
        self._tell = chronicle
        self._close = close

    def failed(self, pod: Pod | None, reason: str) -> None:
        """A pod broke, and is gone."""
        if pod is None:
            return
        self._back_off(pod)
        self._tell.decided("lose", pod.function, pod=pod.id, node=pod.node, reason=reason)
        self._fleet.failed(pod)
        self._serving.look_at(pod.function)

    def _back_off(self, pod: Pod) -> None:
        """Wait before the next start of a function whose pod did not come up."""
        starting = pod.state in (PodState.CREATING, PodState.RESTORING, PodState.RESUMING)
        if starting and pod.gpus:  # Nobody's requests waited for one without GPUs.
            self._timers.arm(self._placing.start_failed(pod.function), WANT, pod.function)

    def stuck(self, command: PodCommand, pod: Pod | None, reason: str) -> None:
        """Have a pod that could not be ended stopped again; give its node up if that is no use."""
        function, node = command.function, command.node
        if pod is not None:
            self._back_off(pod)
            blocked = self._c.pods.get(pod.blocks)
            if blocked is not None:
                self.withdraw(blocked, "victim is stuck")
            self._serving.look_at(function)
        self._tell.decided("stuck", function, pod=command.pod, node=node, reason=reason)
        if self._fleet.stuck(command):
            return
        for waiting in list(self._c.pods.values()):
            if waiting.node == node and waiting.claims:
                self.withdraw(waiting, "victim is stuck")
        if self._c.node_schedulable[node]:
            self._fleet.count("nodes_unhealthy")
            self._close(node)

    def withdraw(self, waiting: Pod, reason: str) -> None:
        """Give a start up that waits for others to leave, and decide anew."""
        self._serving.look_at(waiting.function)
        if waiting.start is Tier.DRAM:
            self._fleet.withdraw(waiting)
            self._resting.settle(waiting)
        else:
            self.failed(waiting, reason)
