"""Follows each request through the gateway: its id, its record, its trace, its line in the log.

Laws:
1. A request has one id, its caller's or one made here; the answer and the pod are told it.
2. Whoever asks the scheduler for a pod has its trace recorded, unless its caller said otherwise: so
   that every cold start has one, however small the share of the others.
"""

import re
from typing import Final

from inferx.exec.clock import Clock
from inferx.exec.gateway.dispatch import FunctionName, Route
from inferx.exec.gateway.heads import RequestHead
from inferx.exec.gateway.records import NOBODY, Records, RequestRecord
from inferx.exec.gateway.refusals import Refused
from inferx.exec.gateway.request_log import RequestLog
from inferx.exec.gateway.request_spans import record_spans
from inferx.exec.tracing.context import TraceContext, new_span_id, new_trace_id, parse
from inferx.exec.tracing.recorder import Recorder

__all__ = ["BAD_ID", "Requests", "bad_id"]

FUNCTIONS_LIMIT: Final = 4_096
"""Functions whose queue is remembered though nobody waits in it."""
BAD_ID: Final = "bad request"
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:=@+-]{0,127}")


class Requests:
    """Told by the proxy of each step of a request.

    Args:
        clock: The time.
        recorder: Takes spans; None traces nothing.
        log: Writes down how requests went.
    """

    def __init__(
        self, clock: Clock, *, recorder: Recorder | None = None, log: RequestLog | None = None
    ) -> None:
        self.records = Records()
        self._clock = clock
        self._recorder = recorder
        self._log = log or RequestLog(clock)
        self._waiting: dict[FunctionName, dict[RequestRecord, None]] = {}
        """Who waits for a slot, by function, in their order."""

    def begin(self, head: RequestHead) -> RequestRecord:
        """Return a new request's record; its reason is `BAD_ID` if its own id cannot be taken."""
        given = head.told.request_id
        own = None if given is None or _ID.fullmatch(given) is None else given
        record = RequestRecord(own or self.records.new_id(), self._clock.now_ns())
        if own != given:
            record.reason = BAD_ID
        recorder = self._recorder
        if recorder is not None:
            caller = parse(head.told.traceparent)
            if caller is None:
                trace_id = new_trace_id()
                sampled = recorder.samples(trace_id)
            else:
                trace_id, record.parent_id, sampled = caller
                record.decided = True
            record.trace = TraceContext(trace_id, new_span_id(), sampled)
        return record

    def let_in(self, record: RequestRecord, function: FunctionName, head: RequestHead) -> None:
        """Take in that a request may call a function, and asks for a slot."""
        waiting = self._waiting.get(function)
        if waiting is None:
            if len(self._waiting) >= FUNCTIONS_LIMIT:
                self._waiting = {name: those for name, those in self._waiting.items() if those}
            waiting = self._waiting[function] = {}
        record.function = function
        record.method = head.told.method
        record.queued_ns = self._clock.now_ns()
        record.among = waiting
        record.ahead = len(waiting)
        record.tries = 1
        waiting[record] = None
        self.records.begin(record)

    def waits_again(self, record: RequestRecord) -> None:
        """Take in that it asks for another slot."""
        record.tries += 1
        record.among[record] = None

    def started(self, record: RequestRecord, route: Route) -> None:
        """Take in that it has a slot."""
        record.started_ns = self._clock.now_ns()
        record.pod = route.pod
        record.address = route.address
        record.lease = self.records.lease(route.pod)
        record.candidates = route.candidates
        record.among.pop(record, None)

    def sent(self, record: RequestRecord) -> str:
        """Take in that it is sent to its pod; return the `traceparent` to send, if any."""
        record.sent_ns = self._clock.now_ns()
        trace = record.trace
        if trace is None:
            return ""
        # A pod that took no connection was sent nothing: the next one is a part of its own.
        record.upstream_id = new_span_id()
        return trace._replace(span_id=record.upstream_id).header

    def ended(self, record: RequestRecord) -> None:
        """Take in that it is over."""
        if record.function is None:
            return
        record.ended_ns = self._clock.now_ns()
        # Kept for long, it must hold nobody who waits.
        record.among.pop(record, None)
        record.among = NOBODY
        if not self.records.end(record) or self._log.everything:
            self._log.ended(record)
        if self._recorder is not None:
            record_spans(self._recorder, record)
            record.pod_headers = ()

    def trace_of(self, function: FunctionName) -> str:
        """Return the trace that a question for a pod of a function belongs to, as `traceparent`.

        It is that of who waits longest among those whose trace is recorded, or may be.
        """
        if self._recorder is None:
            return ""
        for record in self._waiting.get(function, ()):
            trace = record.trace
            if trace is None or not (trace.sampled or not record.decided):
                continue
            record.trace = trace._replace(sampled=True)
            record.queue_id = record.queue_id or new_span_id()
            return record.trace._replace(span_id=record.queue_id).header
        return ""


def bad_id() -> Refused:
    """Return the answer to a request whose own id is too long, or of other characters."""
    text = "expected 1 to 128 of letters, digits and ._:=@+-, a letter or digit first"
    return Refused(BAD_ID, f"X-Request-Id: {text}")
