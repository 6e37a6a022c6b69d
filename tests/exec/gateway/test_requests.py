"""A request's id, its record and its trace, as it goes through the gateway."""

import asyncio
import json
import logging

import pytest
from gateway_bed import CALL, Pod, answer, dead_address, echo, gateway, request, run, told, until
from hand_clock import HandClock
from spans import kept

from inferx.core.types import PodId
from inferx.exec.gateway.api.requests import how_it_started, record_view
from inferx.exec.gateway.choices import Candidate, Choices
from inferx.exec.gateway.dispatch import FunctionName
from inferx.exec.gateway.records import Lease, Records, RequestRecord
from inferx.exec.gateway.refusals import Refused
from inferx.exec.gateway.request_log import LINES_PER_S, RequestLog
from inferx.load import load_bundle

TRACE = "0af7651916cd43dd8448eb211c80319c"
SAMPLED = f"traceparent: 00-{TRACE}-b7ad6b7169203331-01"
UNSAMPLED = SAMPLED[:-1] + "0"


# -- ids ---
def test_an_answer_and_the_pod_are_told_the_request_s_id():
    reply = told(b"ok", b"200 OK", b"X-Request-Id: the-engine's")

    async def main():
        async with Pod(reply) as pod, gateway(pod.address) as bed:
            mine = await bed.ask(headers=["X-Request-Id: mine:1"])
            made = [await bed.ask() for _ in range(2)]
            asked = [one.headers["x-request-id"] for one in pod.asked]
            assert asked == ["mine:1", *(one["x-request-id"] for one in made)]
            assert len(set(asked)) == 3
            for one in (mine, *made):
                assert one.raw.lower().count(b"x-request-id") == 1
            assert all(one.raw.lower().count(b"x-request-id") == 1 for one in pod.asked)

    run(main())


def test_a_refusal_has_an_id_too():
    async def main():
        async with gateway() as bed:
            nowhere = await bed.ask(path="/funccall/t/n/none/x", headers=["X-Request-Id: a"])
            assert (nowhere.status, nowhere["x-request-id"]) == (404, "a")
            assert (await bed.ask(path="/nothing"))["x-request-id"]

    run(main())


@pytest.mark.parametrize("given", ["", "a b", "a" * 129, "-a", "\xe9", "a/b", "a\tb"])
def test_an_id_that_nobody_could_look_for_is_refused(given):
    async def main():
        async with gateway() as bed:
            got = await bed.ask(headers=[f"X-Request-Id: {given}"])
            assert got.status == 400
            assert "X-Request-Id: expected" in json.loads(got.body)["error"]["message"]
            assert got["x-request-id"] not in {given, None}
            assert bed.requests.records.find(given) == []

    run(main())


# -- records ---
def test_a_record_has_what_became_of_a_request():
    reply = told(b'{"usage": {"completion_tokens": 7}}')

    async def main():
        async with Pod(reply) as pod, gateway(pod.address) as bed:
            cold = (await bed.ask())["x-request-id"]
            warm = (await bed.ask())["x-request-id"]
            (one,), (two,) = map(bed.requests.records.find, (cold, warm))
            assert (how_it_started(one), how_it_started(two)) in {
                ("cold", "warm"),
                ("cold", "slot"),
            }
            told_of = record_view(two)
            assert told_of["state"] == "ended"
            assert (told_of["pod"], told_of["status"], told_of["output_tokens"]) == (0, 200, 7)
            times = [told_of[f"{name}_ns"] for name in TIMES]
            assert times == sorted(times)
            assert 0 not in times

    run(main())


TIMES = ("arrived", "queued", "started", "sent", "first", "ended")


def test_a_request_that_waits_can_be_asked_for_and_one_that_left_says_so():
    async def main():
        async with gateway() as bed:
            writers = [(await bed.connect())[1] for _ in range(2)]
            for number, writer in enumerate(writers):
                writer.write(request("GET", CALL + "/x", [f"X-Request-Id: w{number}"]))
                await until(lambda number=number: bed.requests.records.find(f"w{number}"))
            (first,), (second,) = map(bed.requests.records.find, ("w0", "w1"))
            assert (record_view(second)["state"], how_it_started(second)) == ("waiting", "waiting")
            assert (first.ahead, second.ahead) == (0, 1)
            for writer in writers:
                writer.close()
            await until(lambda: first.ended_ns and second.ended_ns)
            assert (second.reason, second.status, how_it_started(second)) == (
                "client left",
                0,
                "none",
            )
            assert bed.requests.records.find("w1") == [second]

    run(main())


def test_what_is_refused_before_it_is_let_in_leaves_no_record():
    async def main():
        async with gateway() as bed:
            bed.denied = Refused("forbidden", "no right")
            assert (await bed.ask(headers=["X-Request-Id: a"])).status == 403
            assert bed.requests.records.find("a") == []

    run(main())


def ended(request_id, *, waited_ns=0, status=200, at=1):
    record = RequestRecord(request_id, at)
    record.function = FunctionName("t", "n", "f")
    record.queued_ns = at
    record.started_ns = at + waited_ns
    record.ended_ns = at + waited_ns + 1
    record.status = status
    return record


def test_plain_requests_do_not_push_out_those_that_waited_or_failed():
    records = Records(kept=3, kept_plain=2)
    slow = [ended(f"slow{n}", waited_ns=10**9, at=n + 1) for n in range(2)]
    failed = [ended("failed", status=502, at=9)]
    for one in (*slow, *failed, *(ended(f"plain{n}", at=n + 1) for n in range(100))):
        records.begin(one)
        assert records.find(one.id) == [one]
        records.end(one)
    assert [bool(records.find(f"plain{n}")) for n in (0, 97, 98, 99)] == [False, False, True, True]
    assert all(records.find(one.id) == [one] for one in (*slow, *failed))
    another = ended("slow1", waited_ns=10**9, at=50)
    records.begin(another)
    records.end(another)
    # Callers may use an id again: the latest comes first, and the oldest of all has left.
    assert records.find("slow1") == [another, slow[1]]
    assert records.find("slow0") == []


def test_what_a_pod_was_chosen_among_is_noted_and_the_choice_is_the_policy_s():
    class Pods:
        def __init__(self, pod, free_slots, inflight):
            self.id, self.free_slots, self.inflight = pod, free_slots, inflight

    class Arrived:
        request = 5

    choices = Choices()
    bundle = load_bundle("default")
    watched = choices.watched(bundle)
    pods = [Pods(PodId(1), 2, 6), Pods(PodId(2), 8, 0)]
    asked = Arrived(), pods, None, None
    assert watched.routing.route(*asked) == bundle.routing.route(*asked)
    assert choices.take(5) == (Candidate(PodId(1), 2, 6), Candidate(PodId(2), 8, 0))
    assert choices.take(5) == ()
    for number in range(10_000):
        Arrived.request = number
        watched.routing.route(*asked)
    assert choices.take(0) == ()
    assert choices.take(9_999)


def test_a_record_has_the_pods_that_its_own_was_chosen_among():
    async def main():
        async with (
            Pod(echo) as one,
            Pod(echo) as two,
            gateway(one.address, two.address) as bed,
        ):
            await bed.ask()
            bed.grant()
            await until(lambda: len(bed.router._pods) == 2)
            chosen = (await bed.ask())["x-request-id"]
            (record,) = bed.requests.records.find(chosen)
            told_of = record_view(record)["candidates"]
            assert [one["pod"] for one in told_of] == [0, 1]
            assert [one["free_slots"] for one in told_of] == [8, 8]
            assert [one["pod"] for one in told_of if one["chosen"]] == [record.pod]

    run(main())


# -- traces ---
def ids(span):
    return (
        f"{span.context.trace_id:032x}",
        span.context.span_id,
        span.parent and span.parent.span_id,
    )


def test_a_caller_s_trace_goes_on_through_the_queue_to_the_pod():
    there = kept(ratio=0)

    async def telling(asked, reader, writer):
        caller = asked.headers["traceparent"]
        response = caller[:36] + "00000000000000aa" + caller[52:]
        headers = (f"traceresponse: {response}".encode(), b"Server-Timing: wait;dur=2.5")
        await told(b"ok", b"200 OK", *headers)(asked, reader, writer)

    async def main():
        async with Pod(telling) as pod, gateway(pod.address, recorder=there.recorder) as bed:
            await bed.ask(headers=[SAMPLED, "tracestate: a=b"])
            await until(lambda: len(there.spans) == 4)
            assert pod.asked[0].raw.count(b"traceparent") == 1
            assert pod.asked[0].headers["tracestate"] == "a=b"
            root = there.named("GET /funccall/{tenant}/{namespace}/{function}")
            queue, upstream, answered = map(there.named, ("queue", "upstream", "pod"))
            trace, own, caller = ids(root)
            assert (trace, caller) == (TRACE, 0xB7AD6B7169203331)
            assert ids(queue)[::2] == ids(upstream)[::2] == (TRACE, own)
            assert pod.asked[0].headers["traceparent"] == f"00-{TRACE}-{ids(upstream)[1]:016x}-01"
            assert ids(answered) == (TRACE, 0xAA, ids(upstream)[1])
            assert answered.attributes["pod.wait_ms"] == 2.5
            assert answered.resource.attributes["service.name"] == "inferx-pod"
            assert bed.asked == [f"00-{TRACE}-{ids(queue)[1]:016x}-01"]
            assert root.attributes["inferx.tenant"] == "t"

    run(main())


def test_a_cold_start_is_traced_however_small_the_share_and_a_warm_one_is_not():
    there = kept(ratio=0)

    async def main():
        async with Pod(echo) as pod, gateway(pod.address, recorder=there.recorder) as bed:
            await bed.ask()
            await until(lambda: len(there.spans) == 3)
            assert bed.asked[0].endswith("-01")
            await bed.ask()
            assert pod.asked[0].headers["traceparent"].endswith("-01")
            assert pod.asked[1].headers["traceparent"].endswith("-00")
            assert len(there.spans) == 3

    run(main())


def test_a_caller_who_records_nothing_decides_for_all():
    there = kept(ratio=1)

    async def main():
        async with Pod(echo) as pod, gateway(pod.address, recorder=there.recorder) as bed:
            assert (await bed.ask(headers=[UNSAMPLED])).status == 200
            assert bed.asked == [""]
            sent = pod.asked[0].headers["traceparent"]
            assert TRACE in sent
            assert sent.endswith("-00")
            assert there.spans == ()

    run(main())


def test_of_many_who_wait_one_is_traced_for_their_pod():
    there = kept(ratio=0)

    async def main():
        async with Pod(echo) as pod, gateway(pod.address, recorder=there.recorder) as bed:
            bed.granting = False
            async with asyncio.TaskGroup() as tasks:
                for number in range(8):
                    tasks.create_task(bed.ask(headers=[f"X-Request-Id: r{number}"]))
                await until(lambda: bed.router.waiting() == 8)
                bed.grant()
            # It asked at 1, 2, 4 and 8: for the same one, who waited longest.
            assert len(bed.asked) == 4
            assert len(set(bed.asked)) == 1
            await until(lambda: len(there.spans) == 3)
            assert {span.attributes["inferx.request"] for span in there.spans} == {"r0"}

    run(main())


def test_a_request_that_fails_says_so_in_its_spans():
    there = kept(ratio=1)

    async def main():
        where = dead_address()
        async with gateway(where, where, recorder=there.recorder, connect_tries=2) as bed:
            assert (await bed.ask()).status == 502
            await until(lambda: len(there.spans) == 2)
            assert there.named("queue").attributes["inferx.tries"] == 2
            root = there.named("GET /funccall/{tenant}/{namespace}/{function}")
            assert (root.status.description, root.attributes["http.response.status_code"]) == (
                "pod failed",
                502,
            )

    run(main())


def test_a_pod_that_breaks_off_says_so_in_its_spans():
    there = kept(ratio=1)

    async def breaks(asked, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour")
        await writer.drain()
        writer.close()

    async def main():
        async with Pod(breaks) as pod, gateway(pod.address, recorder=there.recorder) as bed:
            reader, writer = await bed.connect()
            writer.write(request("GET", CALL + "/x"))
            assert not (await answer(reader)).whole
            writer.close()
            await until(lambda: len(there.spans) == 3)
            assert there.named("upstream").status.description == "pod failed"
            assert [event.name for event in there.named("upstream").events] == ["first byte"]

    run(main())


# -- the log ---
def lines_of(caplog):
    found = [one for one in caplog.records if one.name.endswith("request_log")]
    return [(one.levelname, one.fields) for one in found]


def test_the_log_tells_of_cold_and_failed_requests_within_a_bound(caplog):
    caplog.set_level(logging.INFO)
    clock = HandClock()
    log = RequestLog(clock)
    log.ended(ended("plain"))
    refused = ended("refused", status=404)
    refused.reason = "not found"
    log.ended(refused)
    left = ended("left", status=0)
    left.reason = "client left"
    log.ended(left)
    assert lines_of(caplog) == []
    broken = ended("broken", status=200)
    broken.reason = "pod failed"
    log.ended(broken)
    cold = ended("cold", waited_ns=5)
    cold.lease = Lease(granted_ns=3, cold=True)
    log.ended(cold)
    ((level, about), (other, of_cold)) = lines_of(caplog)
    assert (level, about["request"], about["reason"]) == ("WARNING", "broken", "pod failed")
    assert (about["tenant"], about["namespace"], about["function"]) == ("t", "n", "f")
    assert (other, of_cold["cold"], of_cold["waited_ns"]) == ("INFO", True, 5)
    for _ in range(100):
        log.ended(broken)
    assert len(lines_of(caplog)) == LINES_PER_S
    clock.advance(1)
    log.ended(broken)
    assert lines_of(caplog)[-1][1]["untold"] == 102 - LINES_PER_S
    everything = RequestLog(clock, everything=True)
    before = len(lines_of(caplog))
    for _ in range(100):
        everything.ended(ended("plain"))
    assert len(lines_of(caplog)) == before + 100
