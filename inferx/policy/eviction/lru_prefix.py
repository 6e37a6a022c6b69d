"""The reference's eviction alone: a prefix of the global list of idle pods, oldest first.

Source: repository inferx-net/inferx at 875cb0f, `ixshare/src/scheduler/scheduler_handler.rs`,
FindNode4Pod, as `inferx-reference` has it: idle pods are walked from the least recently used, each
is added to the victims of its node, and the first node with room wins. All victims gathered there
are killed, those on other GPUs too; `trim` spares them. Pods of the function itself, and the last
`min_replica` of any other, are passed over; memory is counted in slots of 256 MB.

Differs: every node is a candidate, where the reference's starts are resumes and need a suspended
pod there; GPUs take as many pods as fit, where the reference's take one unless it is set otherwise
(`contexts_per_gpu`); everything but eviction is the plain bundle's.
"""

import dataclasses

from inferx.policy import PolicyBundle, plain
from inferx.policy.inferx_reference import LruPrefix, SlotBooks

__all__ = ["bundle"]


def bundle(contexts_per_gpu: int = 1_000, *, trim: bool = False) -> PolicyBundle:
    """Return the plain bundle with the reference's eviction.

    Args:
        contexts_per_gpu: How many pods share a GPU (`MaxContextPerGPU`).
        trim: Whether victims that do not help are spared; the original kills them.

    Raises:
        ValueError: No pod would ever share a GPU, or more than any GPU holds.
    """
    if not 1 <= contexts_per_gpu <= 1_000:
        raise ValueError(f"contexts_per_gpu is {contexts_per_gpu}; expected 1 to 1000")
    eviction = LruPrefix(SlotBooks(contexts_per_gpu, anywhere=True), trim=trim)
    return dataclasses.replace(plain.bundle(), name="lru-prefix", eviction=eviction)
