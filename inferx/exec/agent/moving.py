"""A pod's GPU state on its way to host memory and back, and what the pod is told about it.

Law: what cannot be moved is found out before anything is. What a failure on the way means for the
pod is for whoever asked (`pods.py`).
"""

from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from inferx.core.types import FunctionId
from inferx.exec.agent import hooks
from inferx.exec.agent.deployed import Deployed
from inferx.exec.agent.gpus.gpu_moves import full_map
from inferx.exec.agent.gpus.gpu_room import GpuRoom
from inferx.exec.agent.gpus.gpu_state import GpuState
from inferx.exec.agent.gpus.share import check_checkpointable
from inferx.exec.agent.host_room import HostRoom
from inferx.exec.agent.node import Node
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.pod import Pod
from inferx.exec.agent.ports import AgentError, SliceShape
from inferx.exec.agent.processes import procfs
from inferx.exec.agent.store.manifest import GpuModel

__all__ = ["HOOK_S", "Moving"]

HOOK_S = 60.0
"""How long a pod may take to be quiet, or to wake."""


class Moving:
    """Moves the GPU state of this node's pods."""

    def __init__(
        self,
        node: Node,
        room: GpuRoom,
        host_room: HostRoom,
        function: Callable[[FunctionId], Deployed],
    ) -> None:
        self._node = node
        self._room = room
        self._host_room = host_room
        self._function = function
        self._gpu_state = GpuState(node.device)

    # -- down ---
    def check_share(self, one: Pod) -> None:
        """Raise where a pod's share has no way to move its GPU state."""
        deployed = self._function(FunctionId(one.record.function))
        check_checkpointable(self._node.shares[deployed.spec.enforcement], one.record.named)

    def quiet(self, one: Pod, phases: Phases) -> list[int]:
        """Have a pod that serves give up what it need not keep; return who has GPU state."""
        launch = one.spec.launch
        # It may have been throttled.
        self._node.sandbox.thaw(one.spec.pod)
        if launch.quiesce is not None:
            with phases.step("quiesce"):
                hooks.post(one.record.address, launch.quiesce, timeout_s=HOOK_S)
        return self._gpu_state.holders(self._node.sandbox.pids(one.spec.pod))

    def device_bytes(self, pids: Sequence[int]) -> int:
        """Return the GPU memory that processes hold, as the driver tells."""
        wanted = frozenset(pids)
        return sum(p.memory_used for p in self._node.inventory.processes() if p.pid in wanted)

    def to_host(self, one: Pod, pids: Sequence[int], held: int, phases: Phases) -> None:
        """Move a quiet pod's GPU state to host memory, if that has room: all that it holds.

        Raises:
            AgentError: It does not fit; it failed; or the driver counts memory that it cannot move.
        """
        with phases.step("holders"):
            others = [pid for pid in self._node.sandbox.pids(one.spec.pod) if pid not in pids]
            if stuck := self.device_bytes(others):
                text = f"{one.spec.pod} holds {stuck} bytes of GPU memory that cannot be moved"
                raise AgentError(text)
        with phases.step("host-memory"):
            promise = self._host_room.for_gpu_state(one.spec, held)
        with promise:
            if pids:
                self._gpu_state.to_host(pids, phases, moved_bytes=held)

    # -- up ---
    def onto_gpus(
        self, one: Pod, slices: tuple[SliceShape, ...], phases: Phases
    ) -> tuple[str, ...]:
        """Bring a pod's GPU state onto its slices; return where it is now."""
        if slices:
            self._node.sandbox.admit(replace(one.spec, slices=slices))
        pids = self._gpu_state.holders(self._node.sandbox.pids(one.spec.pod))
        onto = tuple(shape.gpu for shape in slices)
        if pids:
            moves = self.moves(one.record.built_among, one.record.built_on or onto, onto)
            moved = one.record.device_bytes
            self._gpu_state.to_gpus(pids, phases, gpu_map=moves, moved_bytes=moved)
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
            GpuModel(model=gpu.name, uuid=gpu.uuid) for gpu in self._room.gpus() if not gpu.parent
        )

    def wake(self, one: Pod, phases: Phases) -> None:
        """Tell a pod to take back what it gave up, and wait until it can serve."""
        launch = one.spec.launch
        if launch.wake is not None:
            with phases.step("wake"):
                hooks.post(one.record.address, launch.wake, timeout_s=HOOK_S)
        with phases.step("health"):
            self.await_well(one, HOOK_S)

    def await_well(self, one: Pod, timeout_s: float) -> None:
        """Wait until a pod can serve, or its process has ended."""
        hooks.wait_until_healthy(
            one.record.address,
            one.spec.launch.health,
            timeout_s=timeout_s,
            gone=lambda: not _runs(one),
        )

    # -- back ---
    def settle(self, one: Pod) -> None:
        """Bring a pod to rest in the state of its record, wherever it was on its way.

        Raises:
            AgentError: It cannot be: it is to be killed.
        """
        sandbox, name = self._node.sandbox, one.spec.pod
        if one.record.state == "standby":
            sandbox.freeze(name)
            if not _runs(one):
                raise AgentError(f"{name} has ended", phase="settle")
            return
        sandbox.thaw(name)
        self._gpu_state.back(sandbox.pids(name))
        self.wake(one, Phases())


def _runs(one: Pod) -> bool:
    return procfs.is_running(one.live.pid, one.live.started)
