"""One question for a packing rule: where does this go? Every node is a row, every GPU a column.

Laws:
1. Sizes of GPUs are thousandths of one GPU: of its compute or its memory, whichever is scarcer.
   They are whole numbers, so that equal nodes score equally and ties are ties.
2. A rule that is `local` scores a row by that row alone. Whoever asks may then ask for changed rows
   only.
3. The highest score wins, of equal ones the first row; likewise for GPUs within a row.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from inferx.policy import F64, I64, MILLI_PER_GPU, Bool

__all__ = ["Case", "Mix", "PackingRule", "choose_gpus", "choose_row", "kind_bit", "tightest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """The kinds of things that usually ask for room.

    Attributes:
        weight: How often each comes, as whole numbers. Shape (kinds,).
        gpus: Slices of each; 0 for one that needs no GPU. Shape (kinds,).
        milli: Of a GPU that each slice takes on each row. Shape (kinds, rows).
        host: What each takes of each host resource. Shape (kinds, resources).
        allowed: Whether the row's GPU model will do. Shape (kinds, rows).
    """

    weight: I64
    gpus: I64
    milli: I64
    host: I64
    allowed: Bool

    def take(self, rows: NDArray[np.intp]) -> "Mix":
        """Return the same mix for some of the rows."""
        return Mix(
            weight=self.weight,
            gpus=self.gpus,
            milli=self.milli[:, rows],
            host=self.host,
            allowed=self.allowed[:, rows],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Something that wants `gpus` slices of one node, and the nodes.

    Attributes:
        gpus: Slices that are wanted; 0 for something that needs no GPU.
        kind: Bit of `kinds` that tells what kind of thing it is; see `kind_bit`.
        milli: What a slice takes of one GPU. Shape (rows,).
        host: What it takes of each host resource. Shape (rows, resources).
        left: Of each GPU; 0 where the node has no such GPU. Shape (rows, width).
        compute_left: The same, of compute alone. Shape (rows, width).
        memory_left: The same, of memory alone. Shape (rows, width).
        open: GPUs that could take a slice now. Shape (rows, width).
        room: Nodes that could take it now. Shape (rows,).
        count: GPUs of each node. Shape (rows,).
        kinds: Which kinds of things are on each node's GPUs, as bits. Shape (rows,).
        host_left: Shape (rows, resources).
        host_total: Shape (rows, resources).
        most: The largest node: its GPUs, then its host resources. Shape (1 + resources,).
        mix: What usually comes; None where the rule does not ask, for it takes time to find out.
    """

    gpus: int
    kind: int
    milli: I64
    host: I64
    left: I64
    compute_left: I64
    memory_left: I64
    open: Bool
    room: Bool
    count: I64
    kinds: I64
    host_left: I64
    host_total: I64
    most: I64
    mix: Mix | None

    @property
    def width(self) -> int:
        """Columns of the GPU arrays: GPUs of the largest node."""
        return int(self.left.shape[1])

    def take(self, rows: NDArray[np.intp]) -> "Case":
        """Return the same question about some of the rows."""
        return Case(
            gpus=self.gpus,
            kind=self.kind,
            milli=self.milli[rows],
            host=self.host[rows],
            left=self.left[rows],
            compute_left=self.compute_left[rows],
            memory_left=self.memory_left[rows],
            open=self.open[rows],
            room=self.room[rows],
            count=self.count[rows],
            kinds=self.kinds[rows],
            host_left=self.host_left[rows],
            host_total=self.host_total[rows],
            most=self.most,
            mix=None if self.mix is None else self.mix.take(rows),
        )

    @property
    def idle(self) -> I64:
        """What is left of all GPUs of each node. Shape (rows,)."""
        total: I64 = self.left.sum(axis=1)
        return total

    @property
    def free(self) -> Bool:
        """GPUs that nobody is on. Shape (rows, width)."""
        free: Bool = self.left == MILLI_PER_GPU
        return free

    def dimensions(self) -> tuple[list[I64], list[I64], list[int]]:
        """Return left, asked and largest, dimension by dimension: all GPUs, then host resources."""
        resources = range(self.host.shape[1])
        left = [self.idle, *(self.host_left[:, r] for r in resources)]
        asked = [self.milli * self.gpus, *(self.host[:, r] for r in resources)]
        return left, asked, [max(1, int(most)) for most in self.most]


class PackingRule(Protocol):
    """A rule: scores nodes, then GPUs of the best node."""

    @property
    def local(self) -> bool:
        """Whether a row's score depends on that row alone, and on no chance."""
        ...

    def score(self, case: Case, rng: Generator) -> F64:
        """Higher is better; looked at only where there is room. Shape (rows,)."""
        ...

    def prefer(self, case: Case, row: int) -> F64:
        """Of the row's GPUs, higher is better; looked at only where open. Shape (width,)."""
        ...


def kind_bit(gpus: int, milli: int) -> int:
    """Return the bit of a kind: none without GPUs, the lowest for a shared GPU, then by number."""
    if gpus == 0:
        return 0
    return 1 if gpus == 1 and milli < MILLI_PER_GPU else 1 << gpus


def tightest(case: Case, row: int) -> F64:
    """Prefer the GPU with the least left. Shape (width,)."""
    preferred: F64 = -case.left[row].astype(np.float64)
    return preferred


def choose_row(score: F64, room: Bool) -> int:
    """Return the first row with the highest score, or -1 where none has room."""
    if not room.any():
        return -1
    return int(np.where(room, score, -np.inf).argmax())


def choose_gpus(rule: PackingRule, case: Case, row: int) -> tuple[int, ...]:
    """Return the columns that the rule prefers on a row, as many as are wanted, ascending."""
    preferred = np.where(case.open[row], rule.prefer(case, row), -np.inf)
    best = np.argsort(-preferred, kind="stable")[: case.gpus]
    return tuple(sorted(best.tolist()))
