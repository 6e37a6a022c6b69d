"""Spans that have ended, on their way to an OTLP receiver.

The SDK keeps them in a bounded queue and sends them in batches from a thread of its own; what finds
the queue full is dropped, and a receiver that is away costs a service nothing but its traces.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from inferx import __version__
from inferx.core.errors import InferXError
from inferx.exec.tracing.config import TraceConfig
from inferx.exec.tracing.context import TraceContext

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

__all__ = ["Attributes", "Event", "Kind", "Recorder", "open_recorder"]

Attributes = Mapping[str, str | int | float | bool]
Kind = Literal["internal", "server", "client"]

CLOSE_S: Final = 3.0
"""For the last batches, when a service ends."""
EXPORT_S: Final = 3
"""For one batch."""


POD: Final = "inferx-pod"
"""The service that a pod's span is of."""


class Event(NamedTuple):
    """A moment of a span."""

    name: str
    at_ns: int
    attributes: Attributes = MappingProxyType({})


class Recorder:
    """One service's spans.

    Args:
        processor: Takes ended spans; `BatchSpanProcessor` in a service.
        service: The service's name, and where it runs: attributes of its resource.
        ratio: See `TraceConfig`.
        give_up: Ends an export that is under way.
    """

    def __init__(
        self,
        processor: "SpanProcessor",
        service: Attributes,
        ratio: float,
        give_up: Callable[[], None] = lambda: None,
    ) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import Event as SdkEvent
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
        from opentelemetry.trace.status import Status, StatusCode

        self._processor = processor
        self._give_up = give_up
        self._resource = Resource.create({"service.version": __version__, **service})
        self._pods = Resource.create({"service.name": POD})
        self._scope = InstrumentationScope("inferx", __version__)
        self._bound = round(ratio * (1 << 64))
        self._span, self._event, self._context = ReadableSpan, SdkEvent, SpanContext
        self._flags = TraceFlags(TraceFlags.SAMPLED)
        self._ok, self._status, self._error = Status(), Status, StatusCode.ERROR
        self._kinds = {
            "internal": SpanKind.INTERNAL,
            "server": SpanKind.SERVER,
            "client": SpanKind.CLIENT,
        }

    def samples(self, trace_id: int) -> bool:
        """Say whether a trace that begins here is recorded: by its id, as OpenTelemetry's SDKs."""
        return (trace_id & 0xFFFF_FFFF_FFFF_FFFF) < self._bound

    def record(
        self,
        name: str,
        context: TraceContext,
        parent_id: int,
        start_ns: int,
        end_ns: int,
        *,
        kind: Kind = "internal",
        attributes: Attributes | None = None,
        events: Sequence[Event] = (),
        error: str = "",
        of_pod: bool = False,
    ) -> None:
        """Record a span that has ended; nothing, where nobody records its trace.

        Args:
            name: One of few.
            context: The span's own.
            parent_id: Of the span that it is part of; 0 where it is the first of its trace.
            start_ns: Since 1970.
            end_ns: The same; not before the start.
            kind: Which side of a call it is.
            attributes: What it was about.
            events: Moments in it.
            error: Why it failed; "" where it did not.
            of_pod: Whether it is a pod's, and not this service's own.
        """
        if not context.sampled:
            return
        parent = None
        if parent_id:
            parent = self._context(context.trace_id, parent_id, is_remote=True)
        self._processor.on_end(
            self._span(
                name,
                self._context(
                    context.trace_id,
                    context.span_id,
                    is_remote=False,
                    trace_flags=self._flags,
                ),
                parent=parent,
                resource=self._pods if of_pod else self._resource,
                attributes=dict(attributes or {}),
                events=[self._event(one.name, one.attributes, one.at_ns) for one in events],
                kind=self._kinds[kind],
                status=self._status(self._error, error) if error else self._ok,
                start_time=start_ns,
                end_time=max(start_ns, end_ns),
                instrumentation_scope=self._scope,
            )
        )

    def close(self) -> None:
        """Send what is left, within `CLOSE_S`. Blocks."""
        # The processor waits for its exporter, which a receiver that is away holds up.
        late = threading.Timer(CLOSE_S, self._give_up)
        late.start()
        try:
            self._processor.shutdown()
        finally:
            late.cancel()


def open_recorder(config: TraceConfig | None, service: str, **where: str) -> Recorder | None:
    """Return what records a service's spans; None where nothing is traced.

    Args:
        config: Where they go.
        service: Its kind: gateway, scheduler or agent.
        where: What else is known of it, as its name.

    Raises:
        InferXError: OpenTelemetry's packages are not installed.
    """
    if config is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise InferXError(f"--otlp: {error}; expected the extra inferx[otlp]") from error
    exporter = OTLPSpanExporter(
        endpoint=config.endpoint,
        insecure=config.endpoint.startswith("http://"),
        timeout=EXPORT_S,
    )
    attributes = {"service.name": f"inferx-{service}", **where}
    batches = BatchSpanProcessor(exporter)
    return Recorder(batches, attributes, config.ratio, lambda: exporter.shutdown())  # noqa: PLW0108  # its own arguments have no types
