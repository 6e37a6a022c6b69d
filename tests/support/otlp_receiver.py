"""An OTLP receiver on loopback: OpenTelemetry's own trace service, which keeps what it is sent."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

__all__ = ["Receiver", "Span", "receiver"]


@dataclass(frozen=True)
class Span:
    """One span, as it came."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    events: tuple[str, ...] = ()
    error: str = ""


@dataclass
class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps spans in the order in which they came."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    came: threading.Condition = field(default_factory=threading.Condition)

    def Export(self, request, context):
        with self.came:
            for resource in request.resource_spans:
                service = _values(resource.resource.attributes)["service.name"]
                for scope in resource.scope_spans:
                    self.spans += [_span(service, one) for one in scope.spans]
            self.came.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def until(self, fits, within_s: float = 20.0) -> list[Span]:
        """Wait until the spans that came fit; return them."""
        with self.came:
            assert self.came.wait_for(lambda: fits(self.spans), within_s), self.spans
            return list(self.spans)


def _span(service, one) -> Span:
    return Span(
        service=service,
        name=one.name,
        trace=one.trace_id.hex(),
        id=one.span_id.hex(),
        parent=one.parent_span_id.hex(),
        start_ns=one.start_time_unix_nano,
        end_ns=one.end_time_unix_nano,
        attributes=_values(one.attributes),
        events=tuple(event.name for event in one.events),
        error=one.status.message if one.status.code == 2 else "",
    )


def _values(attributes) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Receive on a port of the system's choice."""
    server = grpc.server(ThreadPoolExecutor(4))
    made = Receiver()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(made, server)
    made.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield made
    finally:
        server.stop(0).wait()
