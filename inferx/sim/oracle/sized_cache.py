"""A cache whose entries have sizes and costs, all uses known: what nobody beats, and a way near it.

Every use enters the cache, and pays its key's cost unless it was inside. For equal sizes and costs
`belady` tells the least; otherwise the least is NP-hard to tell, so it is held between two numbers:
`least_cost`, a bound, and `clairvoyant_cost`, which a rule with foresight pays. They say how much
of an online policy's distance to the bound may be the bound's own looseness.

Source: Berger, Beckmann and Harchol-Balter, Practical Bounds on Optimal Caching with Variable
Object Sizes, POMACS 2(2), 2018, article 32, section 4 (that it is NP-hard; FOO). Differs: costs,
and a use may not bypass.
"""

from math import inf

from inferx.core.types import I64
from inferx.sim.oracle.belady import next_use
from inferx.sim.oracle.solver import Program

__all__ = ["clairvoyant_cost", "least_cost"]


def clairvoyant_cost(keys: I64, *, sizes: I64, costs: I64, room: int) -> int:
    """Return what is paid by throwing out the largest (time until the next use) x size / cost.

    Time is counted in uses. What is never used again, or costs nothing, goes first; of equal ones
    the lowest key. Feasible, not optimal. Cost: O(uses x entries inside).

    Args:
        keys: Of each use, in order. Shape (uses,).
        sizes: Of each key, from 1 to `room`. Shape (keys,).
        costs: Of a miss of each key, at least 0. Shape (keys,).
        room: What the sizes inside add up to at most.

    Source: ours: MIN, weighed as Greedy-Dual-Size weighs.
    """
    size, cost = sizes.tolist(), costs.tolist()
    _check(size, room)
    inside: dict[int, int] = {}
    """Key -> its next use."""

    def worst(now: int) -> int:
        def badness(key: int) -> float:
            again = inside[key]
            lasts = again < len(keys) and cost[key] > 0
            return (again - now) * size[key] / cost[key] if lasts else inf

        return min(inside, key=lambda key: (-badness(key), key))

    left, paid = room, 0
    for now, (key, again) in enumerate(zip(keys.tolist(), next_use(keys).tolist(), strict=True)):
        if key not in inside:
            paid += cost[key]
            while left < size[key]:
                victim = worst(now)
                left += size[victim]
                del inside[victim]
            left -= size[key]
        inside[key] = again
    return paid


def least_cost(
    keys: I64, *, sizes: I64, costs: I64, room: int, time_limit_s: float = 60.0
) -> float:
    """Return what every policy pays at least: FOO's program, in which a fraction may be kept.

    Between a use and the next of its key a share of it is kept, and only the rest of the cost is
    paid. At each use in between, what is kept leaves room for the entry that is used. Exact for
    equal sizes. For the arguments see `clairvoyant_cost`.

    Raises:
        SolverError: The program is not solved in its time.
    """
    size, cost = sizes.tolist(), costs.tolist()
    _check(size, room)
    used: list[int] = keys.tolist()
    program = Program()
    # Rows: what was kept across the use before, and what enters, less what leaves, is at most now.
    kept = [program.column(cost=0.0, high=room - size[key]) for key in used]
    rows = [program.row(0.0) for _ in used]
    for at, row in enumerate(rows):
        program.term(row, kept[at], -1.0)
        if at:
            program.term(row, kept[at - 1], 1.0)
    following: list[int] = next_use(keys).tolist()
    for at, again in enumerate(following):
        if again < len(used):
            key = used[at]
            share = program.column(cost=-cost[key], high=1.0)
            if again > at + 1:
                program.term(rows[at + 1], share, size[key])
                program.term(rows[again], share, -size[key])
    paid = int(costs[keys].sum())
    return max(0.0, paid + program.least(time_limit_s=time_limit_s)) if used else 0.0


def _check(size: list[int], room: int) -> None:
    assert all(0 < one <= room for one in size), f"sizes from 1 to {room}"
