"""The pods of this node: started, suspended, resumed and ended, with all that belongs to them.

Laws:
1. A pod's record is durable before anything of the pod exists, and goes last.
2. What a step made, a later failure undoes, last first. A failure that leaves the pod as it was
   says so (`AgentError.survived`); after any other the pod is gone, with all it held.
3. A restore or resume that failed on the device is never tried again: the pod is killed.
4. A pod's new state is durable before what the old one held is promised to others.
"""

import logging
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from msgspec.structs import replace

from inferx.core.types import FunctionId, GpuId, PodId
from inferx.exec.agent import hooks
from inferx.exec.agent.deployed import Deployed
from inferx.exec.agent.gpus.gpu_moves import full_map
from inferx.exec.agent.gpus.gpu_room import GpuRoom
from inferx.exec.agent.gpus.gpu_state import GpuState
from inferx.exec.agent.gpus.share import check_checkpointable, require_share
from inferx.exec.agent.host_room import require_host_room
from inferx.exec.agent.network import Place
from inferx.exec.agent.node import Node
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.pod import Pod, slices_on, spec_for, untouched
from inferx.exec.agent.pod_records import PodRecord, PodRecords
from inferx.exec.agent.ports import AgentError, PodSpec, SliceShape
from inferx.exec.agent.sandbox_kind import remember
from inferx.exec.agent.store.durable import FileLock
from inferx.exec.agent.store.manifest import GpuModel

__all__ = ["HOOK_S", "Pod", "Pods"]

_log = logging.getLogger(__name__)

HOOK_S = 60.0
"""How long a pod may take to be quiet, or to wake."""


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
        lock = FileLock.take(state / "lock", exclusive=True, wait=False, create=True)
        if lock is None:
            raise AgentError(f"{state}: another agent works with it; expected none", phase="lock")
        self._lock = lock
        remember(state, node.sandbox.name)
        self.room = GpuRoom(node.inventory)
        self.gpu_state = GpuState(node.device)
        self._guard = threading.Lock()
        self._pods: dict[int, Pod] = {}

    def close(self) -> None:
        """Let others have the state; the pods go on."""
        self._lock.release()

    def all(self) -> Sequence[Pod]:
        """Return all pods, by id."""
        with self._guard:
            return [self._pods[pod] for pod in sorted(self._pods)]

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
        entered = self.entering(pod, function, gpus, "creating", phases, needs_bytes=needs)
        with entered as (spec, record):
            with phases.step("start"):
                live = self.node.sandbox.start(spec)
            made = Pod(replace(record, state="ready"), spec, live)
            with phases.step("health"):
                self._wait(made, launch.ready_timeout_s)
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
    ) -> Generator[tuple[PodSpec, PodRecord]]:
        """Give a new pod its record, GPUs and network; all of it goes if the body fails."""
        deployed, name = self.function(function), self.records.name(pod)
        slices = self.slices(deployed, gpus)
        with ExitStack() as undo:
            with phases.step("reserve"):
                if any(one.record.pod == pod for one in self.all()):
                    raise AgentError(f"pod {pod} runs already", survived=True)
                if slices:
                    require_share(self.node.shares[deployed.spec.enforcement])
                undo.callback(self.records.remove, pod)
                folder = self.records.folder(pod)
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
                self.records.put(record)
                self.room.reserve(pod, slices, needs_bytes=needs_bytes)
                undo.callback(self.room.release, pod)
            with phases.step("network"):
                place = self.node.network.enter(name)
                undo.callback(self.node.network.leave, name)
            spec = self._spec(deployed, name, slices, place, folder)
            # Whatever the body starts, it need not clean up.
            undo.callback(self.node.sandbox.stop, name)
            address = f"{place.host}:{deployed.launch.port}"
            yield spec, replace(record, address=address, network=place.namespace)
            undo.pop_all()

    def keep(self, pod: Pod) -> None:
        """Have a pod's new state durable, then known."""
        self.records.put(pod.record)
        with self._guard:
            self._pods[pod.record.pod] = pod

    # -- down and up ---
    def suspend(self, pod: PodId, phases: Phases) -> None:
        """Move a pod's GPU state to host memory, and stop it there."""
        one = self.get(pod)
        with untouched():
            one.require("ready")
            with phases.step("share"):
                self.check_share(one)
        with self.changing(one, "suspending"):
            pids = self.quiet(one, phases)
            held = self.device_bytes(pids)
            self.to_host(one, pids, held, phases)
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
                built_on = self.onto_gpus(one, slices, phases)
                self.wake(one, phases)
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
        """End a pod, and remove all that was made for it; one that is not there is fine."""
        name = self.records.name(pod)
        with ExitStack() as all_of_it:
            # Run last first, all of them, whichever fails.
            all_of_it.callback(self.records.remove, pod)
            all_of_it.callback(self._forget, pod)
            all_of_it.callback(self.room.release, pod)
            all_of_it.callback(self.node.network.leave, name)
            all_of_it.callback(self.node.sandbox.stop, name)

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
                self._end(one, error)
            raise

    def settle(self, one: Pod) -> None:
        """Bring a pod to rest in the state of its record, wherever it was on its way.

        Raises:
            AgentError: It cannot be: it is to be killed.
        """
        sandbox, name = self.node.sandbox, one.spec.pod
        if one.record.state == "standby":
            sandbox.freeze(name)
            if self._gone(one)():
                raise AgentError(f"{name} has ended", phase="settle")
            return
        sandbox.thaw(name)
        self.gpu_state.back(sandbox.pids(name))
        self.wake(one, Phases())

    def check_share(self, one: Pod) -> None:
        """Raise where a pod's share has no way to move its GPU state."""
        deployed = self.function(FunctionId(one.record.function))
        check_checkpointable(self.node.shares[deployed.spec.enforcement], one.record.named)

    def to_host(self, one: Pod, pids: Sequence[int], held: int, phases: Phases) -> None:
        """Move a quiet pod's GPU state to host memory, if that has room: all that it holds.

        Raises:
            AgentError: It does not fit; it failed; or the driver counts memory that it cannot move.
        """
        with phases.step("holders"):
            others = [pid for pid in self.node.sandbox.pids(one.spec.pod) if pid not in pids]
            if stuck := self.device_bytes(others):
                text = f"{one.spec.pod} holds {stuck} bytes of GPU memory that cannot be moved"
                raise AgentError(text)
        with phases.step("host-memory"):
            require_host_room(self.node.sandbox, one.spec, held)
        if pids:
            self.gpu_state.to_host(pids, phases, moved_bytes=held)

    def onto_gpus(
        self, one: Pod, slices: tuple[SliceShape, ...], phases: Phases
    ) -> tuple[str, ...]:
        """Bring a pod's GPU state onto its slices; return where it is now."""
        if slices:
            self.node.sandbox.admit(replace(one.spec, slices=slices))
        pids = self.gpu_state.holders(self.node.sandbox.pids(one.spec.pod))
        onto = tuple(shape.gpu for shape in slices)
        if pids:
            moves = self.moves(one.record.built_among, one.record.built_on or onto, onto)
            moved = one.record.device_bytes
            self.gpu_state.to_gpus(pids, phases, gpu_map=moves, moved_bytes=moved)
        return onto

    def moves(
        self, among: Sequence[GpuModel], built_on: Sequence[str], onto: Sequence[str]
    ) -> Mapping[str, str]:
        """Return where GPU state that was made among these GPUs goes; empty where it was.

        Raises:
            AgentError: This node has no place for each of them.
        """
        here = self.whole_gpus()
        models = [{gpu.uuid: gpu.model for gpu in gpus} for gpus in (among or here, here)]
        return full_map(*models, built_on=built_on, onto=onto)

    def whole_gpus(self) -> tuple[GpuModel, ...]:
        """Return this node's GPUs, those that are cut included, as a manifest tells them."""
        return tuple(
            GpuModel(model=gpu.name, uuid=gpu.uuid) for gpu in self.room.gpus() if not gpu.parent
        )

    def wake(self, one: Pod, phases: Phases) -> None:
        """Tell a pod to take back what it gave up, and wait until it can serve."""
        launch = one.spec.launch
        if launch.wake is not None:
            with phases.step("wake"):
                hooks.post(one.record.address, launch.wake, timeout_s=HOOK_S)
        with phases.step("health"):
            self._wait(one, HOOK_S)

    def quiet(self, one: Pod, phases: Phases) -> list[int]:
        """Have a pod that serves give up what it need not keep; return who has GPU state."""
        launch = one.spec.launch
        # It may have been throttled.
        self.node.sandbox.thaw(one.spec.pod)
        if launch.quiesce is not None:
            with phases.step("quiesce"):
                hooks.post(one.record.address, launch.quiesce, timeout_s=HOOK_S)
        return self.gpu_state.holders(self.node.sandbox.pids(one.spec.pod))

    def device_bytes(self, pids: Sequence[int]) -> int:
        """Return the GPU memory that processes hold, as the driver tells."""
        wanted = frozenset(pids)
        return sum(p.memory_used for p in self.node.inventory.processes() if p.pid in wanted)

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

    def _wait(self, one: Pod, timeout_s: float) -> None:
        hooks.wait_until_healthy(
            one.record.address, one.spec.launch.health, timeout_s=timeout_s, gone=self._gone(one)
        )

    def _gone(self, one: Pod) -> Callable[[], bool]:
        def gone() -> bool:
            return all(live.pod != one.spec.pod for live in self.node.sandbox.live())

        return gone

    def _is_back(self, one: Pod) -> bool:
        """Bring a pod back to where it was; tell whether it is."""
        try:
            self.settle(one)
            self.records.put(one.record)
        except AgentError as error:
            _log.warning("%s cannot go on: %s", one.spec.pod, error)
            return False
        return True

    def _end(self, one: Pod, error: AgentError) -> None:
        """End a pod because of an error, which is told whatever comes."""
        try:
            self.stop(PodId(one.record.pod))
        except AgentError as failed:
            error.add_note(f"and it could not be ended: {failed}")

    def _forget(self, pod: PodId) -> None:
        with self._guard:
            self._pods.pop(pod, None)
