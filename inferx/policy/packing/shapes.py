"""What the packing rules look at: a pod's shape and a node's state.

Laws:
1. GPU compute is counted in thousandths of one GPU. A pod takes `milli` of each of its GPUs.
2. A pod of one GPU may share it; a pod of several takes GPUs that nobody else is on.
3. Both are values: equal states score equally, so a score can be remembered by state.
"""

from functools import cache
from typing import NamedTuple

from inferx.policy import MILLI_PER_GPU

__all__ = ["NodeState", "PodShape", "fits", "free_gpus", "kind_of", "placed", "tightest_gpus"]


class PodShape(NamedTuple):
    """What one arrival asks for. `models` is `A|B`, or empty where any GPU will do."""

    cpu_milli: int
    memory_mib: int
    gpus: int
    milli: int
    models: str

    @property
    def shares(self) -> bool:
        """Whether it takes a part of one GPU."""
        return self.gpus == 1 and self.milli < MILLI_PER_GPU


class NodeState(NamedTuple):
    """What is left on a node. `gpus` is what each GPU has left, `kinds` what its GPU pods are."""

    model: str
    cpu_milli: int
    memory_mib: int
    gpus: tuple[int, ...]
    kinds: frozenset[str]
    pods: int


def kind_of(pod: PodShape) -> str:
    """Return the class by which clustering keeps pods together; empty without GPUs."""
    if pod.gpus == 0:
        return ""
    return "share" if pod.shares else f"{pod.gpus}-gpu"


def fits(pod: PodShape, node: NodeState) -> bool:
    """Whether `node` could take `pod` now."""
    if pod.cpu_milli > node.cpu_milli or pod.memory_mib > node.memory_mib or node.pods < 1:
        return False
    if pod.gpus == 0:
        return True
    if pod.models and node.model not in allowed_models(pod.models):
        return False
    if pod.gpus == 1:
        return max(node.gpus, default=-1) >= pod.milli
    return free_gpus(node) >= pod.gpus


@cache
def allowed_models(models: str) -> frozenset[str]:
    """Return the GPU models of `A|B|A`."""
    return frozenset(models.split("|"))


def free_gpus(node: NodeState) -> int:
    """Return how many GPUs nobody is on."""
    return node.gpus.count(MILLI_PER_GPU)


def tightest_gpus(pod: PodShape, node: NodeState) -> tuple[int, ...]:
    """Return the GPU with the least left that suffices, or the first free ones; lowest index."""
    if pod.gpus == 1:
        _, gpu = min((left, gpu) for gpu, left in enumerate(node.gpus) if left >= pod.milli)
        return (gpu,)
    return tuple(i for i, left in enumerate(node.gpus) if left == MILLI_PER_GPU)[: pod.gpus]


def placed(pod: PodShape, node: NodeState, gpus: tuple[int, ...]) -> NodeState:
    """Return `node` with `pod` on `gpus`."""
    left = list(node.gpus)
    for gpu in gpus:
        left[gpu] -= pod.milli
    kind = kind_of(pod)
    return NodeState(
        node.model,
        node.cpu_milli - pod.cpu_milli,
        node.memory_mib - pod.memory_mib,
        tuple(left),
        node.kinds | {kind} if kind else node.kinds,
        node.pods - 1,
    )
