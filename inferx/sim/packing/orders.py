"""In which order pods arrive, and in which order nodes win ties.

Either is read from a file of orders, as published, or made by a seeded generator of our own: pods
are shuffled, then clones of pods drawn at random are appended until the cluster's GPUs have been
asked for `inflation` times over. A list that asks for more than that loses pods drawn at random.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from inferx.core.errors import DescriptionError
from inferx.core.rng import stream
from inferx.core.units import MILLI_PER_GPU
from inferx.sim.packing.lists import NodeList, PodList

__all__ = ["Order", "OrderFile", "draw_order"]

INFLATION: Final = 1.3
_Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Order:
    """One replication.

    Attributes:
        pods: Rows of the pod list, in the order of arrival; a row may come more than once.
        rank: Of each node, by row of the node list: the lower one wins a tie. Shape (nodes,).
    """

    pods: _Rows
    rank: _Rows


class OrderFile:
    """A file of orders: arrays `WORKLOAD/SEED/pods` and `WORKLOAD/SEED/node_rank`, as .npz."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file, zipfile.ZipFile(file):
                file.seek(0)
                with np.load(file, allow_pickle=False) as arrays:
                    self._arrays = {name: np.asarray(arrays[name]) for name in arrays.files}
        except (ValueError, zipfile.BadZipFile, EOFError) as error:
            raise DescriptionError(f"{path}: not a file of orders (.npz): {error}") from error

    def order(self, pods: PodList, nodes: NodeList, seed: int) -> Order:
        """Return the order of a pod list under a seed.

        Raises:
            DescriptionError: There is none, or it names rows that the lists do not have.
        """
        what = f"{pods.name}/{seed}"
        rows = self._array(f"{what}/pods")
        rank = self._array(f"{what}/node_rank")
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(pods.names):
            raise DescriptionError(
                f"{self.path}: {what}/pods names row {int(rows.max())}; expected rows of "
                f"{len(pods.names)} pods"
            )
        if len(rank) != len(nodes.names) or len(np.unique(rank)) != len(rank):
            raise DescriptionError(
                f"{self.path}: {what}/node_rank has {len(np.unique(rank))} ranks; expected one "
                f"for each of {len(nodes.names)} nodes"
            )
        return Order(rows, rank)

    def _array(self, name: str) -> _Rows:
        found = self._arrays.get(name)
        if found is None:
            known = sorted({key.rpartition("/")[0] for key in self._arrays})
            some = ", ".join(known[:3]) + (", ..." if len(known) > 3 else "")
            raise DescriptionError(f"{self.path}: no {name}; expected one of its orders: {some}")
        if found.ndim != 1 or found.dtype.kind not in "iu":
            raise DescriptionError(f"{self.path}: {name} is not a row of whole numbers")
        return found.astype(np.int64)


def draw_order(pods: PodList, nodes: NodeList, seed: int, *, inflation: float = INFLATION) -> Order:
    """Shuffle and inflate; the same seed gives the same order everywhere.

    Differs: clones are counted with all their GPUs, where the authors count one GPU of each.
    """
    asked = np.array([shape.milli * shape.gpus for shape in pods.shapes], np.int64)
    most = inflation * nodes.gpu_count * MILLI_PER_GPU
    # By name, so that the order of lines in the file does not matter.
    by_name = np.array(sorted(range(len(pods.names)), key=pods.names.__getitem__), np.int64)
    rng = stream(seed, "packing-order")
    rows = rng.permutation(by_name).tolist()
    total = int(asked.sum())
    if total <= most:
        if total:
            while True:
                row = int(by_name[rng.integers(len(by_name))])
                if total + int(asked[row]) > most:
                    break
                rows.append(row)
                total += int(asked[row])
    else:
        while total > most:
            total -= int(asked[rows.pop(int(rng.integers(len(rows))))])
    rank = rng.permutation(len(nodes.names)).astype(np.int64)
    return Order(np.array(rows, np.int64), rank)
