"""Pods that have nothing to do: ready and leased by nobody, or suspended. How long they stay so.

Law: nothing is decided about a pod before the scheduler knows who holds what.
"""

from collections.abc import Callable

from inferx.core.cluster import Cluster
from inferx.core.lifecycle import PodState
from inferx.core.machine.asking import Asking
from inferx.core.machine.chronicle import Chronicle
from inferx.core.machine.fleet import Fleet
from inferx.core.machine.functions import Functions
from inferx.core.machine.serving import Serving
from inferx.core.machine.timers import HOLD, Timers
from inferx.core.pod import Pod
from inferx.core.types import PodId, Tier
from inferx.core.units import FOREVER_NS

__all__ = ["Resting"]


class Resting:
    """Decides what becomes of a pod at rest."""

    def __init__(
        self,
        cluster: Cluster,
        fleet: Fleet,
        asking: Asking,
        functions: Functions,
        serving: Serving,
        timers: Timers,
        chronicle: Chronicle,
        gathers: Callable[[], bool],
    ) -> None:
        """`gathers` tells whether it is not known yet who holds what."""
        self._c = cluster
        self._fleet = fleet
        self._ask = asking
        self._functions = functions
        self._serving = serving
        self._timers = timers
        self._tell = chronicle
        self._gathers = gathers

    def returned(self, pod: Pod, *, failed: bool) -> None:
        """A lease of a pod came back; `failed` if the pod did."""
        if pod.leases:
            # Another gateway may lack the slots that came back.
            self._serving.look_at(pod.function)
            return
        if pod.state is PodState.DRAINING:
            self._fleet.drained(pod)
            return
        assert pod.state is PodState.READY, "INV-4: a leased pod is ready or drains"
        if failed:
            self._fleet.sink(pod, Tier.ABSENT)
        else:
            self.idle(pod)

    def settle(self, pod: Pod) -> None:
        """Decide about a pod that is ready or suspended."""
        if pod.leases:
            return
        if pod.state is PodState.READY:
            self.idle(pod)
        elif self._stays(pod):
            self._retain(pod, Tier.DRAM)
        else:
            self._fleet.sink(pod, Tier.ABSENT)

    def _stays(self, pod: Pod) -> bool:
        open_here = bool(self._c.node_schedulable[pod.node]) and not pod.ends
        return open_here and pod.function in self._functions

    def idle(self, pod: Pod) -> None:
        """Offer a free pod to its function's requests; if none waits, decide how long it stays."""
        if self._gathers():
            return
        if not self._stays(pod):
            self._fleet.sink(pod, Tier.ABSENT)
            self._serving.look_at(pod.function)
            return
        self._serving.serve(pod.function)
        if pod.leases or pod.state is not PodState.READY or pod.sink_to is not Tier.HBM:
            return
        self._retain(pod, Tier.HBM)
        # An idle pod can be evicted: whoever waits for room may have found it.
        self._serving.room_came()

    def _retain(self, pod: Pod, at: Tier) -> None:
        pod.hold += 1
        hold = self._ask.retain(pod.function, at)
        if hold is not None and hold.hold_ns < FOREVER_NS:
            due_ns = self._c.now_ns + hold.hold_ns
            self._timers.arm(due_ns, HOLD, pod.id, pod.hold, hold.then)

    def held(self, pod_id: PodId, token: int, to: Tier) -> None:
        """A hold is over: the pod goes, unless it was needed since."""
        pod = self._c.pods.get(pod_id)
        if pod is None or pod.hold != token or pod.leases:
            return
        if pod.state not in (PodState.READY, PodState.STANDBY) or pod.blocks >= 0:
            return
        spec = self._c.functions[pod.function]
        if pod.state is PodState.READY and self._c.live(pod.function) <= spec.min_replica:
            return
        self._tell.decided("sink", pod.function, pod=pod.id, node=pod.node, reason=to.name.lower())
        self._fleet.sink(pod, to)
