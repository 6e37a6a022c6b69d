"""Rules that score columns, at work on a cluster of bins.

The columns hold what `NodeState` holds. A local rule is asked about all rows when a shape comes for
the first time, about each set of equal nodes once; later only about rows that have changed.
"""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from inferx.core.types import F64, I64, Bool
from inferx.core.units import MILLI_PER_GPU
from inferx.policy.packing.case import (
    Case,
    Mix,
    PackingRule,
    choose_gpus,
    choose_row,
    kind_bit,
)
from inferx.policy.packing.fragmentation import TypicalPod
from inferx.policy.packing.shapes import NodeState, PodShape, allowed_models

__all__ = ["ColumnChooser", "case_of_states"]

_WEIGHTS = 1_000_000
"""Shares of typical pods become whole numbers that add up to about this."""


class _Columns:
    """The nodes as arrays; see `Case` for their shapes."""

    def __init__(self, states: Sequence[NodeState], typical: Sequence[TypicalPod]) -> None:
        width = max(len(state.gpus) for state in states)
        self.width = max(1, width)
        self.models, self.model = np.unique([s.model for s in states], return_inverse=True)
        self.left = np.zeros((len(states), self.width), np.int64)
        self.host_left = np.zeros((len(states), 2), np.int64)
        self.kinds = np.zeros(len(states), np.int64)
        self.pods = np.zeros(len(states), np.int64)
        self.count = np.array([len(state.gpus) for state in states], np.int64)
        for row, state in enumerate(states):
            self.update(row, state)
        self.host_total = self.host_left.copy()
        self.most = np.array(
            [MILLI_PER_GPU * int(self.count.max()), *self.host_total.max(axis=0)], np.int64
        )
        share = np.array([pod.share for pod in typical])
        self.mix = Mix(
            weight=np.maximum(1, np.rint(_WEIGHTS * share)).astype(np.int64),
            gpus=np.array([pod.gpus for pod in typical], np.int64),
            milli=np.repeat([[pod.milli] for pod in typical], len(states), axis=1),
            host=np.array([[pod.cpu_milli, 0] for pod in typical], np.int64),
            allowed=np.array([self.allowed(pod.models) for pod in typical], np.bool_),
        )

    def update(self, row: int, state: NodeState) -> None:
        """Take over a node's state."""
        self.left[row, : len(state.gpus)] = state.gpus
        self.host_left[row] = state.cpu_milli, state.memory_mib
        self.pods[row] = state.pods
        bits = 0
        for kind in state.kinds:
            bits |= 1 if kind == "share" else 1 << int(kind.removesuffix("-gpu"))
        self.kinds[row] = bits

    def allowed(self, models: str) -> Bool:
        """Return the nodes whose GPU model will do. Shape (rows,)."""
        if not models:
            return np.ones(len(self.model), np.bool_)
        wanted = np.array([model in allowed_models(models) for model in self.models], np.bool_)
        allowed: Bool = wanted[self.model]
        return allowed

    def case(self, pod: PodShape, rows: NDArray[np.intp] | None = None) -> Case:
        """Return the question that a pod asks of some rows, or of all."""
        some = slice(None) if rows is None else rows
        left, host_left = self.left[some], self.host_left[some]
        host = np.broadcast_to(np.array([pod.cpu_milli, pod.memory_mib]), host_left.shape)
        fits = (host <= host_left).all(axis=1) & (self.pods[some] > 0)
        if pod.models:
            fits &= self.allowed(pod.models)[some]
        least = MILLI_PER_GPU if pod.gpus > 1 else max(1, pod.milli)
        opened = (left >= least) & fits[:, np.newaxis]
        return Case(
            gpus=pod.gpus,
            kind=kind_bit(pod.gpus, pod.milli),
            milli=np.full(len(left), pod.milli, np.int64),
            host=host,
            left=left,
            compute_left=left,
            memory_left=left,
            open=opened,
            room=fits & (opened.sum(axis=1) >= pod.gpus),
            count=self.count[some],
            kinds=self.kinds[some],
            host_left=host_left,
            host_total=self.host_total[some],
            most=self.most,
            mix=self.mix if rows is None else self.mix.take(rows),
        )


def case_of_states(
    pod: PodShape, states: Sequence[NodeState], typical: Sequence[TypicalPod]
) -> Case:
    """Return the question that a pod asks of nodes in these states."""
    return _Columns(states, typical).case(pod)


class ColumnChooser:
    """A rule that scores columns, at work; scores are remembered until their node changes."""

    def __init__(
        self,
        rule: PackingRule,
        nodes: list[NodeState],
        typical: Sequence[TypicalPod],
        rng: Generator,
    ) -> None:
        """Look at `nodes`, which are in the order in which they win ties."""
        self._rule, self._states, self._rng = rule, nodes, rng
        self._columns = _Columns(nodes, typical)
        self._known: dict[PodShape, tuple[F64, int]] = {}
        self._changes: list[int] = []

    def choose(self, pod: PodShape) -> int:
        """Return the first node with the highest score."""
        if not self._rule.local:
            case = self._columns.case(pod)
            return choose_row(self._rule.score(case, self._rng), case.room)
        known = self._known.get(pod)
        if known is None:
            scores = self._all_scores(pod)
        else:
            scores, seen = known
            # A node without room never has room again.
            stale = np.array(sorted(set(self._changes[seen:])), np.intp)
            stale = stale[scores[stale] > -np.inf]
            if len(stale):
                scores[stale] = self._scores(pod, stale)
        self._known[pod] = scores, len(self._changes)
        at = int(scores.argmax())
        return at if scores[at] > -np.inf else -1

    def gpus(self, pod: PodShape, node: int) -> tuple[int, ...]:
        """Return the GPUs that the rule prefers."""
        case = self._columns.case(pod, np.array([node], np.intp))
        return choose_gpus(self._rule, case, 0)

    def changed(self, node: int, state: NodeState) -> None:
        """Take note of a placement."""
        self._states[node] = state
        self._columns.update(node, state)
        self._changes.append(node)

    def _all_scores(self, pod: PodShape) -> F64:
        """Score every node; many are still alike."""
        first: dict[tuple[NodeState, int], int] = {}
        totals: I64 = self._columns.host_total[:, 0]
        alike = [
            first.setdefault((state, total), row)
            for row, (state, total) in enumerate(zip(self._states, totals.tolist(), strict=True))
        ]
        rows = np.array(sorted(set(alike)), np.intp)
        scores = np.full(len(self._states), -np.inf)
        scores[rows] = self._scores(pod, rows)
        all_scores: F64 = scores[np.array(alike, np.intp)]
        return all_scores

    def _scores(self, pod: PodShape, rows: NDArray[np.intp]) -> F64:
        case = self._columns.case(pod, rows)
        scores: F64 = np.full(len(rows), -np.inf)
        fitting = np.flatnonzero(case.room)
        if len(fitting):
            scores[fitting] = self._rule.score(case.take(fitting), self._rng)
        return scores
