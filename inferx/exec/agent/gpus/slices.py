"""The GPUs that a pod's slices are of, checked, and what its environment says of them."""

from collections.abc import Sequence

from inferx.core.units import MILLI_PER_GPU
from inferx.exec.agent.ports import AgentError, Gpu, SliceShape

__all__ = ["held_gpus", "hint_env", "percentage", "visible_env", "whole_gpus"]


def held_gpus(slices: Sequence[SliceShape], gpus: Sequence[Gpu], name: str) -> list[Gpu]:
    """Return the GPU of each slice, which must be there and large enough.

    Raises:
        AgentError: Phase `share`; `name` is the share that asks.
    """
    by_uuid = {gpu.uuid: gpu for gpu in gpus}
    held: list[Gpu] = []
    for part in slices:
        gpu = by_uuid.get(part.gpu)
        if gpu is None:
            raise AgentError(f"share {name}: no GPU {part.gpu} on this node", phase="share")
        if gpu in held:
            raise AgentError(f"share {name}: two slices of {part.gpu} for one pod", phase="share")
        if gpu.mig_enabled:
            raise AgentError(
                f"share {name}: {part.gpu} is in MIG mode: only its MIG devices can be used",
                phase="share",
            )
        if part.hbm_bytes > gpu.memory_total:
            raise AgentError(
                f"share {name}: a slice of {part.hbm_bytes} bytes of {part.gpu}, which has"
                f" {gpu.memory_total}",
                phase="share",
            )
        held.append(gpu)
    return held


def whole_gpus(slices: Sequence[SliceShape], gpus: Sequence[Gpu], name: str) -> list[Gpu]:
    """Return the GPU of each slice, none of which may be a MIG device."""
    held = held_gpus(slices, gpus, name)
    for gpu in held:
        if gpu.parent:
            raise AgentError(
                f"share {name}: {gpu.uuid} is a MIG device; its share is mig", phase="share"
            )
    return held


def visible_env(slices: Sequence[SliceShape], held: Sequence[Gpu]) -> dict[str, str]:
    """Return the GPUs that a pod sees: none for a pod without slices, rather than all."""
    assert len(slices) == len(held)
    uuids = ",".join(gpu.uuid for gpu in held)
    # The container toolkit's variable, for images that are started with it.
    return {"CUDA_VISIBLE_DEVICES": uuids, "NVIDIA_VISIBLE_DEVICES": uuids or "void"}


def hint_env(slices: Sequence[SliceShape], held: Sequence[Gpu]) -> dict[str, str]:
    """Return what an engine may take of each GPU: the smallest part, for ranks are equal."""
    if not slices:
        return {}
    fractions = (
        part.hbm_bytes * 10_000 // gpu.memory_total for part, gpu in zip(slices, held, strict=True)
    )
    return {
        # Rounded down: the sum over a GPU's pods is never more than the GPU.
        "INFERX_GPU_MEMORY_FRACTION": f"{min(fractions) / 10_000:.4f}",
        "INFERX_GPU_MEMORY_BYTES": str(min(part.hbm_bytes for part in slices)),
    }


def percentage(slices: Sequence[SliceShape]) -> int:
    """Return the smallest compute share in percent, at least 1: one number holds for all GPUs."""
    if not slices:
        return 100
    return max(1, min(part.milli_gpu for part in slices) * 100 // MILLI_PER_GPU)
