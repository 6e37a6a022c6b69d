"""GPUs and host memory together: what must fit of functions kept on GPUs, and of those kept at all.

A function whose state is kept is on GPUs or lies suspended in host memory, and may go from one to
the other. Each inequality of the GPUs is added to the sum over host memory; there, a function that
may be in either counts where it takes less. The weight of the first is the one at which half of the
functions take less on GPUs: any is right, none is always the best.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inferx.core.types import F64, FunctionSpec, NodeSpec
from inferx.sim.oracle.room import Room

__all__ = ["Tiers", "gpus_alone", "tiers_of"]


@dataclass(frozen=True, slots=True)
class Tiers:
    """Inequalities `on_gpus @ awake[i] + either @ either[i] <= total[i]`, met at any instant."""

    awake: F64
    """Of a function that is on GPUs. Shape (inequalities, functions)."""
    either: F64
    """Of another one, whose state is on GPUs or in host memory. Shape (inequalities, functions)."""
    total: F64
    """Shape (inequalities,)."""
    asleep: F64
    """A suspended pod's share of all host memory. Shape (functions,)."""


def gpus_alone(room: Room) -> Tiers:
    """Return a room's inequalities, as if suspended pods took nothing."""
    nothing = np.zeros_like(room.taken)
    return Tiers(room.taken, nothing, room.total, nothing.sum(axis=0))


def tiers_of(functions: Sequence[FunctionSpec], nodes: Sequence[NodeSpec], room: Room) -> Tiers:
    """Return a cluster's inequalities: the room's, and each of them with host memory added."""
    host = sum(node.host_bytes for node in nodes)
    live = np.array([f.host_bytes for f in functions], np.float64) / host
    asleep = np.array([f.host_bytes + f.device_bytes for f in functions], np.float64) / host
    share = room.taken / room.total[:, None]
    takes = share > 0
    even = np.where(takes, (asleep - live) / np.where(takes, share, 1.0), np.nan)
    weight = np.nanmedian(even, axis=1)
    both = weight[:, None] * share + live
    return Tiers(
        awake=np.concatenate([room.taken, both]),
        either=np.concatenate([np.zeros_like(share), np.minimum(both, asleep)]),
        total=np.concatenate([room.total, weight + 1.0]),
        asleep=asleep,
    )
