"""Who may use how much of which GPU: what this agent has promised, held against the driver.

Laws:
1. A pod's slices are reserved before anything of it is on its GPUs, and given back only when
   nothing is: a restore that meets a full GPU poisons its process.
2. A reservation needs both: room beside what this agent has promised, and memory that is free as
   the driver tells, so that a stranger on the GPU is noticed before and not after.
3. One reservation is made at a time. That starts on one GPU follow each other is the agent
   machine's law.
"""

import threading
from collections.abc import Mapping, Sequence

from inferx.core.units import MILLI_PER_GPU
from inferx.exec.agent.ports import AgentError, Gpu, GpuInventory, SliceShape

__all__ = ["GpuRoom"]


class GpuRoom:
    """Reservations of slices."""

    def __init__(self, inventory: GpuInventory) -> None:
        self._inventory = inventory
        self._guard = threading.Lock()
        self._held: dict[int, tuple[SliceShape, ...]] = {}

    def gpus(self) -> Sequence[Gpu]:
        """Return the node's GPUs now, by index; those that are cut come first."""
        return sorted(self._inventory.gpus(), key=lambda gpu: gpu.index)

    def held(self) -> Mapping[int, tuple[SliceShape, ...]]:
        """Return the slices of each pod that has any."""
        with self._guard:
            return dict(self._held)

    def adopt(self, pod: int, slices: tuple[SliceShape, ...]) -> None:
        """Know again what a pod holds that was found running."""
        with self._guard:
            if slices:
                self._held[pod] = slices

    def reserve(self, pod: int, slices: tuple[SliceShape, ...], *, needs_bytes: int = 0) -> None:
        """Reserve a pod's slices.

        Args:
            pod: The pod; it holds nothing yet.
            slices: What it is to hold.
            needs_bytes: GPU memory, over all slices, that must be free as the driver tells.

        Raises:
            AgentError: There is no such GPU, or too little of it.
        """
        with self._guard:
            if pod in self._held:
                raise AgentError(f"pod {pod} holds GPUs already", phase="reserve")
            known = {gpu.uuid: gpu for gpu in self._inventory.gpus()}
            for shape in slices:
                gpu = known.get(shape.gpu)
                if gpu is None:
                    raise AgentError(f"no GPU {shape.gpu} on this node", phase="reserve")
                self._check(gpu, shape, needs_bytes // len(slices))
            if slices:
                self._held[pod] = slices

    def release(self, pod: int) -> None:
        """Give back what a pod held; nothing is fine."""
        with self._guard:
            self._held.pop(pod, None)

    def _check(self, gpu: Gpu, shape: SliceShape, needs_bytes: int) -> None:
        others = [one for held in self._held.values() for one in held if one.gpu == gpu.uuid]
        promised = sum(one.hbm_bytes for one in others)
        milli = sum(one.milli_gpu for one in others)
        if promised + shape.hbm_bytes > gpu.memory_total:
            left = gpu.memory_total - promised
            text = f"GPU {gpu.index}: {left} bytes not promised; expected {shape.hbm_bytes}"
            raise AgentError(text, phase="reserve")
        if milli + shape.milli_gpu > MILLI_PER_GPU:
            text = (
                f"GPU {gpu.index}: {MILLI_PER_GPU - milli} milli left; expected {shape.milli_gpu}"
            )
            raise AgentError(text, phase="reserve")
        free = gpu.memory_total - gpu.memory_used
        if free < needs_bytes:
            text = f"GPU {gpu.index}: {free} bytes free as the driver tells; expected {needs_bytes}"
            raise AgentError(text, phase="reserve")
