"""A request's spans, made from its record when it is over."""

from inferx.exec.gateway.records import RequestRecord
from inferx.exec.tracing.context import new_span_id
from inferx.exec.tracing.recorder import Attributes, Event, Recorder
from inferx.exec.tracing.told import told_by_pod

__all__ = ["record_spans"]


def record_spans(recorder: Recorder, record: RequestRecord) -> None:
    """Record what a request did: it waited, its pod was asked, its pod answered."""
    trace = record.trace
    if trace is None or not trace.sampled:
        return
    end_ns = record.ended_ns
    about = _about(record)
    if record.queued_ns:
        waited_ns = record.started_ns or end_ns
        recorder.record(
            "queue",
            trace._replace(span_id=record.queue_id or new_span_id()),
            trace.span_id,
            record.queued_ns,
            waited_ns,
            attributes={**about, "inferx.ahead": record.ahead, "inferx.tries": record.tries},
            error="" if record.started_ns else record.reason or "gone",
        )
    if record.sent_ns:
        upstream = trace._replace(span_id=record.upstream_id)
        first = (Event("first byte", record.first_ns),) if record.first_ns else ()
        recorder.record(
            "upstream",
            upstream,
            trace.span_id,
            record.sent_ns,
            end_ns,
            kind="client",
            attributes={**about, "server.address": record.address},
            events=first,
            error=record.reason,
        )
        pod_span_id, pod_told = told_by_pod(record.pod_headers, trace.trace_id)
        if pod_span_id:
            # The pod cannot reach a receiver, nor keep a connection to one through a snapshot: it
            # says which span is its own, and the span is recorded here.
            recorder.record(
                "pod",
                trace._replace(span_id=pod_span_id),
                record.upstream_id,
                record.sent_ns,
                end_ns,
                kind="server",
                attributes={**about, **pod_told},
                events=first,
                error=record.reason,
                of_pod=True,
            )
    recorder.record(
        f"{record.method} {record.route}",
        trace,
        record.parent_id,
        record.arrived_ns,
        end_ns,
        kind="server",
        attributes={
            **about,
            "http.request.method": record.method,
            "http.route": record.route,
            "http.response.status_code": record.status,
            "inferx.cold": record.was_cold,
            "inferx.reason": record.reason,
            "inferx.output_tokens": record.output_tokens,
        },
        error=record.failure,
    )


def _about(record: RequestRecord) -> Attributes:
    function = record.function
    assert function is not None, "it was let in"
    about: dict[str, str | int] = {
        "inferx.request": record.id,
        "inferx.tenant": function.tenant,
        "inferx.namespace": function.namespace,
        "inferx.function": function.name,
    }
    if record.pod >= 0:
        about["inferx.pod"] = record.pod
    return about
