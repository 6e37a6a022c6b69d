"""Whether a service records traces, and where it sends them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from inferx.core.errors import DescriptionError

__all__ = ["RATIO", "TraceConfig", "trace_config"]

RATIO: Final = 0.01
"""The share of requests that are recorded if nothing else is said."""
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


@dataclass(frozen=True, slots=True)
class TraceConfig:
    """Where spans go, and how many traces begin here.

    Attributes:
        endpoint: Of an OTLP receiver over gRPC, as a URL; `http` is in the clear.
        ratio: Share of the requests without a caller's decision that are recorded, from 0 to 1.
    """

    endpoint: str
    ratio: float = RATIO


def trace_config(
    endpoint: str | None, ratio: float, environment: Mapping[str, str]
) -> TraceConfig | None:
    """Return what options and OpenTelemetry's own variables say; None where nothing is traced.

    Raises:
        DescriptionError: They say what cannot be done.
    """
    named = "--otlp" if endpoint else next((one for one in _ENDPOINTS if environment.get(one)), "")
    if not named or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    url = endpoint or environment[named]
    for name in _PROTOCOLS:
        if environment.get(name, "grpc") != "grpc":
            raise DescriptionError(f"{name} {environment[name]}: expected grpc, the one there is")
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    whole = parts.scheme in {"http", "https"} and parts.hostname and port
    if not whole or parts.username or parts.query or parts.path not in {"", "/"}:
        raise DescriptionError(f"{named}: expected http://HOST:PORT or https://HOST:PORT")
    return TraceConfig(f"{parts.scheme}://{parts.netloc}", ratio)
