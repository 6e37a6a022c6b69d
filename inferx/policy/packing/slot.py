"""Packing rules in the placement slot: a view becomes a case, the chosen row becomes GPUs.

What a slice takes of a GPU is the larger of its share of compute and its share of memory. The only
host resource is memory. What usually comes is the functions that are deployed, by how often they
are asked for; a function that nobody has asked for yet counts a little.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from inferx.policy import (
    I64,
    MIB,
    MILLI_PER_GPU,
    Bool,
    ClusterView,
    Defer,
    FunctionSpec,
    GpuId,
    Place,
    Want,
)
from inferx.policy.packing.case import (
    Case,
    Mix,
    PackingRule,
    choose_gpus,
    choose_row,
    kind_bit,
)

__all__ = ["case_of_view", "place_by"]

_NO_FIT = Defer("no GPU fits")
_KINDS = 32
"""Most kinds of a mix; rarer ones are left out."""
_WEIGHTS = 1_000_000
"""Weights of a mix are whole and add up to about this."""
_UNASKED_PER_S = 1e-6


def place_by(
    rule: PackingRule, want: Want, view: ClusterView, rng: Generator, *, mixed: bool = False
) -> Place | Defer:
    """Return what a rule chooses; `mixed` says whether it asks what usually comes."""
    case = case_of_view(want, view, mixed=mixed)
    row = choose_row(rule.score(case, rng), case.room)
    if row < 0:
        return _NO_FIT
    first = int(np.searchsorted(view.gpus.node, row))
    return Place(tuple(GpuId(first + gpu) for gpu in choose_gpus(rule, case, row)))


def case_of_view(want: Want, view: ClusterView, *, mixed: bool) -> Case:
    """Return the question that a want asks of a cluster."""
    gpus, nodes = view.gpus, view.nodes
    grid = _Grid(gpus.node, len(nodes.specs))
    memory = grid.spread(_milli_down(gpus.hbm_bytes_free, gpus.hbm_bytes_total))
    compute = grid.spread(np.maximum(gpus.milli_free, 0).astype(np.int64))
    hbm_total = grid.spread(gpus.hbm_bytes_total).max(axis=1, initial=1)
    milli = np.maximum(want.milli_gpu, _milli_up(want.hbm_bytes, hbm_total))
    fitting = grid.spread(view.fits(want).astype(np.int64)).astype(np.bool_)
    host_total = nodes.host_bytes_total[:, np.newaxis] // MIB
    count = grid.counts
    return Case(
        gpus=want.gpus,
        kind=kind_bit(want.gpus, want.milli_gpu),
        milli=milli,
        host=np.full((len(count), 1), want.host_bytes // MIB, np.int64),
        left=np.minimum(memory, compute),
        compute_left=compute,
        memory_left=memory,
        open=fitting,
        room=fitting.sum(axis=1) >= want.gpus,
        count=count,
        kinds=_kinds(view),
        host_left=nodes.host_bytes_free[:, np.newaxis] // MIB,
        host_total=host_total,
        most=np.array([MILLI_PER_GPU * count.max(), host_total.max()], np.int64),
        mix=_mix(view, hbm_total) if mixed else None,
    )


@dataclass(frozen=True, slots=True)
class _Grid:
    """GPUs of each node side by side; a node's GPUs are neighbours in the view."""

    node: np.ndarray
    nodes: int

    @property
    def counts(self) -> I64:
        counts: I64 = np.bincount(self.node, minlength=self.nodes).astype(np.int64)
        return counts

    def spread(self, column: np.ndarray) -> I64:
        """Return a column of GPUs as a row a node; 0 where there is no GPU."""
        counts = self.counts
        first = np.cumsum(counts) - counts
        grid = np.zeros((self.nodes, int(counts.max())), np.int64)
        grid[self.node, np.arange(len(self.node)) - first[self.node]] = column
        return grid


def _milli_down(part: I64, whole: I64) -> I64:
    milli: I64 = np.maximum(part, 0) * MILLI_PER_GPU // whole
    return milli


def _milli_up(part: int, whole: I64) -> I64:
    milli: I64 = -(-part * MILLI_PER_GPU // whole)
    return milli


def _kinds(view: ClusterView) -> I64:
    """Return which kinds of pods hold each node's GPUs."""
    pods = view.pods
    held = pods.gpu[:, 0] >= 0
    number = (pods.gpu[held] >= 0).sum(axis=1)
    shares = (number == 1) & (pods.milli_gpu[held] < MILLI_PER_GPU)
    kinds = np.zeros(len(view.nodes.specs), np.int64)
    np.bitwise_or.at(kinds, pods.node[held], np.where(shares, 1, 1 << number))
    return kinds


def _mix(view: ClusterView, hbm_total: I64) -> Mix:
    """Return the most frequent shapes among the functions."""
    rates = view.functions.arrivals_per_s + _UNASKED_PER_S
    weights: dict[tuple[int, int, int, int, str], float] = {}
    for spec, rate in zip(view.functions.specs, rates.tolist(), strict=True):
        shape = _shape(spec)
        weights[shape] = weights.get(shape, 0.0) + rate
    # Of equal ones the larger shape first: no order of functions decides.
    kept = sorted(((rate, shape) for shape, rate in weights.items()), reverse=True)[:_KINDS]
    rate_of = np.array([rate for rate, _ in kept])
    shapes = [shape for _, shape in kept]
    milli = [np.maximum(shape[1], _milli_up(shape[2], hbm_total)) for shape in shapes]
    return Mix(
        weight=np.maximum(1, np.rint(_WEIGHTS * rate_of / rate_of.sum())).astype(np.int64),
        gpus=np.array([shape[0] for shape in shapes], np.int64),
        milli=np.array(milli, np.int64),
        host=np.array([[shape[3] // MIB] for shape in shapes], np.int64),
        allowed=np.array([_allowed(view, shape[4]) for shape in shapes], np.bool_),
    )


def _shape(spec: FunctionSpec) -> tuple[int, int, int, int, str]:
    return spec.gpus, spec.milli_gpu, spec.hbm_bytes, spec.host_bytes, spec.gpu_type


def _allowed(view: ClusterView, gpu_type: str) -> Bool:
    """Return the nodes whose GPU model will do. Shape (nodes,)."""
    return np.array([gpu_type in {"Any", node.gpu_type} for node in view.nodes.specs], np.bool_)
