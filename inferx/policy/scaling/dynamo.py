"""Dynamo's load planner: one worker more when all are over, one fewer if those left can bear it.

Source: repository ai-dynamo/dynamo at 0c6da1e,
`components/src/dynamo/planner/core/load_scaling.py` (`_scale_decision`, `_decode_load_decision`),
and pull request 9294 of the same, which says what the rule is for: a flat threshold let two workers
at 70 % become one at 140 %, which became two again, without end. A decision every 5 s; none while
workers start.
    up, N -> N + 1:    utilisation > 1
    down, N -> N - 1:  utilisation N / (N - 1) < 0.8
`consolidation=false` is the former rule, down where utilisation < 0.8.

Differs: utilisation is requests inside over slots, averaged over the interval, where Dynamo
predicts latency a worker by regression and compares it with its objective; one kind of worker, not
prefill and decode; no throughput loop and its forecasts. Dynamo keeps at least one worker: here the
last leaves after `idle_s` without a request, and requests wake the function. Idle pods stay until
the rule takes them, or an eviction for a waiting request.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from inferx.policy import (
    F64,
    I32,
    NS_PER_S,
    ClusterView,
    FunctionId,
    PolicyBundle,
    plain,
)
from inferx.policy.parts.load_window import LoadWindow
from inferx.policy.parts.room import autoscaled, within_room

__all__ = ["LoadPlanner", "bundle"]


@dataclass(slots=True)
class LoadPlanner:
    """Steps by one pod; downwards only if the others can take over the load."""

    sensitivity: float
    consolidation: bool
    idle_s: float
    window: LoadWindow
    _targets: I32 = field(default_factory=lambda: np.zeros(0, np.int32))

    def observe(self, now_ns: int, event: object) -> None:
        """Learn the load."""
        self.window.observe(now_ns, event)

    def step(self, pods: I32, utilisation: F64) -> I32:
        """Return the pods wanted of those that are there, at least one each. Shape (functions,)."""
        left = np.maximum(pods - 1, 1)
        after = utilisation * pods / left if self.consolidation else utilisation
        fewer = (pods > 1) & (after < self.sensitivity)
        wanted: I32 = (pods + (utilisation > 1) - fewer).astype(np.int32)
        return wanted

    def target(self, function: FunctionId, view: ClusterView) -> int:
        """Return the latest target; one where it is zero, for somebody asks."""
        return max(1, int(self._targets[function])) if function < len(self._targets) else 1

    def targets(self, view: ClusterView) -> I32:
        """Return the pods wanted. Shape (functions,)."""
        functions = view.functions
        self.window.grow(len(functions.specs))
        inside, _ = self.window.means(view.now_ns)
        ready = functions.ready
        utilisation = inside / (np.maximum(ready, 1) * functions.slots)
        live = ready + functions.starting
        settled = (functions.starting == 0) & (ready > 0)
        wanted = np.where(settled, self.step(ready, utilisation), live)
        wanted[self.window.quiet(self.idle_s, view)] = 0
        self._targets = wanted.astype(np.int32)
        return within_room(self._targets, view)


def bundle(
    sensitivity: float = 0.8,
    interval_s: int = 5,
    idle_s: float = 60.0,
    consolidation: bool = True,  # noqa: FBT001, FBT002 - a setting, given by name.
) -> PolicyBundle:
    """Return the bundle with Dynamo's defaults.

    Args:
        sensitivity: Utilisation of those left below which one may go, above 0, at most 1.
        interval_s: Seconds between decisions, over which load is averaged, 1 to 3,600.
        idle_s: After so long without a request the last pod leaves, 0 to a day.
        consolidation: Whether a fall asks for the utilisation of those left.

    Raises:
        ValueError: A setting is out of its range.
    """
    if not 0 < sensitivity <= 1:
        raise ValueError(f"sensitivity is {sensitivity:g}; expected above 0, at most 1")
    if not 1 <= interval_s <= 3_600:
        raise ValueError(f"interval_s is {interval_s}; expected 1 to 3600")
    if not 0 <= idle_s <= 86_400:
        raise ValueError(f"idle_s is {idle_s:g}; expected 0 to 86400")
    planner = LoadPlanner(sensitivity, consolidation, idle_s, LoadWindow(interval_s))
    kept = replace(plain.bundle(), scaling=planner, observers=(planner,))
    return autoscaled(
        kept,
        "dynamo",
        control_period_ns=interval_s * NS_PER_S,
        settle_ns=int((idle_s + 2 * interval_s + 10) * NS_PER_S),
    )
