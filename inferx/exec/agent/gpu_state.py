"""Moves all GPU state of a pod to host memory and back: every process of it, in order.

Laws:
1. To host memory it is all or nothing: where one process fails, those before it are brought back.
2. Back onto GPUs there is no way home: a process whose restore failed is poisoned, and its pod must
   be killed. It is not tried again.
3. After a checkpoint nothing of the pod may hold a GPU's device file: a dump would fail, or worse,
   leave the GPU's part out.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from inferx.exec.agent.phases import Phases
from inferx.exec.agent.ports import AgentError, DeviceCheckpointer

__all__ = ["GpuState", "full_map", "open_gpu_files"]

LOCK_S = 10.0
"""How long work that was submitted may take to end."""
MOVE_S = 120.0
"""How long a checkpoint or a restore may take."""
_DEVICES = ("/dev/nvidia", "/dev/dri/")


class GpuState:
    """The GPU side of pods, by the driver's checkpoint calls."""

    def __init__(self, device: DeviceCheckpointer) -> None:
        self._device = device

    def holders(self, pids: Sequence[int]) -> list[int]:
        """Return those processes that have GPU state. Asks the driver once for each."""
        return [pid for pid in pids if self._device.state(pid).name != "none"]

    def to_host(self, pids: Sequence[int], phases: Phases, *, moved_bytes: int) -> None:
        """Checkpoint processes that run; afterwards their GPUs are free of them."""
        with ExitStack() as undo:
            for pid in pids:
                with phases.step("lock"):
                    self._device.lock(pid, timeout_s=LOCK_S)
                back = undo.enter_context(ExitStack())
                back.callback(self._device.unlock, pid, timeout_s=LOCK_S)
                with phases.step("checkpoint", moved_bytes // len(pids)):
                    self._device.checkpoint(pid, timeout_s=MOVE_S)
                back.callback(self._device.restore, pid, gpu_map={}, timeout_s=MOVE_S)
            with phases.step("verify"):
                self._verify(pids)
            undo.pop_all()

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
            held = open_gpu_files(pid)
            if held:
                raise AgentError(f"process {pid} still holds {held[0]}", phase="verify")


def open_gpu_files(pid: int) -> list[str]:
    """Return the GPU device files that a process holds open or has mapped."""
    found: dict[str, None] = {}
    folder = Path("/proc") / str(pid)
    for kind in ("fd", "map_files"):
        try:
            links = sorted((folder / kind).iterdir())
        except OSError:  # It has ended, or may not be looked at.
            continue
        for link in links:
            try:
                target = str(link.readlink())
            except OSError:
                continue
            if target.startswith(_DEVICES):
                found[target] = None
    return list(found)


def full_map(
    node: Sequence[str], built_on: Sequence[str], onto: Sequence[str]
) -> Mapping[str, str]:
    """Return where each GPU of a node goes when `built_on` become `onto`; empty if nothing moves.

    The driver wants every GPU named once on either side, those that stay included: whoever is in
    the way takes a place that was left.
    """
    if tuple(built_on) == tuple(onto):
        return {}
    moves = dict(zip(built_on, onto, strict=True))
    rest = [uuid for uuid in node if uuid not in moves]
    taken = frozenset(moves.values())
    stays = [uuid for uuid in rest if uuid not in taken]
    displaced = [uuid for uuid in rest if uuid in taken]
    left = [uuid for uuid in node if uuid not in taken and uuid not in stays]
    moves.update({uuid: uuid for uuid in stays})
    moves.update(zip(displaced, left, strict=False))
    return moves
