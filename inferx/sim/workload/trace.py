"""The one layout of a request trace: parallel arrays, integers only.

Laws:
1. Arrivals are nanoseconds and never go back; a whole trace begins at 0, a chunk where it is.
2. A request is either a token request (`output_tokens` >= 1, `duration_ns` = 0) or a plain request
   (`duration_ns` >= 1, no tokens).
3. Names are indexed by `function` and `tenant`. While a trace is read in chunks the two tuples only
   grow, so a chunk's indices stay valid under every later chunk's names.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from inferx.core.errors import DescriptionError
from inferx.core.types import I32, I64
from inferx.core.units import FOREVER_NS, NS_PER_MS

__all__ = [
    "CHUNK_ROWS",
    "COLUMNS",
    "MAX_TOKENS",
    "SHORTEST_NS",
    "Trace",
    "TraceHash",
    "chunks_of",
    "concat",
    "make_trace",
]

CHUNK_ROWS = 65_536
"""Most rows of a chunk that a reader, a generator or a transform yields."""

MAX_TOKENS = 100_000_000
"""Most tokens of one request; above it a number is a mistake, not a request."""

SHORTEST_NS = NS_PER_MS
"""A measured duration of zero means "shorter than the clock could tell" and is read as this."""

COLUMNS: dict[str, type[np.int32] | type[np.int64]] = {
    "arrival_ns": np.int64,
    "function": np.int32,
    "input_tokens": np.int32,
    "output_tokens": np.int32,
    "duration_ns": np.int64,
    "tenant": np.int32,
    "priority": np.int32,
}
"""Column -> its type, in canonical order."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """A trace, or a chunk of one; every array has shape (requests,).

    Attributes:
        arrival_ns: Since the trace's first arrival; non-decreasing.
        function: Index into `names`.
        input_tokens: 0 for a plain request.
        output_tokens: 0 for a plain request, else at least 1.
        duration_ns: Service time of a plain request; 0 for a token request.
        tenant: Index into `tenants`.
        priority: Larger is more urgent.
    """

    arrival_ns: I64
    function: I32
    input_tokens: I32
    output_tokens: I32
    duration_ns: I64
    tenant: I32
    priority: I32
    names: tuple[str, ...]
    tenants: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.arrival_ns)

    @property
    def span_ns(self) -> int:
        """From the first arrival to the last; 0 when there are fewer than two."""
        return int(self.arrival_ns[-1] - self.arrival_ns[0]) if len(self) else 0

    def columns(self) -> dict[str, NDArray[np.integer]]:
        """Return the arrays by name, in canonical order."""
        return {name: getattr(self, name) for name in COLUMNS}

    def take(self, rows: slice | NDArray[np.integer] | NDArray[np.bool_]) -> "Trace":
        """Return these rows, by slice, index or mask; a slice does not copy."""
        arrays = {name: array[rows] for name, array in self.columns().items()}
        return replace(self, **arrays)  # type: ignore[arg-type]  # dtypes are kept by indexing

    def sha256(self) -> str:
        """Return the hash of the content: equal for equal traces, however stored or chunked."""
        digest = TraceHash()
        digest.update(self)
        return digest.hexdigest(self.names, self.tenants)

    def flaw(self, *, whole: bool = True) -> tuple[int, str] | None:
        """Find the first row that breaks a law, and say which; None where all hold.

        Cost: O(requests), a few passes.
        """
        rows = len(self)
        for name, array in self.columns().items():
            if array.shape != (rows,) or array.dtype != COLUMNS[name]:
                wanted = f"{np.dtype(COLUMNS[name])} of shape ({rows},)"
                return 0, f"{name} is {array.dtype} of shape {array.shape}; expected {wanted}"
        tokens = self.output_tokens > 0
        broken = {
            "arrival is negative; expected nanoseconds, at least 0": self.arrival_ns < 0,
            "arrival is beyond 146 years; expected nanoseconds": self.arrival_ns >= FOREVER_NS,
            "arrival is before the one above; expected times in order": np.diff(
                self.arrival_ns, prepend=0
            )
            < 0,
            "function has no name; expected the index of one": (self.function < 0)
            | (self.function >= len(self.names)),
            "tenant has no name; expected the index of one": (self.tenant < 0)
            | (self.tenant >= len(self.tenants)),
            f"input_tokens is out of range; expected 0 to {MAX_TOKENS:,}": (self.input_tokens < 0)
            | (self.input_tokens > MAX_TOKENS),
            f"output_tokens is out of range; expected 0 to {MAX_TOKENS:,}": (self.output_tokens < 0)
            | (self.output_tokens > MAX_TOKENS),
            f"duration_ns is out of range; expected 0 to {FOREVER_NS:,}": (self.duration_ns < 0)
            | (self.duration_ns >= FOREVER_NS),
            "has both tokens and a duration; expected one of them": tokens & (self.duration_ns > 0),
            "has neither output tokens nor a duration; expected one of them": ~tokens
            & (self.duration_ns == 0),
            "has input tokens but no output tokens; expected both": ~tokens
            & (self.input_tokens > 0),
        }
        found = [(int(mask.argmax()), what) for what, mask in broken.items() if mask.any()]
        if whole and rows and self.arrival_ns[0] != 0 and not found:
            return 0, f"the first arrival is at {int(self.arrival_ns[0])} ns; expected 0"
        return min(found, key=lambda flaw: flaw[0], default=None)

    def validate(self, *, whole: bool = True) -> None:
        """Raise DescriptionError where a law is broken."""
        flaw = self.flaw(whole=whole)
        if flaw is not None:
            raise DescriptionError(f"trace: row {flaw[0]}: {flaw[1]}")


def make_trace(
    arrival_ns: I64,
    *,
    function: NDArray[np.integer] | None = None,
    input_tokens: NDArray[np.integer] | None = None,
    output_tokens: NDArray[np.integer] | None = None,
    duration_ns: NDArray[np.integer] | None = None,
    tenant: NDArray[np.integer] | None = None,
    priority: NDArray[np.integer] | None = None,
    names: Sequence[str] = ("f0000",),
    tenants: Sequence[str] = ("default",),
) -> Trace:
    """Build a trace from what there is; a column that is left out is all zeros."""
    given = {
        "arrival_ns": arrival_ns,
        "function": function,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "duration_ns": duration_ns,
        "tenant": tenant,
        "priority": priority,
    }
    rows = len(arrival_ns)
    arrays = {
        name: np.zeros(rows, dtype)
        if (column := given[name]) is None
        else np.ascontiguousarray(column, dtype)
        for name, dtype in COLUMNS.items()
    }
    return Trace(**arrays, names=tuple(names), tenants=tuple(tenants))  # type: ignore[arg-type]  # dtypes are paired with names by COLUMNS


def concat(chunks: Iterable[Trace]) -> Trace:
    """Join the chunks of one trace, in order; the last chunk's names are the longest and rule."""
    parts = list(chunks)
    if not parts:
        return make_trace(np.zeros(0, np.int64), names=(), tenants=())
    for one, two in pairwise(parts):
        assert two.names[: len(one.names)] == one.names, "chunks of different traces"
        assert two.tenants[: len(one.tenants)] == one.tenants, "chunks of different traces"
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS}
    return Trace(**arrays, names=parts[-1].names, tenants=parts[-1].tenants)


def chunks_of(trace: Trace, rows: int = CHUNK_ROWS) -> Iterable[Trace]:
    """Cut a trace into chunks of at most `rows`; an empty trace is one empty chunk."""
    if len(trace) <= rows:
        return (trace,)
    return (trace.take(slice(at, at + rows)) for at in range(0, len(trace), rows))


class TraceHash:
    """SHA-256 of a trace's content, chunk by chunk; where the chunks were cut does not matter.

    Each column has its own hash over little-endian bytes; the trace's is over the row count, the
    columns' hashes and the names as JSON. Names that no row uses count too: they are functions.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._columns = {name: hashlib.sha256() for name in COLUMNS}

    def update(self, chunk: Trace) -> None:
        """Add the next rows."""
        self.rows += len(chunk)
        for name, array in chunk.columns().items():
            little = np.dtype(COLUMNS[name]).newbyteorder("<")
            self._columns[name].update(np.ascontiguousarray(array, little).data)

    def hexdigest(self, names: Sequence[str], tenants: Sequence[str]) -> str:
        """Return the hash of everything so far, under these names."""
        content = {
            "layout": 1,
            "rows": self.rows,
            "columns": {name: digest.hexdigest() for name, digest in self._columns.items()},
            "names": list(names),
            "tenants": list(tenants),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
