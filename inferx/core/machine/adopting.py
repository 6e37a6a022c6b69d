"""Pods that this leader did not start: taken over from an older one, or stopped.

Law: what such a pod holds is charged until it is gone, as far as its node has it at all.
"""

from inferx.core.cluster import Cluster
from inferx.core.commands import Stop
from inferx.core.events import FoundPod
from inferx.core.lifecycle import PodState
from inferx.core.machine.fleet import Fleet
from inferx.core.pod import Pod
from inferx.core.types import NO_FUNCTION, NodeId

__all__ = ["Adopting"]


class Adopting:
    """Enters pods that nodes have found."""

    def __init__(self, cluster: Cluster, fleet: Fleet, *, epoch: int) -> None:
        self._c = cluster
        self._fleet = fleet
        self._epoch = epoch

    def adopt(self, node: NodeId, found: FoundPod) -> Pod | None:
        """Take over a pod that an older leader started; None if it had to be stopped."""
        pod = self._enter(node, found)
        if pod is not None:
            self._c.enter(pod, PodState.RESTORING)
            pod.found = True
            self._fleet.count("pods_adopted")
        return pod

    def settle(self, pod: Pod, *, suspended: bool) -> None:
        """A pod that was taken over has come to rest."""
        pod.found = False
        if suspended:
            self._fleet.suspended(pod)
            return
        c = self._c
        pod.ready_ns = pod.idle_since_ns = c.now_ns
        c.enter(pod, PodState.READY)
        c.charge_host(pod, c.functions[pod.function].host_bytes)

    def end_found(self, pod: Pod) -> None:
        """Stop a pod that was taken over and could not be ended by whoever led before."""
        pod.found = False
        self._fleet.stop(pod)

    def end_orphan(self, node: NodeId, found: FoundPod) -> None:
        """Stop a pod that a node runs and that this scheduler has given up.

        What it holds is charged until it is gone: nothing else must start there before.
        """
        self._fleet.forget_stops(found.pod)
        self._fleet.count("orphans")
        orphan = self._enter(node, found)
        if orphan is not None:
            self._c.enter(orphan, PodState.CREATING)
            self._fleet.stop(orphan)

    def _enter(self, node: NodeId, found: FoundPod) -> Pod | None:
        """Enter a pod with what it holds; tell its node to stop one that cannot be charged."""
        c, function = self._c, found.function
        if function != NO_FUNCTION:
            spec = c.functions[function]
            held = () if found.state == "suspended" else found.gpus
            in_host = found.state in {"suspended", "moving"} or not found.gpus
            host = spec.host_bytes + (spec.device_bytes if in_host else 0)
            if c.has_room(node, held, spec, host):
                pod = c.add_pod(found.pod, function, held, node)
                c.charge_gpus(pod)
                c.charge_host(pod, host)
                return pod
        # More than the node has, by its own word, or of no function: it is told to stop it, and
        # not believed.
        number = self._fleet.outbox.number()
        self._fleet.outbox.send(Stop(node, self._epoch, number, found.pod, function, found.gpus))
        return None
