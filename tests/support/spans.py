"""Spans in memory: the SDK's own exporter, which keeps what it is given."""

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from inferx.exec.tracing.recorder import Recorder

__all__ = ["Kept", "kept"]


class Kept:
    """A recorder, and the spans that it recorded."""

    def __init__(self, ratio: float) -> None:
        self._exporter = InMemorySpanExporter()
        processor = SimpleSpanProcessor(self._exporter)
        self.recorder = Recorder(processor, {"service.name": "inferx-test"}, ratio)

    @property
    def spans(self):
        """All spans, in the order in which they ended."""
        return self._exporter.get_finished_spans()

    def named(self, name):
        """The one span of a name."""
        (one,) = [span for span in self.spans if span.name == name]
        return one


def kept(ratio: float = 1.0) -> Kept:
    """Return a recorder that keeps what it records."""
    return Kept(ratio)
