"""Spans on their way to a receiver that speaks OTLP, or to none."""

import random
import threading

import pytest
from gateway_bed import dead_address
from otlp_receiver import receiver
from spans import kept

from inferx.exec.tracing.config import TraceConfig
from inferx.exec.tracing.context import TraceContext
from inferx.exec.tracing.recorder import Event, open_recorder

CONTEXT = TraceContext(7, 8, sampled=True)


def test_a_span_arrives_as_it_was_recorded():
    with receiver() as there:
        recorder = open_recorder(TraceConfig(there.url), "gateway", **{"inferx.gateway": "g"})
        assert recorder is not None
        events = (Event("first byte", 15),)
        recorder.record(
            "queue", CONTEXT, 9, 10, 20, attributes={"inferx.pod": 3}, events=events, error="no"
        )
        recorder.record("backwards", CONTEXT._replace(span_id=5), 0, 20, 10)
        recorder.close()
        queue, backwards = there.until(lambda spans: len(spans) == 2)
    assert (queue.service, queue.name) == ("inferx-gateway", "queue")
    assert (int(queue.trace, 16), int(queue.id, 16), int(queue.parent, 16)) == (7, 8, 9)
    assert (queue.start_ns, queue.end_ns) == (10, 20)
    assert (queue.attributes, queue.events, queue.error) == (
        {"inferx.pod": 3},
        ("first byte",),
        "no",
    )
    assert (backwards.parent, backwards.start_ns, backwards.end_ns) == ("", 20, 20)


def test_what_nobody_records_is_not_sent():
    there = kept()
    there.recorder.record("x", CONTEXT._replace(sampled=False), 0, 1, 2)
    assert there.spans == ()


def test_nothing_is_opened_where_nothing_is_traced():
    before = threading.active_count()
    assert open_recorder(None, "gateway") is None
    assert threading.active_count() == before


@pytest.mark.parametrize(("ratio", "least", "most"), [(0, 0, 0), (1, 1000, 1000), (0.1, 60, 150)])
def test_a_share_of_traces_is_recorded_by_their_ids(ratio, least, most):
    recorder = kept(ratio).recorder
    chance = random.Random(1)
    ids = [chance.getrandbits(128) for _ in range(1000)]
    chosen = [one for one in ids if recorder.samples(one)]
    assert least <= len(chosen) <= most
    assert chosen == [one for one in ids if recorder.samples(one)]


def test_a_receiver_that_is_away_holds_nobody_up():
    recorder = open_recorder(TraceConfig(f"http://{dead_address()}"), "gateway")
    assert recorder is not None
    for number in range(5_000):
        recorder.record("x", CONTEXT._replace(span_id=number + 1), 0, 1, 2)
    recorder.close()
    # It came back, and nothing goes on behind it.
    for thread in threading.enumerate():
        if thread.name.startswith("OtelBatch"):
            thread.join(60)
            assert not thread.is_alive()
