"""How far a run is from what nobody could beat.

The yardstick is the response time, arrival to end, over all requests that arrived after the
warm-up. One that was not finished counts with its function's queue timeout and its least service:
the bounds charge no more for it. A bound on the mean is the mean least service and a bound on the
mean wait; three bounds on waits are known:

- `prewarm` holds for every policy (`inferx.sim.oracle.prewarm`);
- `on-demand` holds for runs in which no pod was started ahead of demand, which is read off the run
  (`inferx.sim.oracle.keep_alive`); it is greater for those that copied no state into host memory
  either, where that is short;
- `unforeseen` holds for policies that do not know the future, on average over the draws of a trace
  whose requests' functions are drawn one by one (`inferx.sim.oracle.unforeseen`).

Where a program is not solved in its time, `prewarm` is `first-starts`: the waits that follow from
nothing being started before the trace; and there is no `on-demand`, or no `unforeseen`.
"""

import contextlib
import math
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from inferx.core.types import F64, I64, Bool
from inferx.core.units import NS_PER_S
from inferx.sim.oracle.keep_alive import OnDemand, on_demand_wait_s
from inferx.sim.oracle.prewarm import prewarm_wait_s
from inferx.sim.oracle.solver import SolverError
from inferx.sim.oracle.unforeseen import unforeseen_wait_s
from inferx.sim.oracle.work import Work, work_of
from inferx.sim.record import Outcome, RunRecord
from inferx.sim.spans import column, states
from inferx.sim.workload.trace import Trace
from inferx.sim.world import World

__all__ = [
    "Bounds",
    "Regret",
    "bounds_of",
    "copied_into_host",
    "regret_of",
    "started_on_demand",
]

_STARTING: Final = ("creating", "restoring", "resuming")


class Regret(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A run beside its bounds; means over `requests`, in seconds. See docs/metrics.md."""

    requests: int
    mean_wait_s: float
    mean_response_s: float
    bound: str
    bound_wait_s: float
    bound_response_s: float
    regret_pct: float | None
    on_demand_wait_s: float | None
    on_demand_regret_pct: float | None
    unforeseen_wait_s: float | None
    unforeseen_regret_pct: float | None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What all policies of one trace, world and profile are measured by; sums in seconds."""

    work: Work
    name: str
    wait_s: float
    on_demand: OnDemand | None
    unforeseen_s: float | None


def bounds_of(
    trace: Trace,
    world: World,
    *,
    warmup_ns: int = 0,
    time_limit_s: float = 120.0,
    shares: F64 | None = None,
) -> Bounds:
    """Solve the programs of a trace in a world. Faults are left out: a bound without is one with.

    Args:
        trace: The requests.
        world: What they are replayed in.
        warmup_ns: Requests before do not count.
        time_limit_s: For each program.
        shares: The chances by which each request's function was drawn, on its own; None where
            they were not drawn so. Shape (functions,).

    Cost: seconds, for tens of thousands of requests; at most three times the limit.
    """
    work = work_of(trace, world, warmup_ns=warmup_ns)
    try:
        name, wait_s = "prewarm", prewarm_wait_s(work, time_limit_s=time_limit_s)
    except SolverError:
        name, wait_s = "first-starts", math.fsum(work.first_starts_s()[work.counts].tolist())
    try:
        found = on_demand_wait_s(work, time_limit_s=time_limit_s)
        # Who starts on demand is a policy too: the greater bound of the two holds.
        on_demand = OnDemand(max(wait_s, found.wait_s), max(wait_s, found.suspending_s))
    except SolverError:
        on_demand = None
    unforeseen_s = None
    if shares is not None:
        with contextlib.suppress(SolverError):
            unforeseen_s = unforeseen_wait_s(work, shares, time_limit_s=time_limit_s)
    return Bounds(work, name, wait_s, on_demand, unforeseen_s)


def regret_of(record: RunRecord, bounds: Bounds) -> Regret | None:
    """Return a run's distance to its bounds; None where no request counts."""
    work, q = bounds.work, record.requests
    counts = int(work.counts.sum())
    if not counts:
        return None
    done = np.asarray(q.outcome) == Outcome.FINISHED
    given_up_s = work.timeout_s[work.function]
    wait_s = np.where(done, (q.started_ns - q.arrived_ns) / NS_PER_S, given_up_s)
    end_s = (q.finished_ns - q.arrived_ns) / NS_PER_S
    response_s = np.where(done, end_s, given_up_s + work.service_s)

    def mean(values: F64) -> float:
        return math.fsum(values[work.counts].tolist()) / counts

    response, service = mean(response_s), mean(work.service_s)
    bound_wait = bounds.wait_s / counts
    on_demand = unforeseen = None
    found = bounds.on_demand
    if found is not None and started_on_demand(record):
        on_demand = (found.wait_s if copied_into_host(record) else found.suspending_s) / counts
    if bounds.unforeseen_s is not None:
        unforeseen = bounds.unforeseen_s / counts
    return Regret(
        requests=counts,
        mean_wait_s=mean(wait_s),
        mean_response_s=response,
        bound=bounds.name,
        bound_wait_s=bound_wait,
        bound_response_s=service + bound_wait,
        regret_pct=_over_pct(response, service, bound_wait),
        on_demand_wait_s=on_demand,
        on_demand_regret_pct=_over_pct(response, service, on_demand),
        unforeseen_wait_s=unforeseen,
        unforeseen_regret_pct=_over_pct(response, service, unforeseen),
    )


def _over_pct(response: float, service: float, wait: float | None) -> float | None:
    """Return by how much a response is over the bound of one; None where there is no bound."""
    if wait is None or service + wait <= 0:
        return None
    return 100.0 * (response / (service + wait) - 1.0)


def started_on_demand(record: RunRecord) -> bool:
    """Say whether every pod came onto its GPUs while its function had a request inside.

    Inside is waiting, or in service. Of an aborted request only the arrival is sure.
    """
    codes, words = states(record.spans)
    starting = np.array([word in _STARTING for word in words], np.bool_)
    if not len(codes):
        return True
    mine: Bool = starting[codes] & (column(record.spans, "gpu", np.int32) >= 0)
    functions = column(record.spans, "function", np.int32)[mine]
    began = column(record.spans, "from_ns", np.int64)[mine]
    left = _left_ns(record)
    for function in np.unique(functions).tolist():
        of = record.requests.function == function
        arrived, ended = np.sort(record.requests.arrived_ns[of]), np.sort(left[of])
        at = began[functions == function]
        inside = np.searchsorted(arrived, at, "right") - np.searchsorted(ended, at, "left")
        if (inside <= 0).any():
            return False
    return True


def copied_into_host(record: RunRecord) -> bool:
    """Say whether any pod was restored into host memory, without GPUs."""
    codes, words = states(record.spans)
    if "restoring" not in words:
        return False
    copies = codes == words.index("restoring")
    return bool((copies & (column(record.spans, "gpu", np.int32) < 0)).any())


def _left_ns(record: RunRecord) -> I64:
    """Return when each request left, as far as it is known: the arrival at the earliest."""
    q = record.requests
    outcome = np.asarray(q.outcome)
    left = np.where(outcome == Outcome.FINISHED, q.finished_ns, q.arrived_ns)
    left[outcome == Outcome.UNFINISHED] = np.iinfo(np.int64).max
    for request, (at_ns, _) in record.refusals.items():
        left[request] = at_ns
    return left
