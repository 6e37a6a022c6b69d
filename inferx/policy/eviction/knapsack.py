"""Minimum-cost victim sets: of all sets of idle pods that make room, the cheapest.

Source: the covering (minimisation) knapsack, the complement of the 0-1 knapsack of Martello and
Toth, "Knapsack Problems", 1990, chapter 2, example 2.2: who stays is a knapsack that fills what the
newcomer leaves free. ServerlessLLM chooses whom to migrate by the same dynamic program, over a
shortage of whole GPUs: repository ServerlessLLM/ServerlessLLM at 9f50241,
`sllm/schedulers/storage_aware_scheduler.py`, get_migration_plans.

- Cost of a pod: the bytes a second that its function is expected to move back to a GPU, its arrival
  rate times its GPU state, plus one: of pods that nobody asks for, few are better than many.
- For one slice the best set on any one GPU; for several the best on any one node.
- Who leaves goes to host memory while it has room, the dearest first, else to the disk.

Differs: memory and compute instead of whole GPUs, memory in units of `unit_mib`; idle pods are
evicted, where the original moves running ones to other servers; its cost of a pod is the seconds
that resuming and loading it elsewhere take, and its program picks up the best target on the way;
the original accepts a set only if it frees the shortage and no more than its table has columns,
so that instances of several GPUs may find no plan where they overshoot: ours may overshoot.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from inferx.policy import MIB, ClusterView, Defer, Evict, PolicyBundle, Want, plain
from inferx.policy.parts.host_memory import roomy_nodes, tiers_of
from inferx.policy.parts.victims import cheapest_plan

__all__ = ["MinimumCostVictims", "bundle"]

_NO_VICTIMS = Defer("no victims suffice")


@dataclass(frozen=True, slots=True)
class MinimumCostVictims:
    """Evicts the cheapest set of idle pods that suffices."""

    unit_bytes: int

    def evict(self, want: Want, view: ClusterView, rng: Generator) -> Evict | Defer:
        """Return the cheapest plan; nodes that lack host memory too are asked last.

        Of those the cheapest plan alone is tried, for its victims must give back enough of it.
        """
        pods, functions = view.pods, view.functions
        idle = np.flatnonzero(pods.idle & (pods.gpu[:, 0] >= 0))
        moved = functions.arrivals_per_s * functions.device_bytes
        cost = 1 + moved.astype(np.int64)[pods.function]
        roomy = roomy_nodes(want, view)
        for nodes in (roomy, ~roomy):
            plan = cheapest_plan(want, view, idle, cost, self.unit_bytes, nodes)
            if plan is not None and plan.rows:
                node = int(view.gpus.node[plan.gpus[0]])
                dearest = sorted(plan.rows, key=lambda row: (-int(cost[row]), row))
                victims = tiers_of(want, view, node, dearest)
                if victims is not None:
                    return Evict(plan.gpus, victims)
        return _NO_VICTIMS


def bundle(unit_mib: int = 256) -> PolicyBundle:
    """Return the plain bundle with minimum-cost victims; `unit_mib` is memory's granularity.

    Raises:
        ValueError: The granularity is no size.
    """
    if not 1 <= unit_mib <= 65_536:
        raise ValueError(f"unit_mib is {unit_mib}; expected 1 to 65536")
    return dataclasses.replace(
        plain.bundle(), name="knapsack", eviction=MinimumCostVictims(unit_mib * MIB)
    )
