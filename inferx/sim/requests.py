"""The rows of a run's requests while it goes on: plain arrays, which a hot path may write into."""

from array import array

import numpy as np

from inferx.sim.record import RequestColumns
from inferx.sim.workload.trace import Trace

__all__ = ["RequestRows"]


class RequestRows:
    """One element a request in each array, in arrival order; instants that never came are -1."""

    __slots__ = (
        "arrived",
        "cause",
        "duration",
        "finished",
        "first",
        "function",
        "input",
        "outcome",
        "output",
        "pod",
        "started",
    )

    def __init__(self) -> None:
        self.function = array("i")
        self.input = array("i")
        self.output = array("i")
        self.duration = array("q")
        self.arrived = array("q")
        self.started = array("q")
        self.first = array("q")
        self.finished = array("q")
        self.pod = array("q")
        self.outcome = array("b")
        self.cause = array("b")

    def __len__(self) -> int:
        return len(self.arrived)

    def extend(self, chunk: Trace) -> None:
        """Append the requests of a chunk; nothing has happened to them yet."""
        for mine, theirs in (
            (self.function, chunk.function),
            (self.input, chunk.input_tokens),
            (self.output, chunk.output_tokens),
            (self.duration, chunk.duration_ns),
            (self.arrived, chunk.arrival_ns),
        ):
            mine.frombytes(np.ascontiguousarray(theirs).tobytes())
        count = len(chunk)
        for column in (self.started, self.first, self.finished, self.pod):
            column.frombytes(b"\xff" * (8 * count))
        for column in (self.outcome, self.cause):
            column.frombytes(bytes(count))

    def columns(self) -> RequestColumns:
        """Return the rows as arrays that share their memory; no row can be added any more."""
        return RequestColumns(
            function=np.frombuffer(self.function, np.int32),
            input_tokens=np.frombuffer(self.input, np.int32),
            output_tokens=np.frombuffer(self.output, np.int32),
            arrived_ns=np.frombuffer(self.arrived, np.int64),
            started_ns=np.frombuffer(self.started, np.int64),
            first_ns=np.frombuffer(self.first, np.int64),
            finished_ns=np.frombuffer(self.finished, np.int64),
            outcome=np.frombuffer(self.outcome, np.int8),
            cause=np.frombuffer(self.cause, np.int8),
            pod=np.frombuffer(self.pod, np.int64),
        )
