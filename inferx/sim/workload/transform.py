"""Changes to a trace, each from chunks to chunks in one pass.

Every transform leaves a lawful trace: arrivals in order, the first at 0. Chance comes from a stream
named after the transform and is drawn in row order, so where the chunks were cut does not matter.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import overload

import numpy as np

from inferx.core.errors import DescriptionError
from inferx.core.rng import stream
from inferx.core.types import I64
from inferx.core.units import FOREVER_NS
from inferx.sim.workload.popularity import FunctionDraw, Popularity
from inferx.sim.workload.trace import Trace, chunks_of, concat

__all__ = [
    "Popularity",
    "assign",
    "cut",
    "from_zero",
    "jitter",
    "parse_assign",
    "sample_functions",
    "sample_requests",
    "scale",
]


def parse_assign(text: str) -> Popularity:
    """Parse `zipf:ALPHA,FUNCTIONS` or `uniform:FUNCTIONS`."""
    kind, _, rest = text.partition(":")
    try:
        match kind, rest.split(","):
            case "zipf", [alpha, functions]:
                return Popularity(alpha=float(alpha), functions=int(functions))
            case "uniform", [functions]:
                return Popularity(functions=int(functions))
            case _:
                pass
    except ValueError:
        pass  # A number that is none: the same mistake as a wrong form.
    except DescriptionError as error:
        raise DescriptionError(f"assign {text!r}: {error}") from error
    wanted = "expected zipf:ALPHA,FUNCTIONS or uniform:FUNCTIONS, such as zipf:1.1,50"
    raise DescriptionError(f"assign {text!r}: {wanted}")


@overload
def assign(trace: Trace, spec: Popularity, seed: int) -> Trace: ...
@overload
def assign(trace: Iterable[Trace], spec: Popularity, seed: int) -> Iterator[Trace]: ...
def assign(trace: Trace | Iterable[Trace], spec: Popularity, seed: int) -> Trace | Iterator[Trace]:
    """Spread the requests over functions, each request on its own; the old functions are forgotten.

    Nothing but `function` and `names` changes, so policies meet the same arrivals and lengths.
    """
    if isinstance(trace, Trace):
        return concat(_assign(chunks_of(trace), spec, seed))
    return _assign(trace, spec, seed)


def _assign(chunks: Iterable[Trace], spec: Popularity, seed: int) -> Iterator[Trace]:
    functions = FunctionDraw(spec, stream(seed, "workload/assign"))
    names = spec.names
    for chunk in chunks:
        yield replace(chunk, function=functions.next(len(chunk)), names=names)


def scale(chunks: Iterable[Trace], factor: float) -> Iterator[Trace]:
    """Make the arrival rate `factor` times as high; the requests stay the same.

    Times are divided in float64: exact to 1 ns up to 104 days.
    """
    if not (math.isfinite(factor) and factor > 0):
        raise DescriptionError(f"scale {factor:g}: expected a number above 0")
    for chunk in chunks:
        scaled = np.rint(chunk.arrival_ns / factor)
        if len(chunk) and scaled[-1] >= FOREVER_NS:
            raise DescriptionError(f"scale {factor:g}: the trace would last beyond 146 years")
        yield replace(chunk, arrival_ns=scaled.astype(np.int64))


def cut(chunks: Iterable[Trace], from_ns: int, to_ns: int) -> Iterator[Trace]:
    """Keep the arrivals in [from_ns, to_ns); the first that is kept becomes 0."""
    if not 0 <= from_ns < to_ns:
        raise DescriptionError(f"cut {from_ns}:{to_ns} ns: expected 0 <= from < to")
    return from_zero(_within(chunks, from_ns, to_ns))


def _within(chunks: Iterable[Trace], from_ns: int, to_ns: int) -> Iterator[Trace]:
    for chunk in chunks:
        first, last = np.searchsorted(chunk.arrival_ns, [from_ns, to_ns])
        yield chunk.take(slice(int(first), int(last)))
        if last < len(chunk):
            return


def sample_requests(chunks: Iterable[Trace], fraction: float, seed: int) -> Iterator[Trace]:
    """Keep each request with probability `fraction`, on its own."""
    _check_fraction(fraction)
    rng = stream(seed, "workload/sample-requests")
    return from_zero(chunk.take(rng.random(len(chunk)) < fraction) for chunk in chunks)


def sample_functions(chunks: Iterable[Trace], fraction: float, seed: int) -> Iterator[Trace]:
    """Keep each function, with all its requests, with probability `fraction`; it is renumbered."""
    _check_fraction(fraction)
    return from_zero(_kept_functions(chunks, fraction, seed))


def _kept_functions(chunks: Iterable[Trace], fraction: float, seed: int) -> Iterator[Trace]:
    rng = stream(seed, "workload/sample-functions")
    keep = np.zeros(0, np.bool_)
    for chunk in chunks:
        drawn = rng.random(len(chunk.names) - len(keep)) < fraction
        keep = np.concatenate([keep, drawn])
        names = tuple(name for name, kept in zip(chunk.names, keep, strict=True) if kept)
        new_index = np.cumsum(keep, dtype=np.int32) - np.int32(1)
        kept_rows = chunk.take(keep[chunk.function])
        yield replace(kept_rows, function=new_index[kept_rows.function], names=names)


def jitter(chunks: Iterable[Trace], width_ns: int, seed: int) -> Iterator[Trace]:
    """Delay each arrival by its own uniform time in [0, width_ns), and sort again.

    For traces whose stamps lie on a grid: give the grid's step. Memory: the requests of one width.
    """
    if not 0 < width_ns < FOREVER_NS:
        raise DescriptionError(f"jitter {width_ns} ns: expected more than 0")
    return from_zero(_jittered(chunks, width_ns, seed))


def _jittered(chunks: Iterable[Trace], width_ns: int, seed: int) -> Iterator[Trace]:
    rng = stream(seed, "workload/jitter")
    held: list[Trace] = []
    for chunk in chunks:
        if not len(chunk):
            continue
        # A float in [0, 1) a row: bounded integers are rejected at random, which would make the
        # draws depend on where chunks were cut.
        delay = (rng.random(len(chunk)) * width_ns).astype(np.int64)
        held.append(replace(chunk, arrival_ns=chunk.arrival_ns + delay))
        # No later row can arrive before the last one here.
        settled_ns = int(chunk.arrival_ns[-1])
        ordered = _by_arrival(_renamed(held))
        ready = int(np.searchsorted(ordered.arrival_ns, settled_ns))
        held = [ordered.take(slice(ready, None))]
        yield from chunks_of(ordered.take(slice(0, ready)))
    if held:
        yield from chunks_of(held[0])


def _renamed(parts: Sequence[Trace]) -> list[Trace]:
    """Give all parts the last one's names, which are the longest."""
    return [replace(part, names=parts[-1].names, tenants=parts[-1].tenants) for part in parts]


def _by_arrival(parts: Sequence[Trace]) -> Trace:
    joined = concat(parts)
    return joined.take(np.argsort(joined.arrival_ns, kind="stable"))


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction <= 1:
        raise DescriptionError(f"sample {fraction:g}: expected a fraction above 0, at most 1")


def from_zero(chunks: Iterable[Trace]) -> Iterator[Trace]:
    """Move the first arrival to 0; chunks without rows are left out."""
    origin: I64 | None = None
    for chunk in chunks:
        if not len(chunk):
            continue
        if origin is None:
            origin = chunk.arrival_ns[:1]
        yield replace(chunk, arrival_ns=chunk.arrival_ns - origin)
