"""The least waiting, on average, of any policy that cannot foresee what is asked for next.

It holds where each request's function is drawn on its own, as `--assign` draws it. The policy may
know the chances, all arrivals and all lengths; it does not know a request's function before it is
there. What is on GPUs just before an arrival then has nothing to do with whom it is for: a function
that is there with chance x is missed by its request with chance 1 - x, and that request waits for a
start, or is turned away, which costs more. What is there fits the cluster at each instant, so it
does on average, and the best x is a knapsack of the functions by chance times start.

Forgotten: that a pod on its way makes its request wait as well, that a start takes the place of
others while it lasts, that a busy function needs several pods, and which GPU is whose.

Source: the independent reference model, under which keeping the most probable is the best that a
cache without foresight can do: Aho, Denning and Ullman, Principles of Optimal Page Replacement,
Journal of the ACM 18(1), 1971, pp. 80-93, theorem on A0. Sizes, costs and the relaxation to
fractions are ours.
"""

import math

import numpy as np

from inferx.core.types import F64
from inferx.sim.oracle.solver import Program
from inferx.sim.oracle.work import Work

__all__ = ["unforeseen_wait_s"]


def unforeseen_wait_s(work: Work, shares: F64, *, time_limit_s: float = 60.0) -> float:
    """Return the least expected sum of waits over the requests that count, in seconds.

    Args:
        work: What must be done; its requests' functions count as not drawn yet.
        shares: Each function's chance, which add up to 1. Shape (functions,).
        time_limit_s: For the solver; there is a variable for each function.

    Raises:
        SolverError: The program is not solved in its time.
    """
    start_s = np.where(work.never, work.timeout_s, work.start_s)
    program = Program()
    for cost, never in zip((shares * start_s).tolist(), work.never.tolist(), strict=True):
        program.column(cost=-cost, high=0.0 if never else 1.0)
    for taken, total in zip(work.room.taken.tolist(), work.room.total.tolist(), strict=True):
        row = program.row(total)
        for column, amount in enumerate(taken):
            program.term(row, column, amount)
    missed_s = float(shares @ start_s) + program.least(time_limit_s=time_limit_s)
    at_s = work.arrival_s[work.counts]
    # Nothing runs before the trace: whoever comes early waits for a first start at least.
    soon = at_s < float(np.max(work.first_s, initial=0.0))
    early_s = np.clip(work.first_s[None, :] - at_s[soon, None], 0.0, None) @ shares
    first_s = np.maximum(early_s, missed_s).tolist()
    return math.fsum([*first_s, missed_s * int((~soon).sum())])
