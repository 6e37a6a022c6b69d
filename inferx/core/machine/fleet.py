"""Pods on their way: starts, sinks, and the commands and facts they are made of.

The half of the scheduler machine that talks to nodes. It owns every change of the cluster's
charges, but for the disks' (`disks.py`) and what is found on nodes (`adopting.py`); the other half
decides (`placing.py`, `control.py`) and leases (`demand.py`).

Laws:
1. A command has a sequence number and is answered by exactly one fact; it is repeated until then,
   and a node that never answers is lost. A fact whose command is not pending is a repetition.
2. Capacity is charged when a command is decided, released when the fact that frees it arrives.
3. A pod with leases is drained before it sinks (INV-4).
4. A pod that could not be ended keeps its charges; its stop is tried again, so many times.
"""

from collections.abc import Callable, Sequence

import msgspec

from inferx.core.cluster import Cluster
from inferx.core.commands import (
    Copy,
    Create,
    Drop,
    PodCommand,
    RecallLease,
    Restore,
    Resume,
    RevokeLease,
    SchedulerCommand,
    Snapshot,
    Stop,
    Suspend,
)
from inferx.core.events import PhaseTiming
from inferx.core.lifecycle import PodState
from inferx.core.machine.disks import Disks
from inferx.core.machine.outbox import Outbox
from inferx.core.machine.sources import Sources
from inferx.core.machine.step import Record
from inferx.core.pod import Pod
from inferx.core.types import NO_POD, FunctionId, GpuId, NodeId, PodId, Tier
from inferx.core.units import NS_PER_S

__all__ = ["START_NAME", "Fleet", "first_id"]

IDS_PER_EPOCH = 1 << 32
STOP_AGAIN_NS = NS_PER_S
"""A pod that could not be ended is stopped again after this long; the wait doubles each time."""
STOP_LIMIT = 5
"""After so many stops more its node is closed, and the pod left until its agent starts anew."""


def first_id(epoch: int) -> int:
    """Return where a leader begins to count pods and leases: no id of an older one comes again."""
    return max(0, epoch - 1) * IDS_PER_EPOCH


class Fleet:
    """Carries out decisions on nodes. All of it runs inside the scheduler's step."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        epoch: int,
        snapshots: bool,
        out: list[SchedulerCommand],
        on_left: Callable[[Pod], None],
    ) -> None:
        self._c = cluster
        self._epoch = epoch
        self._snapshots = snapshots
        self._out = out
        self._on_left = on_left
        self._next_pod = first_id(epoch)
        self._stops: dict[PodId, int] = {}
        """Pods that could not be ended, and how often their stop was tried again."""
        self.outbox = Outbox(cluster, out, self.count)
        self.disks = Disks(cluster, self.outbox, epoch=epoch)
        self.sources = Sources(cluster, self.disks, snapshots=snapshots)
        self._cleared: dict[PodId, None] = {}
        """Pods that wait for nobody any more and are not launched yet."""
        self.records: list[Record] = []
        self.counters: dict[str, int] = {}

    # -- bookkeeping ---
    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter."""
        self.counters[name] = self.counters.get(name, 0) + by

    def _command(self, kind: type[Create | Resume | Suspend | Stop], pod: Pod) -> None:
        self.outbox.send(
            kind(pod.node, self._epoch, self.outbox.number(), pod.id, pod.function, pod.gpus)
        )

    # -- starts ---
    def start(
        self,
        function: FunctionId,
        gpus: tuple[GpuId, ...],
        victims: Sequence[tuple[PodId, Tier]],
        *,
        prewarmed: bool = False,
        bakes: bool = False,
    ) -> Pod:
        """Start a pod on `gpus`, once `victims` have left."""
        c = self._c
        node = NodeId(int(c.gpu_node[gpus[0]]))
        tier, standby = Tier.ABSENT, None
        if not bakes:
            tier, standby = self.sources.soonest(function, node, {victim for victim, _ in victims})
        if standby is None:
            pod = self._new(function, gpus, node)
        else:
            pod = standby
            pod.hold += 1
            c.move(pod, gpus)
            if victims:
                c.enter(pod, PodState.INIT)
        pod.start = tier
        pod.started_ns = c.now_ns
        pod.prewarmed = prewarmed
        pod.bakes = bakes
        if not victims:
            self._launch(pod)
            return pod
        c.claim(pod)
        for victim, _ in victims:
            pod.waits_for[victim] = None
            c.pods[victim].blocks = pod.id
        for victim, to in victims:
            self.sink(c.pods[victim], to)
        return pod

    def standby(self, function: FunctionId, node: NodeId, source: Tier) -> Pod:
        """Restore a pod from `source` into host memory, without GPUs."""
        c = self._c
        pod = self._new(function, (), node)
        pod.start = source
        pod.started_ns = c.now_ns
        spec = c.functions[function]
        c.charge_host(pod, spec.host_bytes + spec.device_bytes)
        self._restore(pod, source)
        return pod

    def _new(self, function: FunctionId, gpus: tuple[GpuId, ...], node: NodeId) -> Pod:
        pod = self._c.add_pod(PodId(self._next_pod), function, gpus, node)
        self._next_pod += 1
        return pod

    def _launch(self, pod: Pod) -> None:
        """Turn a decision whose capacity is open into a command."""
        c = self._c
        c.charge_gpus(pod)
        pod.started_ns = c.now_ns
        if pod.start is Tier.DRAM:
            c.enter(pod, PodState.RESUMING)
            self._command(Resume, pod)
        else:
            c.charge_host(pod, c.functions[pod.function].host_bytes)
            if pod.start is not Tier.ABSENT:
                # While it waited for victims, its snapshot may have come nearer, or gone.
                pod.start = self.disks.nearest(pod.node, pod.function)
            if pod.start is Tier.ABSENT:
                c.enter(pod, PodState.CREATING)
                self._command(Create, pod)
            else:
                self._restore(pod, pod.start)
        value = msgspec.msgpack.encode((pod.function, pod.node, pod.gpus, self._epoch))
        self.records.append(Record(f"pod/{pod.id}", value))

    def _restore(self, pod: Pod, source: Tier) -> None:
        if source is Tier.REMOTE and self.disks.fits(pod.node, pod.function):
            # What is fetched is kept: the next restore here reads the disk.
            self.disks.expect(pod.node, pod.function)
            pod.keeps_local = True
        self._c.enter(pod, PodState.RESTORING)
        where = (pod.node, self._epoch, self.outbox.number(), pod.id, pod.function, pod.gpus)
        self.outbox.send(Restore(*where, source, pod.keeps_local))

    # -- sinks ---
    def sink(self, pod: Pod, to: Tier) -> None:
        """Send a ready or suspended pod down to `to`, or as far as there is room on the way."""
        c = self._c
        pod.sink_to = to
        pod.hold += 1
        if pod.leases:
            c.enter(pod, PodState.DRAINING)
            for lease in pod.leases.values():
                self._out.append(RecallLease(lease.router, lease.id, pod.id))
            self.count("recalls")
            return
        self._leave(pod)

    def drained(self, pod: Pod) -> None:
        """Go on with a sink whose last lease came back."""
        assert pod.state is PodState.DRAINING
        self._leave(pod)

    def _leave(self, pod: Pod) -> None:
        c = self._c
        spec = c.functions[pod.function]
        to = pod.sink_to
        if to is Tier.DRAM and pod.state is not PodState.STANDBY and self._snapshots:
            if c.node_host_open[pod.node] >= spec.device_bytes:
                c.charge_host(pod, pod.host_charged + spec.device_bytes)
                c.enter(pod, PodState.SUSPENDING)
                self._command(Suspend, pod)
                self.count("suspends")
                return
            self.count("no_room_in_dram")
            to = Tier.NVME
        elsewhere = bool(c.nvme[pod.node, pod.function]) or (
            to is Tier.REMOTE and self.disks.is_remote(pod.node, pod.function)
        )
        if to in (Tier.NVME, Tier.REMOTE) and self._snapshots and not elsewhere:
            if self.disks.fits(pod.node, pod.function):
                self._take(pod, leave=True)
                return
            self.count("no_room_on_disk")
        self.stop(pod)

    def _take(self, pod: Pod, *, leave: bool) -> None:
        self.disks.expect(pod.node, pod.function)
        self._c.enter(pod, PodState.SNAPSHOTTING)
        where = (pod.node, self._epoch, self.outbox.number(), pod.id, pod.function, pod.gpus)
        self.outbox.send(Snapshot(*where, leave))
        self.count("snapshots")

    def stop(self, pod: Pod) -> None:
        """End a pod, whatever it holds."""
        self._c.enter(pod, PodState.TERMINATING)
        self._command(Stop, pod)
        self.count("stops")

    # -- facts: each answers a command that was taken out of `pending` ---
    def ready(self, pod: Pod, phases: Sequence[PhaseTiming]) -> None:
        """A start is over: learn from it, free what only it needed."""
        c = self._c
        spec = c.functions[pod.function]
        # What the node itself took; waiting for its turn there says nothing about the tier.
        took_ns = sum(phase.duration_ns for phase in phases) or c.now_ns - pod.started_ns
        c.starts.learn(pod.start, int(c.node_group[pod.node]), spec, took_ns)
        self._landed(pod, ok=True)
        pod.ready_ns = pod.idle_since_ns = c.now_ns
        c.enter(pod, PodState.READY)
        c.charge_host(pod, spec.host_bytes)
        self.count(f"starts_{START_NAME[pod.start]}")

    def bake(self, pod: Pod) -> None:
        """Snapshot a pod that was started for nothing else."""
        if self.disks.fits(pod.node, pod.function):
            self._take(pod, leave=True)
        else:
            self.stop(pod)

    def suspended(self, pod: Pod) -> None:
        """A pod left its GPUs and lies in host memory."""
        c = self._c
        if pod.holds_gpu:
            c.release_gpus(pod)
        self._landed(pod, ok=True)
        c.enter(pod, PodState.STANDBY)
        pod.sink_to = Tier.HBM
        c.move(pod, ())
        self._left(pod)

    def taken(self, pod: Pod) -> None:
        """A pod's snapshot is on the node's disk and the pod has ended."""
        self.disks.arrived(pod.node, pod.function, ok=True)
        self.disks.upload(pod.node, pod.function)
        self.gone(pod)

    def kept(self, pod: Pod) -> None:
        """A pod's snapshot is on the node's disk and the pod serves on."""
        self.disks.arrived(pod.node, pod.function, ok=True)
        self.disks.upload(pod.node, pod.function)
        self._c.enter(pod, PodState.READY)

    def gone(self, pod: Pod) -> None:
        """A pod has ended and all it held is free."""
        self.forget_stops(pod.id)
        self._release(pod)
        self._c.enter(pod, PodState.GONE)
        self._c.remove(pod)
        self.records.append(Record(f"pod/{pod.id}", b""))
        self._left(pod)

    def revoke(self, pod: Pod) -> None:
        """Tell who leases a pod that it is lost, and who is served there with it."""
        for lease in pod.leases.values():
            self._out.append(RevokeLease(lease.router, lease.id, pod.id))

    def failed(self, pod: Pod) -> None:
        """A pod broke, at any point of its life, and all it held is free."""
        self._break_off(pod)
        self.revoke(pod)
        for waited in pod.waits_for:
            self._c.pods[waited].blocks = NO_POD
        self._c.enter(pod, PodState.FAILED)
        self.gone(pod)
        self.count("pods_failed")

    def _break_off(self, pod: Pod) -> None:
        """Forget what was being done to a pod, and the bytes that it would have left on disk."""
        # What it was told and has not answered would start it again.
        self.outbox.void(lambda told: not isinstance(told, Copy | Drop) and told.pod == pod.id)
        if pod.state is PodState.SNAPSHOTTING:
            self.disks.arrived(pod.node, pod.function, ok=False)
        self._landed(pod, ok=False)

    # -- pods that could not be ended ---
    def stuck(self, command: PodCommand) -> bool:
        """Keep what a pod that is there still is charged, and order its end once more.

        Returns:
            False where that was tried too often: nothing more is sent.
        """
        pod, tries = self._c.pods.get(command.pod), self._stops.get(command.pod, 0)
        if pod is not None and pod.state is not PodState.TERMINATING:
            self._break_off(pod)
            self._c.enter(pod, PodState.TERMINATING)
        if tries == STOP_LIMIT:
            return False
        self._stops[command.pod] = tries + 1
        where = (command.node, self._epoch, self.outbox.number())
        again = Stop(*where, command.pod, command.function, command.gpus)
        self.outbox.send(again, after_ns=STOP_AGAIN_NS << tries)
        self.count("stops_again")
        return True

    def forget_stops(self, pod: PodId) -> None:
        """Count a pod's failed stops from nothing: it has ended, or its agent is a new one."""
        self._stops.pop(pod, None)

    def gave_up(self, pod: PodId) -> bool:
        """Tell whether a pod could not be ended and nothing more is done about it."""
        return self._stops.get(pod) == STOP_LIMIT and not any(
            isinstance(told, Stop) and told.pod == pod for told in self.outbox.unanswered()
        )

    def found(self, pod: Pod) -> None:
        """Stop a pod once more that was given up and is there still."""
        if self.gave_up(pod.id):
            self._command(Stop, pod)
        self.forget_stops(pod.id)

    def withdraw(self, pod: Pod) -> None:
        """Have a suspended pod whose resume waits for others lie there as before."""
        for waited in pod.waits_for:
            self._c.pods[waited].blocks = NO_POD
        pod.waits_for.clear()
        self._c.unclaim(pod)
        self._c.move(pod, ())
        self._c.enter(pod, PodState.STANDBY)

    def _landed(self, pod: Pod, *, ok: bool) -> None:
        if pod.keeps_local:
            pod.keeps_local = False
            self.disks.arrived(pod.node, pod.function, ok=ok)

    def _release(self, pod: Pod) -> None:
        if pod.claims:
            self._c.unclaim(pod)
        if pod.holds_gpu:
            self._c.release_gpus(pod)
        self._c.charge_host(pod, 0)

    def _left(self, pod: Pod) -> None:
        """Tell who waited for this pod to leave; start the one it blocked if it was the last."""
        waiting = self._c.pods.get(pod.blocks)
        pod.blocks = NO_POD
        if waiting is not None:
            waiting.waits_for.pop(pod.id, None)
            if not waiting.waits_for and waiting.claims:
                self._cleared[waiting.id] = None
        self._launch_cleared()
        self._on_left(pod)

    def _launch_cleared(self) -> None:
        """Launch pods whose victims have left; an orphan may still sit in their place."""
        for cleared in list(self._cleared):
            pod = self._c.pods.get(cleared)
            if pod is None or not pod.claims:
                del self._cleared[cleared]
            elif self._c.can_charge(pod):
                del self._cleared[cleared]
                self._launch(pod)

    # -- nodes ---
    def lose(self, node: NodeId) -> None:
        """Forget all that a lost node ran and held."""
        c = self._c
        void = self.outbox.void(lambda told: told.node == node)
        c.set_schedulable(node, yes=False)
        c.node_alive[node] = False
        # Claims first: a pod that waits for victims of this node must not be launched on it.
        for told in void:
            if isinstance(told, Stop):
                self.forget_stops(told.pod)
        here = sorted(
            (pod for pod in c.pods.values() if pod.node == node),
            key=lambda pod: (not pod.claims, pod.id),
        )
        for pod in here:
            self.failed(pod)
        self.disks.lose(node, void)
        self.count("nodes_lost")

    def drain(self, node: NodeId) -> None:
        """Close a node and empty it: what serves ends first."""
        c = self._c
        c.set_schedulable(node, yes=False)
        for pod in [pod for pod in c.pods.values() if pod.node == node]:
            if pod.state in (PodState.READY, PodState.STANDBY) and pod.sink_to is Tier.HBM:
                self.sink(pod, Tier.ABSENT)

    def processes(self, node: NodeId) -> list[PodId]:
        """Pods that a node runs, or should; those that wait for others to leave come first.

        A pod that waits to be created or restored has no process yet: it is not there.
        """
        pods = [pod for pod in self._c.pods.values() if pod.node == node]
        waiting = [pod.id for pod in pods if pod.claims and pod.start is Tier.DRAM]
        return waiting + [pod.id for pod in pods if not pod.claims]


START_NAME: dict[Tier, str] = {
    Tier.ABSENT: "cold",
    Tier.REMOTE: "restore-remote",
    Tier.NVME: "restore-nvme",
    Tier.DRAM: "resume",
}
