"""The loop: pods arrive one by one, each goes to the best node that has room, or is turned away.

Laws:
1. Nobody leaves, nobody is tried again. A pod that is turned away has arrived all the same.
2. The highest score wins; of equal ones the node with the lowest rank.
3. A score depends on the pod's shape and the node's state alone, so it is asked once for each pair:
   a placement makes the scores of one node stale. Rules that look at all nodes say so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.random import Generator

from inferx.core.types import I32
from inferx.policy.packing.fragmentation import Fragmentation
from inferx.policy.packing.published import PublishedRandom, PublishedRule
from inferx.policy.packing.shapes import NodeState, PodShape, fits, placed
from inferx.sim.packing.curves import Curves, bin_curves

__all__ = ["Chooser", "Packed", "PublishedChooser", "pack"]

_NO_FIT: Final = -1


@dataclass(frozen=True, slots=True)
class Packed:
    """One run: its curves, and where each arrival went (row of the node list, or -1)."""

    curves: Curves
    nodes: tuple[int, ...]


class Chooser(Protocol):
    """A rule at work on one cluster; it sees every placement."""

    def choose(self, pod: PodShape) -> int:
        """Return the node for a pod, or -1 where it fits none."""
        ...

    def gpus(self, pod: PodShape, node: int) -> tuple[int, ...]:
        """Return the GPUs of the chosen node; asked for pods with GPUs."""
        ...

    def changed(self, node: int, state: NodeState) -> None:
        """Take note of a placement."""
        ...


def pack(
    arrivals: Sequence[PodShape],
    nodes: Sequence[NodeState],
    rank: Sequence[int],
    at_work: Callable[[list[NodeState]], Chooser],
    measure: Fragmentation,
) -> Packed:
    """Replay arrivals under a rule.

    Args:
        arrivals: Shapes, in the order of arrival.
        nodes: Empty nodes.
        rank: Of each node; the lower one wins a tie.
        at_work: Puts a rule to work on nodes that are in the order of their rank.
        measure: What counts as a fragment.
    """
    # By rank, so that the first of the best is the one that wins.
    rows = sorted(range(len(nodes)), key=rank.__getitem__)
    states = [nodes[row] for row in rows]
    chooser = at_work(list(states))
    fragments = [measure.of_node(state) for state in states]
    used_milli, arrived_milli, fragment = 0, 0, sum(fragments)
    used: list[int] = []
    arrived: list[int] = []
    fragmented: list[float] = []
    where: list[int] = []
    for pod in arrivals:
        arrived_milli += pod.milli * pod.gpus
        at = chooser.choose(pod)
        if at >= 0:
            gpus = chooser.gpus(pod, at) if pod.gpus else ()
            state = states[at] = placed(pod, states[at], gpus)
            chooser.changed(at, state)
            used_milli += pod.milli * pod.gpus
            fragment -= fragments[at]
            fragments[at] = measure.of_node(state)
            fragment += fragments[at]
        arrived.append(arrived_milli)
        used.append(used_milli)
        fragmented.append(fragment)
        where.append(rows[at] if at >= 0 else -1)
    curves = bin_curves(
        np.array(arrived, np.int64),
        np.array(used, np.int64),
        np.array(fragmented, np.float64),
        sum(len(state.gpus) for state in nodes),
    )
    return Packed(curves, tuple(where))


class _Known:
    """What is known of one shape: a score for each node, and up to which change."""

    __slots__ = ("scores", "seen")

    def __init__(self, scores: I32, seen: int) -> None:
        self.scores = scores
        self.seen = seen


class PublishedChooser:
    """A published rule, asked node by node; every score is remembered until its node changes."""

    def __init__(self, rule: PublishedRule, nodes: list[NodeState], rng: Generator) -> None:
        """Look at `nodes`, which are in the order in which they win ties."""
        self._rule, self._states, self._rng = rule, nodes, rng
        self._draws = isinstance(rule, PublishedRandom)
        self._known: dict[PodShape, _Known] = {}
        self._changes: list[int] = []
        # Equal states have equal numbers, which are cheaper to compare than states.
        self._number_of: dict[NodeState, int] = {}
        self._numbers = np.array([self._number(state) for state in nodes], np.int64)

    def choose(self, pod: PodShape) -> int:
        """Return the first node with the highest score."""
        known = self._known.get(pod)
        if known is None:
            known = self._known[pod] = _Known(self._all_scores(pod), len(self._changes))
        elif known.seen < len(self._changes):
            self._refresh(known, pod)
        scores = known.scores
        if self._draws:
            fitting = np.flatnonzero(scores != _NO_FIT)
            return int(fitting[self._rng.integers(len(fitting))]) if len(fitting) else -1
        at = int(scores.argmax())
        return at if scores[at] != _NO_FIT else -1

    def gpus(self, pod: PodShape, node: int) -> tuple[int, ...]:
        """Return the GPUs that the rule picks."""
        return self._rule.gpus(pod, self._states[node], self._rng)

    def changed(self, node: int, state: NodeState) -> None:
        """Take note of a placement."""
        self._states[node] = state
        self._numbers[node] = self._number(state)
        self._changes.append(node)

    def _number(self, state: NodeState) -> int:
        return self._number_of.setdefault(state, len(self._number_of))

    def _all_scores(self, pod: PodShape) -> I32:
        """Score every node; many are still alike."""
        _, first, alike = np.unique(self._numbers, return_index=True, return_inverse=True)
        shown: list[int] = first.tolist()
        scores = [self._score(pod, self._states[at]) for at in shown]
        return np.array(scores, np.int32)[alike]

    def _refresh(self, known: _Known, pod: PodShape) -> None:
        """Score the nodes that have changed; one without room never has room again."""
        scores, states = known.scores, self._states
        stale = np.array(list(set(self._changes[known.seen :])), np.intp)
        stale = stale[scores[stale] != _NO_FIT]
        changed: list[int] = stale.tolist()
        scores[stale] = [self._score(pod, states[at]) for at in changed]
        known.seen = len(self._changes)

    def _score(self, pod: PodShape, state: NodeState) -> int:
        return self._rule.score(pod, state) if fits(pod, state) else _NO_FIT
