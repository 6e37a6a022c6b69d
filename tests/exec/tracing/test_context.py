"""What crosses wires: `traceparent`, and what pods tell of their part."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferx.core.errors import DescriptionError
from inferx.exec.tracing.config import RATIO, TraceConfig, trace_config
from inferx.exec.tracing.context import TraceContext, new_span_id, new_trace_id, parse
from inferx.exec.tracing.told import Part, told_by_pod

GOOD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE = 0x0AF7651916CD43DD8448EB211C80319C
SPAN = 0xB7AD6B7169203331


@given(
    st.integers(1, (1 << 128) - 1),
    st.integers(1, (1 << 64) - 1),
    st.booleans(),
)
def test_what_is_written_is_read(trace, span, sampled):
    context = TraceContext(trace, span, sampled)
    assert parse(context.header) == context


@given(st.text(max_size=80) | st.binary(max_size=80).map(lambda raw: raw.decode("latin-1")))
def test_nothing_that_is_sent_breaks_the_reader(text):
    found = parse(text)
    assert found is None or parse(found.header) == found


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        GOOD.upper(),
        GOOD.replace("00-0", "ff-0", 1),
        GOOD + "-more",
        GOOD[:-1],
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        "01" + GOOD[2:] + "-" + "x" * 512,
    ],
)
def test_what_w3c_does_not_allow_says_nothing(text):
    assert parse(text) is None


def test_a_later_version_is_read_as_far_as_this_one_goes():
    assert parse("01" + GOOD[2:] + "-more") == TraceContext(TRACE, SPAN, sampled=True)
    assert parse(GOOD[:-1] + "2") == TraceContext(TRACE, SPAN, sampled=False)
    assert parse(GOOD[:-1] + "3") == TraceContext(TRACE, SPAN, sampled=True)


def test_ids_are_never_zero_and_differ():
    assert len({new_trace_id() for _ in range(1000)} - {0}) == 1000
    assert len({new_span_id() for _ in range(1000)} - {0}) == 1000


# -- pods ---
def test_a_pod_tells_of_its_part_where_its_caller_records_it():
    part = Part(GOOD)
    part.lap("wait")
    part.lap("first")
    headers = [(name.encode(), value.encode()) for name, value in part.headers().items()]
    span, told = told_by_pod(headers, TRACE)
    assert span not in {0, SPAN}
    assert list(told) == ["pod.wait_ms", "pod.first_ms"]
    assert all(0 <= took < 1e4 for took in told.values())


@pytest.mark.parametrize("asked", [None, "nonsense", GOOD[:-1] + "0"])
def test_a_pod_whose_caller_records_nothing_tells_nothing(asked):
    part = Part(asked)
    part.lap("wait")
    assert part.headers() == {}


@pytest.mark.parametrize(
    ("response", "timing", "expected"),
    [
        # Of another trace: a tenant's program has no say there.
        (f"00-{'1' * 32}-b7ad6b7169203331-01", "a;dur=1", (0, {})),
        ("nonsense", "a;dur=1", (0, {})),
        (GOOD, "", (SPAN, {})),
        (GOOD, "a;dur=1.5, b;desc=x, C;dur=2, d;dur=-1, e;dur=1e9", (SPAN, {"pod.a_ms": 1.5})),
        (GOOD, ", ".join(f"m{n};dur=1" for n in range(99)), None),
        (GOOD, "a;dur=1" + " " * 100_000, (SPAN, {"pod.a_ms": 1.0})),
    ],
)
def test_what_a_pod_tells_is_taken_within_bounds(response, timing, expected):
    headers = [(b"TraceResponse", response.encode()), (b"server-timing", timing.encode())]
    found = told_by_pod(headers, TRACE)
    if expected is None:
        assert len(found[1]) == 8
    else:
        assert found == expected


# -- options ---
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize(
    ("option", "environment", "expected"),
    [
        (None, {}, None),
        (None, {ENDPOINT: "http://a:4317"}, "http://a:4317"),
        (
            None,
            {ENDPOINT: "http://a:1", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b:2"},
            "http://b:2",
        ),
        ("https://c:3", {ENDPOINT: "http://a:4317"}, "https://c:3"),
        ("http://[::1]:4317/", {}, "http://[::1]:4317"),
        ("http://a:1", {"OTEL_SDK_DISABLED": "true"}, None),
        ("http://a:1", {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http://a:1"),
    ],
)
def test_traces_go_where_options_then_standard_variables_say(option, environment, expected):
    found = trace_config(option, RATIO, environment)
    assert found == (None if expected is None else TraceConfig(expected, RATIO))


@pytest.mark.parametrize(
    ("option", "environment"),
    [
        ("a:4317", {}),
        ("http://a", {}),
        ("http://a:port", {}),
        ("http://a:70000", {}),
        ("http://me:secret@a:1", {}),
        ("http://a:1/v1/traces", {}),
        ("http://a:1?key=secret", {}),
        ("ftp://a:1", {}),
        (None, {ENDPOINT: "a"}),
        ("http://a:1", {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}),
    ],
)
def test_an_endpoint_that_is_none_is_refused_in_a_line_without_secrets(option, environment):
    with pytest.raises(DescriptionError) as refused:
        trace_config(option, RATIO, environment)
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)
    assert "expected" in str(refused.value)
