"""Packing rules as the authors of "Beware of Fragmentation" ran them, quirks included.

Source: Weng et al., USENIX ATC 2023, p. 1003, section 6.1, and their simulator, repository
hkust-adsl/kubernetes-scheduler-simulator at 8f3d641, `pkg/simulator/plugin`. Scores are integers
from 0 to 100, by truncation, so ties are common; whoever replays them breaks ties by the nodes'
order. The largest node, 128 CPUs and 8 GPUs, is a constant.

For rules with real-valued scores, which fit any cluster, see the other modules of this package.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from numpy.random import Generator

from inferx.policy import MILLI_PER_GPU
from inferx.policy.packing.fragmentation import Fragmentation
from inferx.policy.packing.shapes import NodeState, PodShape, free_gpus, kind_of, tightest_gpus

__all__ = [
    "PUBLISHED",
    "PublishedBestFit",
    "PublishedDotProduct",
    "PublishedFgd",
    "PublishedGpuClustering",
    "PublishedGpuPacking",
    "PublishedRandom",
    "PublishedRule",
]

MAX_CPU_MILLI: Final = 128_000
MAX_GPU_MILLI: Final = 8 * MILLI_PER_GPU


class PublishedRule(Protocol):
    """A rule of the published comparison. Both methods are asked only where the pod fits."""

    def score(self, pod: PodShape, node: NodeState) -> int:
        """From 0 to 100, higher is better."""
        ...

    def gpus(self, pod: PodShape, node: NodeState, rng: Generator) -> tuple[int, ...]:
        """GPUs of the chosen node; none for a pod without."""
        ...


@dataclass(frozen=True, slots=True)
class PublishedRandom:
    """Any node, any GPU. All nodes tie; the replay draws among them.

    Differs: the authors draw an integer for each node from one global generator, in an order that
    their threads decide; here ties are drawn, from a seeded stream.
    """

    def score(self, pod: PodShape, node: NodeState) -> int:
        """Return the same for all."""
        return 0

    def gpus(self, pod: PodShape, node: NodeState, rng: Generator) -> tuple[int, ...]:
        """Return any GPU that fits, or the first free ones."""
        if pod.gpus != 1:
            return tightest_gpus(pod, node)
        fitting = [gpu for gpu, left in enumerate(node.gpus) if left >= pod.milli]
        return (fitting[int(rng.integers(len(fitting)))],)


@dataclass(frozen=True, slots=True)
class PublishedDotProduct:
    """The smaller the dot product of what is asked and what is left, the better.

    Named after Tetris (Grandl et al., SIGCOMM 2014), which takes the largest.
    """

    def score(self, pod: PodShape, node: NodeState) -> int:
        """Return `100 * (1 - left . asked / 2)`."""
        product = (node.cpu_milli / MAX_CPU_MILLI) * (pod.cpu_milli / MAX_CPU_MILLI)
        asked = pod.milli * pod.gpus
        product += (sum(node.gpus) / MAX_GPU_MILLI) * (asked / MAX_GPU_MILLI)
        return int(100.0 * (1 - product / 2))

    def gpus(self, pod: PodShape, node: NodeState, rng: Generator) -> tuple[int, ...]:
        """Return the tightest GPU, or the first free ones."""
        return tightest_gpus(pod, node)


@dataclass(frozen=True, slots=True)
class PublishedBestFit:
    """The less would be left, the better; CPU and all GPUs together weigh the same."""

    def score(self, pod: PodShape, node: NodeState) -> int:
        """Return `100 * (1 - (cpu left + gpu left) / 2)` after placing."""
        left = (node.cpu_milli - pod.cpu_milli) / MAX_CPU_MILLI * 0.5
        left += (sum(node.gpus) - pod.milli * pod.gpus) / MAX_GPU_MILLI * 0.5
        return int((1.0 - left) * 100.0)

    def gpus(self, pod: PodShape, node: NodeState, rng: Generator) -> tuple[int, ...]:
        """Return the tightest GPU, or the first free ones."""
        return tightest_gpus(pod, node)


@dataclass(frozen=True, slots=True)
class PublishedGpuClustering:
    """Pods that share go to pods that share, pods of n GPUs to pods of n GPUs.

    After Gandiva (Xiao et al., OSDI 2018), as the authors adapted it: p. 1003, section 6.1.
    """

    def score(self, pod: PodShape, node: NodeState) -> int:
        """Return a band by affinity, and the fuller within it the better."""
        kind = kind_of(pod)
        if not kind:
            return 0
        fuller = 25 * (MAX_GPU_MILLI - sum(node.gpus)) // MAX_GPU_MILLI
        if kind in node.kinds:
            return fuller + (75 if len(node.kinds) == 1 else 50)
        return fuller + (0 if node.kinds else 25)

    def gpus(self, pod: PodShape, node: NodeState, rng: Generator) -> tuple[int, ...]:
        """Return the tightest GPU, or the first free ones."""
        return tightest_gpus(pod, node)


@dataclass(frozen=True, slots=True)
class PublishedGpuPacking:
    """Shared GPUs first, then free GPUs of a node in use, then a free node.

    After "MLaaS in the Wild" (Weng et al., NSDI 2022), as adapted on p. 1003, section 6.1.
    """

    def score(self, pod: PodShape, node: NodeState) -> int:
        """Return a band by what would be opened, and the fuller the better."""
        if pod.gpus == 0:
            return 0
        free = free_gpus(node)
        if free == len(node.gpus):
            return max(33 - free, free)
        used = sorted(left for left in node.gpus if left >= pod.milli)[: pod.gpus]
        opened = used.count(MILLI_PER_GPU)
        if opened:
            return max(50 - opened, 33)
        return max(100 - sum(left * 100 // MILLI_PER_GPU for left in used) // 10, 50)

    def gpus(self, pod: PodShape, node: NodeState, rng: Generator) -> tuple[int, ...]:
        """Return the tightest GPU, or the first free ones."""
        return tightest_gpus(pod, node)


@dataclass(frozen=True, slots=True)
class PublishedFgd:
    """Down the steepest gradient: where the fragment grows least, or shrinks most."""

    fragmentation: Fragmentation

    def score(self, pod: PodShape, node: NodeState) -> int:
        """Return `100 * sigmoid(fragment before - after, in GPUs)`, on the best of the GPUs."""
        return self._best(pod, node)[0]

    def gpus(self, pod: PodShape, node: NodeState, rng: Generator) -> tuple[int, ...]:
        """Return the GPU with the highest score, lowest index; or the first free ones."""
        return self._best(pod, node)[1] if pod.shares else tightest_gpus(pod, node)

    def _best(self, pod: PodShape, node: NodeState) -> tuple[int, tuple[int, ...]]:
        of, model, gpus = self.fragmentation.of, node.model, node.gpus
        before = of(model, node.cpu_milli, gpus)
        cpu_milli = node.cpu_milli - pod.cpu_milli
        if not pod.shares:
            after = list(gpus)
            for gpu in tightest_gpus(pod, node) if pod.gpus else ():
                after[gpu] -= pod.milli
            return _descent(before - of(model, cpu_milli, tuple(after))), ()
        best, at = -1, -1
        tried: set[int] = set()
        for gpu, left in enumerate(gpus):
            if left < pod.milli or left in tried:
                continue
            tried.add(left)
            rest = (*gpus[:gpu], left - pod.milli, *gpus[gpu + 1 :])
            score = _descent(before - of(model, cpu_milli, rest))
            if score > best:
                best, at = score, gpu
        return best, (at,)


def _descent(less: float) -> int:
    return int(1.0 / (1.0 + math.exp(-less / 1000)) * 100.0)


PUBLISHED: Final[dict[str, Callable[[Fragmentation], PublishedRule]]] = {
    "random": lambda _: PublishedRandom(),
    "dotprod": lambda _: PublishedDotProduct(),
    "gpu-clustering": lambda _: PublishedGpuClustering(),
    "gpu-packing": lambda _: PublishedGpuPacking(),
    "best-fit": lambda _: PublishedBestFit(),
    "fgd": PublishedFgd,
}
"""Names of the published comparison, in its order."""
