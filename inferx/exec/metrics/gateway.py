"""What a gateway counts: per request a few plain numbers, by function and by whether it was cold.

A request is cold if it arrived before the pod that served it was leased, and that pod was started
for those who waited. Names in one word are the reference's, with its units.
"""

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Final, NamedTuple, TypeVar

from inferx.exec.metrics.families import OTHER, Counts, Family, Piece
from inferx.exec.metrics.histogram import LATENCY_S, LINEAR_S, Histogram

__all__ = ["CLIENT_LEFT", "FAMILIES", "CallCounts", "GatewayCounts", "GatewayNow", "GatewaySource"]

CLIENT_LEFT: Final = 499
"""The code of a request whose client left before it was told anything."""
GONE_KEPT: Final = 256
BATCH: Final = 20
"""Functions that are told of before others have their turn."""
KNOWN: Final = frozenset(status.value for status in HTTPStatus) | {CLIENT_LEFT}
MS_PER_S: Final = 1e3
STARTS: Final = ("warm", "cold")

T = TypeVar("T")

_FUNCTION: Final = ("tenant", "namespace", "function")
_REFERENCE: Final = ("tenant", "namespace", "funcname")

REQUESTS: Final = Family(
    "inferx_gateway_requests",
    "counter",
    "Requests answered or broken off, by what they asked for and the status that they were told.",
    ("kind", "code"),
)
OUTCOMES: Final = Family(
    "inferx_gateway_calls",
    "counter",
    "Calls of functions that the router took, by how they ended.",
    ("outcome",),
)
REFUSALS: Final = Family(
    "inferx_gateway_refusals",
    "counter",
    "Requests that were not served, or whose answer broke off, by why.",
    ("reason",),
)
RETRIES: Final = Family(
    "inferx_gateway_retries",
    "counter",
    "Turns asked for anew because a pod took no connection.",
)
WAIT: Final = Family(
    "inferx_gateway_wait_seconds",
    "histogram",
    "From a call's arrival to its pod's connection, a start of the pod included.",
    ("start",),
)
TTFT: Final = Family(
    "inferx_gateway_ttft_seconds",
    "histogram",
    "From a call's arrival to the first of the body of its good answer.",
    ("start",),
)
TOTAL: Final = Family(
    "inferx_gateway_latency_seconds",
    "histogram",
    "From a call's arrival to the end of its whole answer.",
    ("start",),
)
QUEUED: Final = Family(
    "inferx_gateway_queue_requests", "gauge", "Requests that wait for a slot.", _FUNCTION
)
RUNNING: Final = Family(
    "inferx_gateway_running_requests", "gauge", "Requests that have a slot.", _FUNCTION
)
CONNECTIONS: Final = Family("inferx_gateway_connections", "gauge", "Clients that are connected.")
ACCEPTED: Final = Family(
    "inferx_gateway_accepted_connections", "counter", "Connections of clients that were taken."
)
BODY_IN: Final = Family(
    "inferx_gateway_request_body_bytes", "counter", "Bytes of requests' bodies that were read."
)
BODY_OUT: Final = Family(
    "inferx_gateway_answer_body_bytes", "counter", "Bytes of answers' bodies that were written."
)
SCHEDULER: Final = Family(
    "inferx_gateway_scheduler_connected", "gauge", "1 while a scheduler's line stands."
)
FUNCTIONS: Final = Family("inferx_gateway_functions", "gauge", "Functions that can be called.")
POLICY_ERRORS: Final = Family(
    "inferx_gateway_policy_errors", "counter", "Answers of the policy that could not be used."
)
JOURNAL: Final = Family("inferx_gateway_journal_bytes", "gauge", "Size of the router's journal.")
METHODS: Final = Family("requests", "counter", "Requests by method of HTTP.", ("method",))
FUNCCALLS: Final = Family(
    "funccallcnt", "counter", "Calls of a function by status.", (*_REFERENCE, "status")
)
COLD_CALLS: Final = Family(
    "funccallColdstartCnt", "counter", "Calls that waited for a pod to start.", _REFERENCE
)
COLD_TTFT: Final = Family(
    "funccallCsTtft", "histogram", "Seconds to the first of the body, cold calls.", _REFERENCE
)
WARM_TTFT: Final = Family(
    "funccallTtft", "histogram", "Milliseconds to the first of the body, warm calls.", _REFERENCE
)
FAMILIES: Final = (
    *(REQUESTS, OUTCOMES, REFUSALS, RETRIES, WAIT, TTFT, TOTAL, QUEUED, RUNNING, CONNECTIONS),
    *(ACCEPTED, BODY_IN, BODY_OUT, SCHEDULER, FUNCTIONS, POLICY_ERRORS, JOURNAL, METHODS),
    *(FUNCCALLS, COLD_CALLS, COLD_TTFT, WARM_TTFT),
)


class CallCounts:
    """Latencies of one function's calls, either the warm or the cold ones."""

    __slots__ = ("calls", "latency", "linear", "ttft", "wait")

    def __init__(self, *, cold: bool) -> None:
        self.calls = 0
        self.wait = Histogram(LATENCY_S)
        self.ttft = Histogram(LATENCY_S)
        self.latency = Histogram(LATENCY_S)
        self.linear = Histogram(LINEAR_S) if cold else None

    # Each repeats `Histogram.observe`: a call less for every request, three times.
    def connected(self, waited_s: float) -> None:
        """A call has its pod."""
        self.calls += 1
        wait = self.wait
        wait.counts[bisect_left(LATENCY_S, waited_s)] += 1
        wait.sum += waited_s

    def first(self, took_s: float) -> None:
        """The first of a good answer's body is there."""
        ttft = self.ttft
        ttft.counts[bisect_left(LATENCY_S, took_s)] += 1
        ttft.sum += took_s
        if self.linear is not None:
            self.linear.observe(took_s)

    def whole(self, took_s: float) -> None:
        """An answer is whole."""
        latency = self.latency
        latency.counts[bisect_left(LATENCY_S, took_s)] += 1
        latency.sum += took_s

    def add(self, other: "CallCounts") -> None:
        """Count all that another one has."""
        self.calls += other.calls
        self.wait.add(other.wait)
        self.ttft.add(other.ttft)
        self.latency.add(other.latency)


class _Function:
    """What is counted of one function: status codes, and latencies by start (warm, cold)."""

    __slots__ = ("codes", "starts")

    def __init__(self) -> None:
        self.codes: defaultdict[int, int] = defaultdict(int)
        self.starts = CallCounts(cold=False), CallCounts(cold=True)

    def add(self, other: "_Function") -> None:
        """Count all that another one has."""
        for code, count in other.codes.items():
            self.codes[code] += count
        for mine, theirs in zip(self.starts, other.starts, strict=True):
            mine.add(theirs)


FunctionKey = tuple[str, str, str]
"""Tenant, namespace, name."""


class GatewayCounts:
    """One gateway's; written by those who serve requests."""

    def __init__(self) -> None:
        self._functions: dict[FunctionKey, _Function] = {}
        self._rest = _Function()
        """What was called and is no function, and functions that are long gone."""
        self.unnamed = self._rest.codes
        """Codes of inference that found no function."""
        self._gone: deque[_Function] = deque()
        """Functions that are no more: the last of their calls may still be served."""
        self.api: defaultdict[int, int] = defaultdict(int)
        """Codes of what is no inference."""
        self.methods: defaultdict[bytes, int] = defaultdict(int)
        self.refusals = Counts()
        self.retries = self.accepted = 0
        self.body_bytes_in = self.body_bytes_out = 0

    def function(self, name: FunctionKey) -> _Function:
        """Return what a call of a name is counted in."""
        return self._functions.get(name, self._rest)

    def add(self, name: FunctionKey) -> None:
        """Count the calls of a function apart, from now on."""
        if name not in self._functions:
            self._functions[name] = _Function()

    def drop(self, name: FunctionKey) -> None:
        """Keep no series of a function that is no more; sums keep what it had."""
        gone = self._functions.pop(name, None)
        if gone is None:
            return
        self._gone.append(gone)
        if len(self._gone) > GONE_KEPT:
            self._rest.add(self._gone.popleft())

    def all(self) -> Iterator[_Function]:
        """Yield what is counted of each function, and of the rest."""
        yield from (*self._functions.values(), *self._gone, self._rest)

    def named(self) -> Iterator[tuple[FunctionKey, _Function]]:
        """Yield the functions that are there."""
        return iter(tuple(self._functions.items()))


class GatewayNow(NamedTuple):
    """How a gateway stands, asked when somebody scrapes.

    Attributes:
        functions: Names of the functions, each with how many of its requests wait and run.
        ended: Requests by how they ended.
    """

    functions: Iterable[tuple[FunctionKey, int, int]]
    ended: dict[str, int]
    connections: int
    connected: bool
    policy_errors: int
    journal_bytes: int


class GatewaySource:
    """Tells what a gateway counted.

    Args:
        counts: The gateway's.
        now: Gives how it stands.
    """

    def __init__(self, counts: GatewayCounts, now: Callable[[], GatewayNow]) -> None:
        self._counts = counts
        self._now = now

    async def pieces(self) -> AsyncIterator[Piece]:
        """See `MetricSource`."""
        counts, now = self._counts, self._now()
        functions = list(now.functions)
        yield CONNECTIONS.one(now.connections)
        yield ACCEPTED.one(counts.accepted)
        yield BODY_IN.one(counts.body_bytes_in)
        yield BODY_OUT.one(counts.body_bytes_out)
        yield RETRIES.one(counts.retries)
        yield SCHEDULER.one(now.connected)
        yield FUNCTIONS.one(len(functions))
        yield POLICY_ERRORS.one(now.policy_errors)
        yield JOURNAL.one(now.journal_bytes)
        yield OUTCOMES.of(((one,), count) for one, count in now.ended.items())
        yield REFUSALS.of(counts.refusals.by_label())
        yield METHODS.of(
            ((one.decode("ascii"),), count) for one, count in sorted(counts.methods.items())
        )
        async for piece in self._over_all():
            yield piece
        for some in _batches(functions):
            yield QUEUED.of((name, queued) for name, queued, _ in some)
        for some in _batches(functions):
            yield RUNNING.of((name, running) for name, _, running in some)
        for piece in self._by_function():
            yield piece

    async def _over_all(self) -> AsyncIterator[Piece]:
        every = _Function()
        for some in _batches(list(self._counts.all())):
            for one in some:
                every.add(one)
            yield REQUESTS.of()  # Others may have their turn.
        codes = (("inference", every.codes), ("api", self._counts.api))
        yield REQUESTS.of(
            ((kind, code), count) for kind, by in codes for code, count in _by_status(by)
        )
        starts = tuple(zip(STARTS, every.starts, strict=True))
        yield WAIT.spread(((start,), one.wait) for start, one in starts)
        yield TTFT.spread(((start,), one.ttft) for start, one in starts)
        yield TOTAL.spread(((start,), one.latency) for start, one in starts)

    def _by_function(self) -> Iterator[Piece]:
        """Yield the reference's, histograms of those that were called alone: they are long."""
        batches = list(_batches(list(self._counts.named())))
        for some in batches:
            yield FUNCCALLS.of(
                ((*name, code), count)
                for name, one in some
                for code, count in _by_status(one.codes)
            )
        for some in batches:
            yield COLD_CALLS.of((name, one.starts[1].calls) for name, one in some)
        for some in batches:
            yield COLD_TTFT.spread(
                (name, linear)
                for name, one in some
                if one.starts[1].calls and (linear := one.starts[1].linear)
            )
        for some in batches:
            yield WARM_TTFT.spread(
                ((name, one.starts[0].ttft) for name, one in some if one.starts[0].calls),
                scale=MS_PER_S,
            )


def _batches(every: list[T]) -> Iterator[list[T]]:
    """Yield all, a few at a time; once, where there is none, so that the family is told."""
    for first in range(0, max(1, len(every)), BATCH):
        yield every[first : first + BATCH]


def _by_status(codes: Mapping[int, int]) -> list[tuple[str, int]]:
    """Return counts by status: a tenant's program may make up any, which are one here."""
    told = {code: count for code, count in codes.items() if code in KNOWN}
    rest = sum(codes.values()) - sum(told.values())
    return [(str(code), told[code]) for code in sorted(told)] + ([(OTHER, rest)] if rest else [])
