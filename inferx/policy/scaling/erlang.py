"""Queueing theory: the fewest pods with which few requests wait longer than they may.

Source: Erlang's C formula for M/M/c (A. K. Erlang, 1917; Kleinrock, "Queueing Systems", vol. 1,
1975, section 3.5), with B from its recursion in the number of servers; for M/G/c the Allen-Cunneen
approximation (A. O. Allen, "Probability, Statistics and Queueing Theory", 1978), which multiplies
the waits of M/M/c by (Ca^2 + Cs^2) / 2. With `a` the offered load in erlangs, S the mean service
time and c slots:
    1 / B(c, a) = 1 + (c / a) / B(c - 1, a),   C = c B / (c - a (1 - B))
    P(W > t) = C exp(-(c - a) t / (S v)),      v = (Ca^2 + Cs^2) / 2
Both inputs are measured: `a` is the mean number in service and, by Little's law, S = a / arrivals.
Wanted is the least number of pods whose slots have P(W > slack) <= epsilon. Between
decisions, requests that lack slots get as many pods as they fill. Rule and defaults ours.

Differs: the exponential tail is exact for M/M/c alone; service times are taken not to depend on how
many requests share a pod; while requests wait for a pod to start, `a` underestimates, so waiting
ones count as in service. The last pod leaves after `idle_s` without a request; idle pods stay until
the rule takes them, or an eviction for a waiting request.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from inferx.policy import (
    F64,
    I32,
    I64,
    NS_PER_S,
    ClusterView,
    FunctionId,
    PolicyBundle,
    plain,
)
from inferx.policy.basics import pods_needed
from inferx.policy.parts.load_window import LoadWindow
from inferx.policy.parts.room import autoscaled, within_room

__all__ = ["ErlangScaler", "bundle", "erlang_c", "fewest_pods"]


def erlang_c(servers: int, offered: float) -> float:
    """Return the probability of waiting in M/M/c; one where the load is no less than the servers.

    Cost: O(servers).
    """
    if offered >= servers:
        return 1.0
    inverse = 1.0
    for n in range(1, servers + 1):
        inverse = 1.0 + inverse * n / offered if offered > 0 else np.inf
    return _waits(servers, offered, inverse)


def _waits(servers: int, offered: float, inverse: float) -> float:
    blocked = 1.0 / inverse
    return servers * blocked / (servers - offered * (1.0 - blocked))


def fewest_pods(
    offered: F64, service_s: F64, slots: I64, most: I64, *, slack_s: float, epsilon: float
) -> I64:
    """Return the least pods with which P(W > slack) is at most epsilon, or `most`.

    Args:
        offered: Load in erlangs, above 0. Shape (functions,).
        service_s: Mean service time times the variability. Shape (functions,).
        slots: Servers a pod has. Shape (functions,).
        most: No function gets more pods, at least 1. Shape (functions,).
        slack_s: How long a request may wait.
        epsilon: Share of requests that may wait longer.

    Cost: one pass over the functions for each slot of the largest answer.
    """
    pods = most.copy()
    left = np.arange(len(offered))
    inverse = np.ones(len(offered))
    a, each, n = offered, slots, 0
    # Nothing is asked between whole pods: the recursion runs through, the tail is looked at there.
    stride = int(np.gcd.reduce(slots)) if len(slots) else 1
    over_a = 1.0 / offered
    while len(left):
        n += 1
        with np.errstate(over="ignore"):
            inverse *= n * over_a
        inverse += 1.0
        if n % stride:
            continue
        whole = n % each == 0
        blocked = 1.0 / inverse
        room = n - a
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            waits = n * blocked / (room + a * blocked)
            tail = waits * np.exp(-room * slack_s / service_s[left])
        enough = whole & (room > 0) & (tail <= epsilon)
        pods[left[enough]] = np.minimum(n // each, most[left])[enough]
        stays = ~enough & (n < most[left] * each)
        if not stays.all():
            left, inverse, over_a = left[stays], inverse[stays], over_a[stays]
            a, each = a[stays], each[stays]
    return pods


@dataclass(slots=True)
class ErlangScaler:
    """Wants the fewest pods that keep waits short."""

    slack_s: float
    epsilon: float
    variability: float
    idle_s: float
    window: LoadWindow
    _targets: I32 = field(default_factory=lambda: np.zeros(0, np.int32))

    def observe(self, now_ns: int, event: object) -> None:
        """Learn the load."""
        self.window.observe(now_ns, event)

    def target(self, function: FunctionId, view: ClusterView) -> int:
        """Return the latest target, or what those inside need if that is more."""
        latest = int(self._targets[function]) if function < len(self._targets) else 0
        return max(latest, pods_needed(function, view))

    def targets(self, view: ClusterView) -> I32:
        """Return the pods wanted. Shape (functions,)."""
        functions = view.functions
        specs = functions.specs
        self.window.grow(len(specs))
        inside, arrivals = self.window.means(view.now_ns)
        live = functions.ready + functions.starting
        wanted = np.minimum(live, 1).astype(np.int32)
        asked = np.flatnonzero((inside > 0) & (arrivals > 0))
        if len(asked):
            wanted[asked] = fewest_pods(
                inside[asked],
                inside[asked] / arrivals[asked] * self.variability,
                functions.slots[asked].astype(np.int64),
                np.array([max(1, specs[f].max_replica) for f in asked.tolist()]),
                slack_s=self.slack_s,
                epsilon=self.epsilon,
            )
        # Whoever is served without new arrivals keeps what it has.
        served = (inside > 0) & (arrivals == 0)
        wanted[served] = live[served]
        wanted[self.window.quiet(self.idle_s, view)] = 0
        self._targets = wanted
        return within_room(self._targets, view)


def bundle(
    slack_s: float = 0.5,
    epsilon: float = 0.01,
    variability: float = 1.0,
    window_s: int = 60,
    idle_s: float = 60.0,
) -> PolicyBundle:
    """Return the bundle.

    Args:
        slack_s: How long a request may wait for a slot, 0 to an hour.
        epsilon: Share of requests that may wait longer, above 0, below 1.
        variability: Half the sum of the squared coefficients of variation of gaps and of service
            times, above 0, at most 1,000; 1 is M/M/c.
        window_s: Seconds over which load is averaged, 1 to 3,600.
        idle_s: After so long without a request the last pod leaves, 0 to a day.

    Raises:
        ValueError: A setting is out of its range.
    """
    if not 0 <= slack_s <= 3_600:
        raise ValueError(f"slack_s is {slack_s:g}; expected 0 to 3600")
    if not 0 < epsilon < 1:
        raise ValueError(f"epsilon is {epsilon:g}; expected above 0, below 1")
    if not 0 < variability <= 1_000:
        raise ValueError(f"variability is {variability:g}; expected above 0, at most 1000")
    if not 1 <= window_s <= 3_600:
        raise ValueError(f"window_s is {window_s}; expected 1 to 3600")
    if not 0 <= idle_s <= 86_400:
        raise ValueError(f"idle_s is {idle_s:g}; expected 0 to 86400")
    scaler = ErlangScaler(slack_s, epsilon, variability, idle_s, LoadWindow(window_s))
    kept = replace(plain.bundle(), scaling=scaler, observers=(scaler,))
    return autoscaled(
        kept,
        "erlang",
        control_period_ns=10 * NS_PER_S,
        settle_ns=int((idle_s + window_s + 20) * NS_PER_S),
    )
