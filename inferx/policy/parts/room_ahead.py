"""Empty places on GPUs, kept ahead of starts for as long as they save more waiting than they cost.

A place is a GPU with room for what is likely to start next. A second one on the same GPU is not
worth much: starts on one GPU follow each other. In the time until places are made again, starts
come by chance; the next place on a node is used if one more comes than there are places. What it
saves is held against the worth of the pods that must go for it, least worth first. Ours.
"""

import math
from dataclasses import dataclass

import numpy as np

from inferx.policy import F64, I32, I64, ClusterView, Demote, FunctionId, NodeId, PodState, Tier
from inferx.policy.parts.waiting import RARELY_PER_S, starts_s, waiting_s

__all__ = ["RoomAhead", "place_saves"]

NO_PLACE_S = 1.0
"""What a start without a place waits more: half a second for a kill, longer for a suspension."""
LIKELY = 0.9
"""A place is as large as this share of the starts to come need."""

_LEAVING = np.zeros(len(PodState), np.bool_)
_LEAVING[[PodState.TERMINATING, PodState.SUSPENDING]] = True


def place_saves(starts_per_s: float, places: int, within_s: float) -> float:
    """Return the waiting that one place more saves each second.

    Args:
        starts_per_s: Starts on the node; they come by chance (Poisson).
        places: What is there already.
        within_s: The time in which nothing becomes empty.
    """
    expected = starts_per_s * within_s
    chance, below = math.exp(-expected), 0.0
    for count in range(places + 1):
        below += chance
        chance *= expected / (count + 1)
    return starts_per_s * NO_PLACE_S * max(0.0, 1.0 - below)


@dataclass(frozen=True, slots=True)
class RoomAhead:
    """Lets idle pods go before anybody waits for their places.

    Attributes:
        period_s: How often it is asked.
    """

    period_s: float

    def moves(self, view: ClusterView) -> list[Demote]:
        """Return the pods to let go, node by node, those worth least for their place first.

        Pods of one GPU alone make room, and only such starts are foreseen.
        """
        functions, gpus = view.functions, view.gpus
        rate = np.maximum(functions.arrivals_per_s, RARELY_PER_S)
        absent = (functions.ready + functions.starting == 0) & (functions.last_arrival_ns > 0)
        weight = np.where(absent & (functions.gpus == 1), rate, 0.0)
        if not weight.any():
            return []
        starts = self._starts_per_s(view, weight)
        milli, hbm = _place(view, weight)
        open_: F64 = np.minimum(gpus.milli_free / milli, gpus.hbm_bytes_free / hbm)
        places: I64 = np.bincount(gpus.node[open_ >= 1], minlength=len(starts))
        places += np.bincount(view.pods.node[_LEAVING[view.pods.state]], minlength=len(starts))
        within_s = self.period_s + NO_PLACE_S
        saves = {
            node: place_saves(float(starts[node]), int(places[node]), within_s)
            for node in np.flatnonzero(starts > 0).tolist()
        }
        most = max(saves.values(), default=0.0)
        rows, room, price = self._candidates(view, rate, milli, hbm, below=most)
        moves: list[Demote] = []
        if not len(rows):
            return moves
        there, least = view.pods.node[rows], float(price[0])
        for node, first in saves.items():
            if first <= least:
                continue  # Nobody anywhere is worth so little.
            have = int(places[node])
            mine = there == node
            for row, makes, cost in zip(rows[mine], room[mine], price[mine], strict=True):
                gpu = int(view.pods.gpu[row, 0])
                if open_[gpu] >= 1:
                    continue
                if place_saves(float(starts[node]), have, within_s) <= cost:
                    break
                gone = FunctionId(int(view.pods.function[row]))
                moves.append(Demote(gone, NodeId(node), Tier.HBM))
                open_[gpu] += makes
                have += int(open_[gpu] >= 1)
        return moves

    @staticmethod
    def _starts_per_s(view: ClusterView, weight: F64) -> F64:
        """Return how many starts a second each node may expect: of those whose state lies there.

        Shape (nodes,).
        """
        pods = view.pods
        there = pods.function[pods.standby]
        share = weight[there] / np.maximum(view.functions.copies, 1)[there]
        nodes = len(view.nodes.specs)
        starts = np.bincount(pods.node[pods.standby], weights=share, minlength=nodes)
        return starts.astype(np.float64)

    @staticmethod
    def _candidates(
        view: ClusterView, rate: F64, milli: float, hbm: float, *, below: float
    ) -> tuple[I64, F64, F64]:
        """Return who may go, how much of a place that makes, and its worth by the place.

        Those worth less than `below` alone, the cheapest first; shape (candidates,) each.
        """
        pods, functions = view.pods, view.functions
        spare = functions.ready > functions.min_replica
        idle = pods.idle & (pods.gpu[:, 0] >= 0) & (pods.gpu[:, 1] < 0)
        rows = np.flatnonzero(idle & spare[np.maximum(pods.function, 0)])
        worth = rate * waiting_s(rate, starts_s(view, Tier.DRAM))
        makes = np.minimum(pods.milli_gpu[rows] / milli, pods.hbm_bytes[rows] / hbm)
        room: F64 = np.clip(makes, 1e-3, 1.0)
        price = worth[pods.function[rows]] / room
        cheap = np.flatnonzero(price < below)
        order = cheap[np.argsort(price[cheap], kind="stable")]
        return rows[order], room[order], price[order]


def _place(view: ClusterView, weight: F64) -> tuple[float, float]:
    """Return the compute and the memory that most of the starts to come need."""
    functions = view.functions
    return _quantile(functions.milli_gpu, weight), _quantile(functions.hbm_bytes, weight)


def _quantile(values: I32 | I64, weight: F64) -> float:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(reached, LIKELY * reached[-1])])
