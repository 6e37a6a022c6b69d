"""The covering knapsack: items that make up for what is lacking, at the least cost, exactly.

The dynamic program goes through the items and keeps, for each amount that is still lacking, the
least that has been spent. What a set of items costs, how many they are and which, is one whole
number, its value: cost, then count, then a bit for each item, the first item's the lowest. So no
two sets are equal, and among equally good ones the one that does without the last items wins.
Ours; the recurrence is the textbook's.
"""

from collections.abc import Iterable, Sequence

__all__ = ["Item", "above", "cover", "items_of", "rows_of"]

_COUNT_BITS = 16

Item = tuple[int, int, int, int]
"""A row, the units and the compute that it frees, and its value."""


def items_of(
    rows: Iterable[int], units: Iterable[int], milli: Iterable[int], costs: Iterable[int]
) -> list[Item]:
    """Return items; costs are whole and above 0."""
    columns = [list(map(int, column)) for column in (rows, units, milli, costs)]
    bits = len(columns[0])
    return [
        (row, frees, compute, (cost << (_COUNT_BITS + bits)) | (1 << bits) | (1 << place))
        for place, (row, frees, compute, cost) in enumerate(zip(*columns, strict=True))
    ]


def above(cost: int, items: Sequence[Item]) -> int:
    """Return a value that is above all those of a cost."""
    return (cost + 1) << (_COUNT_BITS + len(items))


def cover(lacks: tuple[int, int], items: Sequence[Item], limit: int | None) -> int | None:
    """Return the least value of items that free `lacks`, units and compute.

    None if none do for less than `limit`. O(items x amounts that can be lacking).
    """
    states = {lacks: 0}
    best = limit
    for _, units, milli, value in items:
        for (lacks_units, lacks_milli), spent in list(states.items()):
            total = spent + value
            if (best is not None and total >= best) or not (lacks_units or lacks_milli):
                continue
            left = (max(0, lacks_units - units), max(0, lacks_milli - milli))
            if left not in states or total < states[left]:
                states[left] = total
                if left == (0, 0):
                    best = total
    return states.get((0, 0))


def rows_of(value: int, items: Sequence[Item]) -> tuple[int, ...]:
    """Return the rows of the items that a value is the sum of."""
    return tuple(item[0] for place, item in enumerate(items) if value >> place & 1)
