"""Pods that somebody who runs the cluster wants ended.

Laws:
1. Who is served ends first. Where the end is to be at once they fail, each once, and are counted:
   the one way in which the scheduler ends a pod that serves (INV-4).
2. A pod that something is being done to ends when that is over: what a restore or a snapshot writes
   must not be left half done, and a node does one thing at a time with a pod.
3. A start that waits for room is given up. What requests want is decided anew after each end.
"""

from collections.abc import Callable

from inferx.core.cluster import Cluster
from inferx.core.events import PodEndAsked
from inferx.core.lifecycle import PodState
from inferx.core.machine.chronicle import Chronicle
from inferx.core.machine.demand import Demand
from inferx.core.machine.fleet import Fleet
from inferx.core.pod import Pod
from inferx.core.types import Tier

__all__ = ["Ending"]


class Ending:
    """Carries it out; runs inside the scheduler's step."""

    def __init__(
        self,
        cluster: Cluster,
        fleet: Fleet,
        demand: Demand,
        chronicle: Chronicle,
        *,
        withdraw: Callable[[Pod], None],
    ) -> None:
        """Take what it works with; `withdraw` gives a start up that waits for room."""
        self._c = cluster
        self._fleet = fleet
        self._demand = demand
        self._tell = chronicle
        self._withdraw = withdraw

    def ask(self, event: PodEndAsked) -> None:
        """End a pod; one that is not there has ended."""
        pod = self._c.pods.get(event.pod)
        if pod is None:
            return
        reason = "now" if event.now else "asked"
        self._tell.decided("end", pod.function, pod=pod.id, node=pod.node, reason=reason)
        self._fleet.count("ends")
        pod.ends = True
        if event.now and pod.leases:
            self._fleet.revoke(pod)
            self._demand.pod_left(pod)
            self._c.touch(pod)
            self._fleet.count("kills")
        match pod.state:
            case PodState.READY | PodState.STANDBY:
                self._fleet.sink(pod, Tier.ABSENT)
            case PodState.DRAINING:
                pod.sink_to = Tier.ABSENT
                if not pod.leases:
                    self._fleet.drained(pod)
            case PodState.INIT:
                self._withdraw(pod)
            case PodState.TERMINATING:
                # One that was given up is stopped once more.
                self._fleet.found(pod)
            case _:
                pass  # Until it has come to rest.
