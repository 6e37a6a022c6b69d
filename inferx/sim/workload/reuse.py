"""How often a function is found warm: cold starts by keep-alive, LRU misses by slots. Exact.

One pass; memory is O(functions). Both count arrivals only: a request takes no time.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from inferx.core.errors import DescriptionError
from inferx.core.types import I32, I64
from inferx.sim.workload.trace import Trace

__all__ = ["Gaps", "Reuse", "reuse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reuse:
    """Counts of one trace.

    Attributes:
        requests: Rows of the trace.
        functions: Functions with at least one request.
        lru_misses_by_slots: With room for so many functions, the least recently used leaving.
        cold_starts_by_keep_alive_ns: With room for all, each leaving so long after its last
            arrival. A cold start is a first use, or a gap strictly above the keep-alive.
    """

    requests: int
    functions: int
    lru_misses_by_slots: dict[int, int]
    cold_starts_by_keep_alive_ns: dict[int, int]


class Gaps:
    """Time between arrivals of one function, chunk by chunk."""

    def __init__(self) -> None:
        self._last_ns: I64 = np.zeros(0, np.int64)

    @property
    def functions(self) -> int:
        """Functions seen so far."""
        return int((self._last_ns >= 0).sum())

    def update(self, chunk: Trace) -> tuple[I32, I64]:
        """Return function and gap of each row, grouped by function; -1 for a first use."""
        new = len(chunk.names) - len(self._last_ns)
        if new > 0:
            self._last_ns = np.concatenate([self._last_ns, np.full(new, -1, np.int64)])
        order = np.argsort(chunk.function, kind="stable")
        function, arrival_ns = chunk.function[order], chunk.arrival_ns[order]
        first = np.ones(len(order), np.bool_)
        first[1:] = function[1:] != function[:-1]
        gap_ns = np.diff(arrival_ns, prepend=0)
        before_ns = self._last_ns[function[first]]
        gap_ns[first] = np.where(before_ns < 0, -1, arrival_ns[first] - before_ns)
        last = np.ones(len(order), np.bool_)
        last[:-1] = first[1:]
        self._last_ns[function[last]] = arrival_ns[last]
        return function, gap_ns


class _Lru:
    """Slots that hold the functions used last."""

    def __init__(self, slots: int) -> None:
        self.misses = 0
        self._slots = slots
        self._held: OrderedDict[int, None] = OrderedDict()

    def use(self, functions: Iterable[int]) -> None:
        held, slots = self._held, self._slots
        for function in functions:
            if function in held:
                held.move_to_end(function)
            else:
                self.misses += 1
                held[function] = None
                if len(held) > slots:
                    held.popitem(last=False)


def reuse(
    chunks: Iterable[Trace], *, keep_alive_ns: Sequence[int] = (), slots: Sequence[int] = ()
) -> Reuse:
    """Count for every keep-alive and every number of slots in one pass.

    Cost: O(requests * (keep-alives + slots)); the LRU part is a Python loop over the requests that
    call another function than the one before.
    """
    if any(count < 1 for count in slots):
        raise DescriptionError(f"slots {min(slots)}: expected at least 1")
    if any(keep_ns < 0 for keep_ns in keep_alive_ns):
        raise DescriptionError(f"keep-alive {min(keep_alive_ns)} ns: expected at least 0")
    gaps = Gaps()
    caches = {count: _Lru(count) for count in slots}
    cold = dict.fromkeys(keep_alive_ns, 0)
    requests, before = 0, -1
    for chunk in chunks:
        requests += len(chunk)
        _, gap_ns = gaps.update(chunk)
        first_uses = int((gap_ns < 0).sum())
        for keep_ns in cold:
            cold[keep_ns] += first_uses + int((gap_ns > keep_ns).sum())
        if caches and len(chunk):
            moved = np.diff(chunk.function, prepend=before) != 0
            changes = chunk.function[moved].tolist()
            before = int(chunk.function[-1])
            for cache in caches.values():
                cache.use(changes)
    return Reuse(
        requests=requests,
        functions=gaps.functions,
        lru_misses_by_slots={count: cache.misses for count, cache in caches.items()},
        cold_starts_by_keep_alive_ns=cold,
    )
