"""Several traces as one: merged in time, functions and tenants of the same name united."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from inferx.core.errors import DescriptionError
from inferx.sim.workload.source import Interner
from inferx.sim.workload.trace import Trace, chunks_of, concat
from inferx.sim.workload.transform import from_zero

__all__ = ["splice"]


def splice(
    traces: Sequence[Iterable[Trace]], *, starts_ns: Sequence[int] | None = None
) -> Iterator[Trace]:
    """Merge traces in time; ties keep the order of the arguments.

    Args:
        traces: Each in chunks, as a reader yields them.
        starts_ns: When each begins; all at once when left out. Shape (traces,).
    """
    starts = [0] * len(traces) if starts_ns is None else list(starts_ns)
    if len(starts) != len(traces) or any(start < 0 for start in starts):
        what = f"{len(starts)} starts for {len(traces)} traces"
        raise DescriptionError(f"{what}; expected one each, at least 0")
    if len(traces) == 1:
        return from_zero(traces[0])
    functions, tenants = Interner(), Interner()
    united = [
        _Stream(_united(trace, start, functions, tenants))
        for trace, start in zip(traces, starts, strict=True)
    ]
    return from_zero(_merge(united, functions, tenants))


def _united(
    chunks: Iterable[Trace], start_ns: int, functions: Interner, tenants: Interner
) -> Iterator[Trace]:
    for chunk in chunks:
        function = np.array([functions.code(name) for name in chunk.names], np.int32)
        tenant = np.array([tenants.code(name) for name in chunk.tenants], np.int32)
        yield replace(
            chunk,
            arrival_ns=chunk.arrival_ns + start_ns,
            function=function[chunk.function],
            tenant=tenant[chunk.tenant],
            names=functions.names,
            tenants=tenants.names,
        )


@dataclass(slots=True)
class _Stream:
    """One trace, and the part of it that waits for the others."""

    chunks: Iterator[Trace]
    waiting: Trace | None = None

    def peek(self) -> Trace | None:
        """Return what waits, reading on when that is nothing; None at the end."""
        while self.waiting is None or not len(self.waiting):
            self.waiting = next(self.chunks, None)
            if self.waiting is None:
                return None
        return self.waiting


def _merge(streams: list[_Stream], functions: Interner, tenants: Interner) -> Iterator[Trace]:
    """Release all rows up to the earliest end of what waits: that part is then used up.

    A row's key is (arrival, trace), so rows of equal arrival leave in the order of the traces.
    """
    while True:
        parts = [(i, stream, part) for i, stream in enumerate(streams) if (part := stream.peek())]
        if not parts:
            return
        end_ns, end_at = min((int(part.arrival_ns[-1]), i) for i, _, part in parts)
        taken: list[Trace] = []
        for i, stream, part in parts:
            cut = _cut(part, end_ns, inclusive=i <= end_at)
            taken.append(part.take(slice(0, cut)))
            stream.waiting = part.take(slice(cut, None))
        # Under the names of all traces so far: a part may have been read before some of them.
        names, owners = functions.names, tenants.names
        joined = concat(replace(part, names=names, tenants=owners) for part in taken)
        yield from chunks_of(joined.take(np.argsort(joined.arrival_ns, kind="stable")))


def _cut(part: Trace, end_ns: int, *, inclusive: bool) -> int:
    if inclusive:
        return int(np.searchsorted(part.arrival_ns, end_ns, side="right"))
    return int(np.searchsorted(part.arrival_ns, end_ns, side="left"))
