"""Moves all GPU state of a pod to host memory and back: every process of it, in order.

Laws:
1. To host memory it is all or nothing: where it fails, `back` asks the driver how far each process
   came, and brings all of them back; if one is lost, its pod must be killed.
2. Back onto GPUs there is no way home: a process whose restore failed is poisoned, and its pod must
   be killed. It is not tried again.
3. After a checkpoint nothing of the pod may hold a GPU's device file: a dump would fail, or worse,
   leave the GPU's part out.
"""

from collections.abc import Mapping, Sequence

from inferx.exec.agent.gpus.device.files import gpu_files
from inferx.exec.agent.phases import Phases
from inferx.exec.agent.ports import AgentError, DeviceCheckpointer

__all__ = ["GpuState"]

LOCK_S = 10.0
"""How long work that was submitted may take to end."""
MOVE_S = 120.0
"""How long a checkpoint or a restore may take."""


class GpuState:
    """The GPU side of pods, by the driver's checkpoint calls."""

    def __init__(self, device: DeviceCheckpointer) -> None:
        self._device = device

    def holders(self, pids: Sequence[int]) -> list[int]:
        """Return those processes that have GPU state. Asks the driver once for each."""
        return [pid for pid in pids if self._device.state(pid).name != "none"]

    def to_host(self, pids: Sequence[int], phases: Phases, *, moved_bytes: int) -> None:
        """Checkpoint processes that run; afterwards their GPUs are free of them."""
        for pid in pids:
            with phases.step("lock"):
                self._device.lock(pid, timeout_s=LOCK_S)
            with phases.step("checkpoint", moved_bytes // len(pids)):
                self._device.checkpoint(pid, timeout_s=MOVE_S)
        with phases.step("verify"):
            self._verify(pids)

    def back(self, pids: Sequence[int]) -> None:
        """Have processes run on their own GPUs, however far they were on their way from there.

        Raises:
            AgentError: One of them cannot be brought back.
        """
        states = {pid: self._device.state(pid).name for pid in pids}
        lost = [pid for pid, state in states.items() if state == "failed"]
        if lost:
            raise AgentError(f"the GPU state of process {lost[0]} is lost", phase="device-state")
        for pid, state in states.items():
            if state == "checkpointed":
                # Where it was: the room there was never given back.
                self._device.restore(pid, gpu_map={}, timeout_s=MOVE_S)
            if state in {"checkpointed", "locked"}:
                self._device.unlock(pid, timeout_s=LOCK_S)

    def to_gpus(
        self, pids: Sequence[int], phases: Phases, *, gpu_map: Mapping[str, str], moved_bytes: int
    ) -> None:
        """Restore processes that are checkpointed, and let them go on."""
        for pid in pids:
            with phases.step("device-restore", moved_bytes // len(pids)):
                self._device.restore(pid, gpu_map=gpu_map, timeout_s=MOVE_S)
            with phases.step("unlock"):
                self._device.unlock(pid, timeout_s=LOCK_S)

    def _verify(self, pids: Sequence[int]) -> None:
        for pid in pids:
            state = self._device.state(pid).name
            if state != "checkpointed":
                raise AgentError(f"process {pid} is {state} after its checkpoint", phase="verify")
            held = gpu_files(pid)
            if held:
                raise AgentError(f"process {pid} still holds {held[0]}", phase="verify")
