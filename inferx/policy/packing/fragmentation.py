"""How much idle GPU a node has that the typical pod could not use.

For a typical pod that the node cannot take, all that is idle there is a fragment; for one that it
can take, only the GPUs with less left than it asks for. The measure is the mean over the typical
pods, weighted by how often they come. Unit: thousandths of a GPU.

Source: Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation
Gradient Descent", USENIX ATC 2023, p. 1000, equations 1 to 3; sums are taken in the order of the
authors' simulator, repository hkust-adsl/kubernetes-scheduler-simulator at 8f3d641,
`pkg/utils/frag.go` (`NodeGpuShareFragAmount`), because scores are truncated to integers.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from inferx.policy import Bool
from inferx.policy.packing.shapes import NodeState, PodShape, allowed_models

__all__ = ["Fragmentation", "TypicalPod", "fragment", "typical_pods"]

_CATEGORIES = 6
_Q1, _Q2, _Q4, _XL, _XR, _NO_ACCESS = range(_CATEGORIES)
"""The authors' classes of fragments, in the order in which they are summed."""


class TypicalPod(NamedTuple):
    """A kind of pod, and its share of all pods."""

    cpu_milli: int
    milli: int
    gpus: int
    models: str
    share: float


def typical_pods(pods: Iterable[PodShape], *, popularity: float = 0.95) -> tuple[TypicalPod, ...]:
    """Return the most frequent kinds that together are at least `popularity` of all pods.

    Memory is no part of a kind. Equal counts: the larger tuple (CPU, GPU, count, models) first.
    """
    counts = Counter((pod.cpu_milli, pod.milli, pod.gpus, pod.models) for pod in pods)
    total = float(counts.total())
    ranked = sorted(((float(count), kind) for kind, count in counts.items()), reverse=True)
    kept, cumulative = 0, 0.0
    while kept < len(ranked) and cumulative < popularity * 100.0 * total / 100.0:
        cumulative += ranked[kept][0]
        kept += 1
    if kept == len(ranked):
        return tuple(TypicalPod(*kind, count / total) for count, kind in ranked)
    # Divided twice, as the authors do: the last bit may decide a score.
    known = cumulative / total
    return tuple(TypicalPod(*kind, count / total / known) for count, kind in ranked[:kept])


def fragment(
    model: str, cpu_milli: int, gpus: Sequence[int], typical: Iterable[TypicalPod]
) -> float:
    """Return the fragment of a node in this state. The order of `gpus` does not matter."""
    idle = sum(gpus)
    parts = [0.0] * _CATEGORIES
    for pod in typical:
        enough = cpu_milli >= pod.cpu_milli
        if pod.milli == 0:
            parts[_XL if enough else _XR] += pod.share * idle
        elif pod.models and model not in allowed_models(pod.models):
            parts[_NO_ACCESS] += pod.share * idle
        elif sum(left >= pod.milli for left in gpus) < pod.gpus:
            parts[_Q2 if enough else _Q1] += pod.share * idle
        elif not enough:
            parts[_Q4] += pod.share * idle
        else:
            parts[_Q2] += pod.share * sum(left for left in gpus if left < pod.milli)
    total = 0.0
    for part in parts:
        total += part
    return total


class Fragmentation:
    """The measure over one list of typical pods; remembers each state that it was asked about.

    What is left of the CPU matters only by which typical pods it suffices for, and GPUs only as a
    multiset, so few states differ: one row for each multiset, one entry for each step of CPU.
    Every entry is what `fragment` returns, to the last bit.
    """

    def __init__(self, typical: Sequence[TypicalPod]) -> None:
        self.typical = tuple(typical)
        self._cpus = sorted({pod.cpu_milli for pod in typical})
        self._rows: dict[tuple[str, tuple[int, ...]], list[float]] = {}
        self._allowed: dict[str, Bool] = {}
        self._share = np.array([pod.share for pod in typical])
        self._gpus = np.array([pod.gpus for pod in typical])
        self._on_gpus = np.array([pod.milli > 0 for pod in typical])
        milli = np.array([pod.milli for pod in typical])
        self._milli, self._milli_of = np.unique(milli, return_inverse=True)
        cpu_milli = np.array([pod.cpu_milli for pod in typical])
        steps = np.array([-1, *self._cpus])
        self._enough = steps[:, np.newaxis] >= cpu_milli
        self._step = _CATEGORIES * np.arange(len(steps))[:, np.newaxis]

    def of(self, model: str, cpu_milli: int, gpus: tuple[int, ...]) -> float:
        """Return the fragment of a node in this state."""
        row = self._rows.get((model, gpus))
        if row is None:
            key = (model, tuple(sorted(gpus)))
            row = self._rows.get(key)
            if row is None:
                row = self._rows[key] = self._row(*key)
            self._rows[model, gpus] = row
        return row[bisect_right(self._cpus, cpu_milli)]

    def of_node(self, node: NodeState) -> float:
        """Return the fragment of a node as it is."""
        return self.of(node.model, node.cpu_milli, node.gpus)

    def _may(self, model: str) -> Bool:
        """Return which typical pods may go to a model, or need none. Shape (typical pods,)."""
        found = self._allowed.get(model)
        if found is None:
            named = [not p.models or model in allowed_models(p.models) for p in self.typical]
            found = self._allowed[model] = np.array(named, np.bool_) | ~self._on_gpus
        return found

    def _row(self, model: str, gpus: tuple[int, ...]) -> list[float]:
        """Return the fragment at each step of CPU."""
        left = np.array(gpus, np.int64)
        short = left < self._milli[:, np.newaxis]
        holds = (len(gpus) - short.sum(axis=1))[self._milli_of] >= self._gpus
        may = self._may(model)
        takes = holds & may & self._on_gpus
        idle = sum(gpus)
        lost = np.where(takes, (left * short).sum(axis=1)[self._milli_of], idle)
        amount = self._share * np.where(self._enough, lost, idle)
        served = np.where(self._on_gpus, _Q2, _XL)
        starved = np.where(self._on_gpus, np.where(holds, _Q4, _Q1), _XR)
        category = np.where(may, np.where(self._enough, served, starved), _NO_ACCESS) + self._step
        # In the order of the typical pods within a category, then in the order of categories.
        parts = np.bincount(category.ravel(), amount.ravel(), _CATEGORIES * len(self._step))
        total = np.zeros(len(self._step))
        for part in parts.reshape(-1, _CATEGORIES).T:
            total += part
        return total.tolist()
