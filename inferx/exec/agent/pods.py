"""The pods of this node: started, suspended, resumed and ended, with all that belongs to them.

Laws:
1. A pod's record is durable before anything of the pod exists, and goes last.
2. What a step made, a later failure undoes, last first. A failure that leaves the pod as it was
   says so (`AgentError.survived`); after any other the pod is gone, with all it held.
3. A restore or resume that failed on the device is never tried again: the pod is killed.
4. A pod's new state is durable before what the old one held is promised to others.
5. A pod that cannot be ended keeps what it holds, and is told of as stuck, until it can.
"""

import logging
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from msgspec.structs import replace

from inferx.core.types import FunctionId, GpuId, PodId
from inferx.exec.agent.deployed import Deployed
from inferx.exec.agent.gpus.gpu_room import GpuRoom
from inferx.exec.agent.gpus.share import require_share
from inferx.exec.agent.host_folders import within
from inferx.exec.agent.host_room import HostRoom
from inferx.exec.agent.lazy_pages import LazyPages
from inferx.exec.agent.logs.kept import KeptLogs
from inferx.exec.agent.moving import Moving
from inferx.exec.agent.network import Place
from inferx.exec.agent.node import Node
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.pod import Pod, slices_on, spec_for, untouched
from inferx.exec.agent.pod_records import PodRecord, PodRecords
from inferx.exec.agent.ports import AgentError, PodSpec, SliceShape
from inferx.exec.agent.sandbox_kind import remember
from inferx.exec.agent.store.durable import FileLock

__all__ = ["Pod", "Pods"]

_log = logging.getLogger(__name__)


class Pods:
    """What runs here. One action at a time on one pod; on different ones at once."""

    def __init__(self, node: Node, functions: Mapping[FunctionId, Deployed]) -> None:
        """Take this node's state for one's own.

        Raises:
            AgentError: Another process has it.
        """
        state = node.config.state
        self.node = node
        self.functions = functions
        self.records = PodRecords(state / "pods")
        self.logs = KeptLogs(
            state / "logs",
            stream_bytes=node.config.log_bytes,
            all_bytes=node.config.kept_log_bytes,
        )
        lock = FileLock.take(state / "lock", exclusive=True, wait=False, create=True)
        if lock is None:
            raise AgentError(f"{state}: another agent works with it; expected none", phase="lock")
        self._lock = lock
        remember(state, node.sandbox.name)
        self.room = GpuRoom(node.inventory)
        self.host_room = HostRoom(node.sandbox, node.store.tiers)
        self.pages = LazyPages(node, self.host_room)
        self.moving = Moving(node, self.room, self.host_room, self.function)
        self._guard = threading.Lock()
        self._pods: dict[int, Pod] = {}
        self._begun: dict[int, PodRecord] = {}
        """Records of pods that are being made."""
        self._stuck: dict[int, PodRecord] = {}
        """Records of pods that could not be ended."""

    def close(self) -> None:
        """Let others have the state; the pods go on."""
        self._lock.release()

    def all(self) -> Sequence[Pod]:
        """Return all pods, by id."""
        with self._guard:
            return [self._pods[pod] for pod in sorted(self._pods)]

    def stuck(self) -> Sequence[PodRecord]:
        """Return the records of pods that could not be ended, by id."""
        with self._guard:
            return [self._stuck[pod] for pod in sorted(self._stuck)]

    def known(self) -> Sequence[PodRecord]:
        """Return the records of all pods, by id: those that are being made or ended, too."""
        with self._guard:
            running = {pod: one.record for pod, one in self._pods.items()}
            known = running | self._begun | self._stuck
        return [known[pod] for pod in sorted(known)]

    def get(self, pod: PodId) -> Pod:
        """Return a pod.

        Raises:
            AgentError: There is none.
        """
        with self._guard:
            found = self._pods.get(pod)
        if found is None:
            raise AgentError(f"no pod {pod} on this node", phase="pod")
        return found

    def function(self, function: FunctionId) -> Deployed:
        """Return a function.

        Raises:
            AgentError: This node does not know it.
        """
        found = self.functions.get(function)
        if found is None:
            raise AgentError(f"no function {function} on this node", phase="function")
        return found

    # -- starting ---
    def create(
        self, pod: PodId, function: FunctionId, gpus: Sequence[GpuId], phases: Phases
    ) -> Pod:
        """Start a pod cold, and wait until it can serve."""
        deployed = self.function(function)
        launch, needs = deployed.launch, deployed.spec.device_bytes
        with phases.step("host-memory"):
            host_bytes, name = deployed.spec.host_bytes, self.records.name(pod)
            promise = self.host_room.for_start(name, launch, host_bytes)
        entered = self.entering(pod, function, gpus, "creating", phases, needs_bytes=needs)
        with promise, entered as (spec, record):
            with phases.step("start"):
                live = self.node.sandbox.start(spec)
            made = Pod(replace(record, state="ready"), spec, live)
            with phases.step("health"):
                self.moving.await_well(made, launch.ready_timeout_s)
            self.keep(made)
        return made

    @contextmanager
    def entering(
        self,
        pod: PodId,
        function: FunctionId,
        gpus: Sequence[GpuId],
        state: str,
        phases: Phases,
        *,
        needs_bytes: int = 0,
        snapshot: str = "",
        image_digest: str = "",
    ) -> Generator[tuple[PodSpec, PodRecord]]:
        """Give a new pod its record, GPUs and network; all of it goes if the body fails."""
        deployed, name = self.function(function), self.records.name(pod)
        slices = self.slices(deployed, gpus)
        launch = within(deployed.launch, self.node.config.mounts)
        record = PodRecord(
            pod=pod,
            function=function,
            named=deployed.launch.function,
            state=state,
            slices=slices,
            built_on=tuple(one.gpu for one in slices),
            gpus=tuple(gpus),
            snapshot=snapshot,
        )
        try:
            with phases.step("reserve"):
                if slices:
                    require_share(self.node.shares[deployed.spec.enforcement])
                self.begin(record)
                self.room.reserve(pod, slices, needs_bytes=needs_bytes)
            with phases.step("network"):
                place = self.node.network.enter(name)
            folder = self.records.folder(pod)
            spec = self._spec(replace(deployed, launch=launch), name, slices, place, folder)
            spec = replace(spec, image_digest=image_digest)
            address = f"{place.host}:{deployed.launch.port}"
            yield spec, replace(record, address=address, network=place.namespace)
        except BaseException as error:
            if pod in self._begun:
                # Whatever the body started, it need not clean up.
                self._end(pod, error)
            raise

    def begin(self, record: PodRecord) -> None:
        """Have the record of a pod durable that is about to be made.

        Raises:
            AgentError: There is one already, or the record cannot be kept.
        """
        with self._guard:
            if record.pod in self._pods:
                raise AgentError(f"pod {record.pod} runs already", survived=True)
            self._begun[record.pod] = record
        self.records.put(record)

    def keep(self, pod: Pod) -> None:
        """Have a pod's new state durable, then known."""
        self.records.put(pod.record)
        with self._guard:
            self._begun.pop(pod.record.pod, None)
            self._pods[pod.record.pod] = pod

    # -- down and up ---
    def suspend(self, pod: PodId, phases: Phases) -> None:
        """Move a pod's GPU state to host memory, and stop it there."""
        one = self.get(pod)
        with untouched():
            one.require("ready")
            with phases.step("share"):
                self.moving.check_share(one)
            self.pages.await_whole(one, phases)
        with self.changing(one, "suspending"):
            pids = self.moving.quiet(one, phases)
            held = self.moving.device_bytes(pids)
            self.moving.to_host(one, pids, held, phases)
            with phases.step("freeze"):
                self.node.sandbox.freeze(one.spec.pod)
            record = replace(one.record, state="standby", slices=(), gpus=(), device_bytes=held)
            self.keep(Pod(record, one.spec, one.live))
        self.room.release(pod)

    def resume(self, pod: PodId, gpus: Sequence[GpuId], phases: Phases) -> None:
        """Move a suspended pod's GPU state back, and wait until it can serve."""
        one = self.get(pod)
        deployed = self.function(FunctionId(one.record.function))
        with ExitStack() as undo:
            with untouched():
                one.require("standby")
                slices = self.slices(deployed, gpus)
                with phases.step("reserve"):
                    self.room.reserve(pod, slices, needs_bytes=one.record.device_bytes)
                undo.callback(self.room.release, pod)
            with self.changing(one, "resuming", fatal=True):
                with phases.step("thaw"):
                    self.node.sandbox.thaw(one.spec.pod)
                built_on = self.moving.onto_gpus(one, slices, phases)
                self.moving.wake(one, phases)
                record = replace(
                    one.record,
                    state="ready",
                    slices=slices,
                    gpus=tuple(gpus),
                    built_on=built_on,
                    built_among=(),
                )
                self.keep(Pod(record, replace(one.spec, slices=slices), one.live))
            undo.pop_all()

    def stop(self, pod: PodId) -> None:
        """End a pod, and remove all that was made for it; one that is not there is fine.

        Raises:
            AgentError: It could not be ended: it is there still, and so is all that it holds.
        """
        name = self.records.name(pod)
        try:
            self.node.sandbox.stop(name)
            self.pages.forget(name)
            self.room.release(pod)
            self.node.network.leave(name)
            for record in self.known():
                if record.pod == pod:
                    self.logs.keep(pod, record.named, self.records.place(pod))
            self.records.remove(pod)
        except AgentError as error:
            error.stays, error.survived = True, False
            self._hold_on(pod)
            raise
        with self._guard:
            for known in (self._pods, self._begun, self._stuck):
                known.pop(pod, None)

    def _hold_on(self, pod: PodId) -> None:
        """Note that a pod could not be ended."""
        with self._guard:
            one = self._pods.pop(pod, None)
            record = one.record if one is not None else self._begun.pop(pod, None)
            if record is None:
                return  # It is noted already, or is a leftover of no pod.
            record = self._stuck[pod] = replace(record, state="stopping")
        try:
            # So that the next start of this agent does not take it for a pod that serves.
            self.records.put(record)
        except AgentError as error:
            _log.warning("%s", error)

    # -- parts of the above, and of snapshots ---
    @contextmanager
    def changing(self, one: Pod, state: str, *, fatal: bool = False) -> Generator[None]:
        """Note what is done to a pod; where it fails, bring it back, or with `fatal` kill it."""
        with untouched():
            self.records.put(replace(one.record, state=state, before=one.record.state))
        try:
            yield
        except AgentError as error:
            # A restore onto GPUs that failed is not tried again, whatever the driver says now.
            error.survived = not fatal and error.phase != "device-restore" and self._is_back(one)
            if not error.survived:
                self._end(PodId(one.record.pod), error)
            raise

    def slices(self, deployed: Deployed, gpus: Sequence[GpuId]) -> tuple[SliceShape, ...]:
        """Return the slices of a function's pod on these GPUs."""
        return slices_on(deployed, gpus, self.room.gpus())

    def spec_of(self, record: PodRecord) -> PodSpec:
        """Return a recorded pod's specification again."""
        deployed = self.function(FunctionId(record.function))
        host = record.address.rpartition(":")[0]
        place = Place(record.network, host)
        folder = self.records.folder(record.pod)
        return self._spec(deployed, self.records.name(record.pod), record.slices, place, folder)

    def _spec(
        self,
        deployed: Deployed,
        name: str,
        slices: tuple[SliceShape, ...],
        place: Place,
        folder: Path,
    ) -> PodSpec:
        return spec_for(
            deployed,
            name,
            slices,
            place,
            folder,
            share=self.node.shares[deployed.spec.enforcement],
            node=self.room.gpus(),
        )

    def _is_back(self, one: Pod) -> bool:
        """Bring a pod back to where it was; tell whether it is."""
        try:
            self.moving.settle(one)
            self.records.put(one.record)
        except AgentError as error:
            _log.warning("%s cannot go on: %s", one.spec.pod, error)
            return False
        return True

    def _end(self, pod: PodId, error: BaseException) -> None:
        """End a pod because of an error, which is told whatever comes."""
        try:
            self.stop(pod)
        except AgentError as failed:
            error.add_note(f"and it could not be ended: {failed}")
