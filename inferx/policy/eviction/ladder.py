"""The preemption ladder: suspend, checkpoint, make room in host memory, move, kill.

Ours: rungs in the order of what they take from whoever is on them, each with the cheapest set of
victims. A rung is stepped on only where those above make no room.

1. Idle pods leave their GPU: to host memory while it has room (suspend), else to the disk
   (checkpoint).
2. The same where the node lacks host memory for the newcomer: suspended pods go to the disk too.
3. Once the want has waited for `drain_after_s`: busy pods whose functions fit on a GPU elsewhere
   (move). They serve what they have begun; their later requests start a pod elsewhere.
4. Any busy pods (kill). They serve what they have begun, and keep no state but what lies there.

What a victim costs is the expected time that its function waits for it, in microseconds: the
probability that it is asked for within `horizon_s`, one for a busy pod, times the estimated start
from where its state goes, or elsewhere on rung 3. Costs of a plan are added and the least is taken,
see `parts.victims`; no function is left with fewer ready pods than its `min_replica`, and a pod
that has been ready for less than `grace_s` is not drained.

Differs from what a ladder could be: requests in service are not moved, for the kernel drains a pod
before it leaves; places for pods of rung 3 are looked for, not reserved; a suspended pod that makes
room on rung 2 is chosen after the idle ones, not together with them; the time that a victim takes
to leave is not counted.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from inferx.policy import (
    F64,
    I64,
    MIB,
    NS_PER_S,
    Bool,
    ClusterView,
    Defer,
    Evict,
    FunctionId,
    PolicyBundle,
    Tier,
    Want,
    plain,
    want_of,
)
from inferx.policy.parts.coming_back import back_s, below
from inferx.policy.parts.covering import cover, items_of, rows_of
from inferx.policy.parts.host_memory import roomy_nodes, tiers_of
from inferx.policy.parts.victims import Plan, cheapest_plan

__all__ = ["Ladder", "bundle"]

_NO_VICTIMS = Defer("no victims suffice")


@dataclass(frozen=True, slots=True)
class Ladder:
    """Steps down from rung to rung until one makes room."""

    horizon_s: float
    drain_after_ns: int
    grace_ns: int
    unit_bytes: int

    def evict(self, want: Want, view: ClusterView, rng: Generator) -> Evict | Defer:
        """Return the cheapest plan of the first rung that has one."""
        pods = view.pods
        idle = np.flatnonzero(pods.idle & (pods.gpu[:, 0] >= 0))
        cost = self.cost(idle, view)
        roomy = roomy_nodes(want, view)
        plan = self._cheapest(want, view, idle, cost, roomy)
        if plan is None and not roomy.all():
            plan = self._host_memory(want, view, idle, cost, ~roomy)
        if plan is None and view.now_ns - want.since_ns >= self.drain_after_ns:
            plan = self._drain(want, view, idle, cost, roomy)
        return _NO_VICTIMS if plan is None else plan

    def cost(self, rows: I64, view: ClusterView) -> I64:
        """Return what losing each idle pod costs, in us; 0 elsewhere. Shape (rows of pods,)."""
        pods = view.pods
        size = view.functions.device_bytes[pods.function[rows]]
        suspends = view.nodes.host_bytes_free[pods.node[rows]] >= size
        tiers = np.full(len(rows), int(Tier.DRAM), np.int32)
        tiers[~suspends] = below(view, rows[~suspends], writes=True)
        cost = np.zeros(len(pods.id), np.int64)
        cost[rows] = _us(self._asked(rows, view) * back_s(view, rows, tiers))
        return cost

    def _asked(self, rows: I64, view: ClusterView) -> F64:
        """Return the probability that each pod's function is asked for within the horizon."""
        rate = view.functions.arrivals_per_s[view.pods.function[rows]]
        asked: F64 = -np.expm1(-rate * self.horizon_s)
        return asked

    def _cheapest(
        self, want: Want, view: ClusterView, rows: I64, cost: I64, nodes: Bool
    ) -> Evict | None:
        plan = cheapest_plan(want, view, rows, cost, self.unit_bytes, nodes)
        return None if plan is None else _sent(want, view, plan, cost, ())

    # -- rung 2 ---
    def _host_memory(
        self, want: Want, view: ClusterView, idle: I64, cost: I64, short: Bool
    ) -> Evict | None:
        """Return a plan for nodes that lack host memory: suspended pods leave it as well."""
        pods, nodes = view.pods, view.nodes
        standby = np.flatnonzero(pods.standby & (pods.function != want.function))
        held = np.bincount(pods.node[standby], pods.host_bytes[standby], len(nodes.specs))
        could = short & (nodes.host_bytes_free + held >= want.host_bytes)
        plan = cheapest_plan(want, view, idle, cost, self.unit_bytes, could)
        if plan is None:
            return None
        node = int(view.gpus.node[plan.gpus[0]])
        freed = int(pods.host_bytes[list(plan.rows)].sum())
        lacks = want.host_bytes - int(nodes.host_bytes_free[node]) - freed
        rows = standby[pods.node[standby] == node]
        near = back_s(view, rows, np.full(len(rows), int(Tier.DRAM), np.int32))
        far = back_s(view, rows, below(view, rows, writes=True))
        colder = _us(self._asked(rows, view) * np.maximum(0.0, far - near))
        units = pods.host_bytes[rows] // self.unit_bytes
        items = items_of(rows, units, np.zeros(len(rows), np.int64), colder)
        value = cover((max(0, -(-lacks // self.unit_bytes)), 0), items, None)
        return None if value is None else _sent(want, view, plan, cost, rows_of(value, items))

    # -- rungs 3 and 4 ---
    def _drain(
        self, want: Want, view: ClusterView, idle: I64, cost: I64, nodes: Bool
    ) -> Evict | None:
        """Return a plan with busy pods: those that find another place, else any."""
        pods = view.pods
        settled = pods.ready & ~pods.idle & (view.now_ns - pods.ready_ns >= self.grace_ns)
        busy = np.flatnonzero(settled & (pods.function != want.function))
        least_s = {f: _elsewhere_s(FunctionId(f), view) for f in set(pods.function[busy].tolist())}
        elsewhere = np.array([least_s[f] for f in pods.function[busy].tolist()])
        finds = np.isfinite(elsewhere)
        cost[busy[finds]] = _us(elsewhere[finds])
        moving = np.sort(np.concatenate((idle, busy[finds])))
        plan = self._cheapest(want, view, moving, cost, nodes)
        if plan is not None:
            return plan
        cost[busy] = _us(back_s(view, busy, below(view, busy, writes=False)))
        plan = self._cheapest(want, view, np.sort(np.concatenate((idle, busy))), cost, nodes)
        if plan is None:
            return None
        killed = {int(pod) for pod in pods.id[busy]}
        victims = ((pod, Tier.ABSENT if pod in killed else to) for pod, to in plan.victims)
        return Evict(plan.gpus, tuple(victims))


def _us(seconds: F64) -> I64:
    """Return costs in microseconds, of which each is at least one: fewer victims are better."""
    costs: I64 = 1 + np.rint(1e6 * seconds).astype(np.int64)
    return costs


def _sent(
    want: Want, view: ClusterView, plan: Plan, cost: I64, suspended: tuple[int, ...]
) -> Evict | None:
    """Return a plan with a tier for each victim; suspended pods go to the disk first of all."""
    if not plan.rows and not suspended:
        return None
    dearest = sorted(plan.rows, key=lambda row: (-int(cost[row]), row))
    node = int(view.gpus.node[plan.gpus[0]])
    victims = tiers_of(want, view, node, [*dearest, *suspended])
    return None if victims is None else Evict(plan.gpus, victims)


def _elsewhere_s(function: FunctionId, view: ClusterView) -> float:
    """Return the least expected time to ready on a GPU that has room for the function now."""
    spec = view.spec(function)
    want = want_of(function, spec)
    fits = view.fits(want)
    return float(view.restore_ns(function)[fits].min()) / NS_PER_S if fits.any() else np.inf


def bundle(
    horizon_s: float = 300.0,
    drain_after_s: float = 10.0,
    grace_s: float = 40.0,
    unit_mib: int = 256,
) -> PolicyBundle:
    """Return the plain bundle with the ladder.

    Args:
        horizon_s: How far ahead a victim's function is expected back, above 0.
        drain_after_s: How long a want waits before busy pods are drained for it.
        grace_s: How long a pod has been ready before it may be drained.
        unit_mib: Granularity of memory.

    Raises:
        ValueError: A setting is out of its range.
    """
    if not 0 < horizon_s <= 1e9:
        raise ValueError(f"horizon_s is {horizon_s:g}; expected above 0, at most 1e9")
    if not 0 <= drain_after_s <= 1e9:
        raise ValueError(f"drain_after_s is {drain_after_s:g}; expected 0 to 1e9")
    if not 0 <= grace_s <= 1e9:
        raise ValueError(f"grace_s is {grace_s:g}; expected 0 to 1e9")
    if not 1 <= unit_mib <= 65_536:
        raise ValueError(f"unit_mib is {unit_mib}; expected 1 to 65536")
    ladder = Ladder(
        horizon_s, int(drain_after_s * NS_PER_S), int(grace_s * NS_PER_S), unit_mib * MIB
    )
    return dataclasses.replace(plain.bundle(), name="ladder", eviction=ladder)
