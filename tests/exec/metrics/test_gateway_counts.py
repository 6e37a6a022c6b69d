"""What a gateway counts of real requests over real sockets, with pods that are scripted."""

import asyncio

from gateway_bed import (
    CALL,
    EVENTS,
    Pod,
    answer,
    chunk,
    dead_address,
    echo,
    gateway,
    request,
    run,
    told,
    until,
)
from prometheus_client.parser import text_string_to_metric_families

from inferx.exec.gateway.refusals import Refused
from inferx.exec.metrics.exposition import exposition
from inferx.exec.metrics.gateway import CLIENT_LEFT, GatewayCounts, GatewayNow, GatewaySource

NAME = ("t", "n", "f")


def counted(bed):
    """Have the bed's function counted apart, and return its counts."""
    bed.gateway.counts.add(NAME)
    return bed.gateway.counts.function(NAME)


def count(histogram):
    return sum(histogram.counts)


def test_calls_are_counted_by_status_and_by_how_long_they_took():
    async def main():
        async with Pod(told(b"{}", b"200 OK")) as pod, gateway(pod.address) as bed:
            f = counted(bed)
            for _ in range(3):
                await bed.ask("POST", body=b"12345")
            warm, cold = f.starts
            assert dict(f.codes) == {200: 3}
            # The first waited for the pod; the bed grants it as started for it.
            assert (cold.calls, warm.calls) == (1, 2)
            for one in (warm, cold):
                assert count(one.wait) == count(one.ttft) == count(one.latency) == one.calls
                assert 0 < one.wait.sum <= one.ttft.sum <= one.latency.sum
            assert count(cold.linear) == 1
            counts = bed.gateway.counts
            assert dict(counts.methods) == {b"POST": 3}
            assert (counts.body_bytes_in, counts.body_bytes_out) == (15, 6)
            assert counts.accepted == 3
            assert counts.refusals == {}

    run(main())


def test_an_error_of_the_pods_has_a_status_and_no_first_token():
    async def main():
        async with Pod(told(b"no", b"500 No")) as pod, gateway(pod.address) as bed:
            f = counted(bed)
            await bed.ask()
            assert dict(f.codes) == {500: 1}
            assert count(f.starts[1].ttft) == 0
            assert count(f.starts[1].latency) == 1

    run(main())


def test_a_first_token_is_counted_when_it_comes_and_not_when_the_stream_ends():
    gate = asyncio.Event()

    async def slow(asked, reader, writer):
        writer.write(EVENTS)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(chunk(b"data: 1\n\n"))
        await gate.wait()
        writer.write(chunk(b"data: 2\n\n") + chunk(b""))

    async def main():
        async with Pod(slow) as pod, gateway(pod.address) as bed:
            f = counted(bed)
            asking = asyncio.create_task(bed.ask())
            await until(lambda: count(f.starts[1].ttft) == 1)
            assert f.starts[1].ttft.sum >= 0.05
            assert count(f.starts[1].latency) == 0
            assert not f.codes
            gate.set()
            assert (await asking).body == b"data: 1\n\ndata: 2\n\n"
            assert count(f.starts[1].ttft) == count(f.starts[1].latency) == 1
            assert dict(f.codes) == {200: 1}

    run(main())


def test_comments_of_the_gateways_own_are_no_first_token():
    gate = asyncio.Event()

    async def later(asked, reader, writer):
        await gate.wait()
        writer.write(EVENTS + chunk(b"data: 1\n\n") + chunk(b""))

    async def main():
        async with Pod(later) as pod, gateway(pod.address, waiting_s=0.1) as bed:
            f = counted(bed)
            bed.granting = False
            reader, writer = await bed.connect()
            writer.write(request("POST", CALL + "/x", ["Accept: text/event-stream"], b"{}"))
            assert b": waiting" in await reader.readuntil(b": waiting")
            bed.grant()
            await until(lambda: f.starts[1].calls == 1)
            assert count(f.starts[1].ttft) == 0
            gate.set()
            await reader.readuntil(b"data: 1")
            await until(lambda: count(f.starts[1].latency) == 1)
            assert count(f.starts[1].ttft) == 1
            assert f.starts[1].wait.sum >= 0.1
            writer.close()

    run(main())


def test_who_leaves_before_an_answer_is_counted_as_such():
    async def silent(asked, reader, writer):
        await asyncio.sleep(60)

    async def main():
        async with Pod(silent) as pod, gateway(pod.address) as bed:
            f = counted(bed)
            _, writer = await bed.connect()
            writer.write(request("GET", CALL + "/x"))
            await until(lambda: pod.asked)
            writer.close()
            await until(lambda: f.codes)
            assert dict(f.codes) == {CLIENT_LEFT: 1}
            assert count(f.starts[1].wait) == 1
            assert count(f.starts[1].latency) == 0

    run(main())


def test_refusals_are_counted_by_reason_wherever_they_come_from():
    async def main():
        async with Pod(echo) as pod, gateway(pod.address, queue_len=0) as bed:
            f = counted(bed)
            bed.granting = False
            assert (await bed.ask()).status == 429
            bed.denied = Refused("rate limited")
            assert (await bed.ask()).status == 429
            bed.denied = None
            assert (await bed.ask(path="/funccall/t/n/none/x")).status == 404
            assert (await bed.ask(path="/nothing")).status == 404
            reader, writer = await bed.connect()
            writer.write(b"no HTTP at all\r\n\r\n")
            assert (await answer(reader)).status == 400
            writer.close()
            counts = bed.gateway.counts
            assert counts.refusals == {
                "queue full": 1,
                "rate limited": 1,
                "not found": 2,
                "bad request": 1,
            }
            assert dict(f.codes) == {429: 2}
            # Who made the name up has no series of its own.
            assert dict(counts.unnamed) == {404: 1}
            assert dict(counts.api) == {404: 1}
            assert f.starts[0].calls == f.starts[1].calls == 0

    run(main())


def test_too_many_connections_are_counted_as_refusals_and_not_as_taken():
    async def main():
        async with Pod(echo) as pod, gateway(pod.address, connections=1) as bed:
            _, kept = await bed.connect()
            await until(lambda: bed.gateway.connections == 1)
            reader, more = await bed.connect()
            assert (await answer(reader)).status == 503
            counts = bed.gateway.counts
            assert counts.refusals == {"too many connections": 1}
            assert counts.accepted == 1
            kept.close()
            more.close()

    run(main())


def test_a_pod_that_takes_no_connection_costs_a_turn_which_is_counted():
    async def main():
        async with Pod(echo) as pod, gateway(dead_address(), pod.address, slots=1) as bed:
            f = counted(bed)
            status = (await bed.ask("POST", body=b"1")).status
            assert bed.gateway.counts.retries == 1
            assert dict(f.codes) == {status: 1}

    run(main())


def test_who_came_after_a_pod_was_started_is_warm_and_who_waited_for_it_is_cold():
    async def main():
        async with Pod(echo) as pod, gateway(pod.address, slots=2) as bed:
            f = counted(bed)
            bed.granting = False
            asking = [asyncio.create_task(bed.ask("POST", body=b"1")) for _ in range(5)]
            await until(lambda: bed.router.waiting() == 5)
            bed.grant()
            await asyncio.gather(*asking)
            # Those that had to wait for a slot of it as well came before it was there, too.
            assert (f.starts[0].calls, f.starts[1].calls) == (0, 5)
            await bed.ask("POST", body=b"1")
            assert (f.starts[0].calls, f.starts[1].calls) == (1, 5)

    run(main())


def test_a_function_that_is_no_more_keeps_its_part_of_the_sums():
    counts = GatewayCounts()
    counts.add(NAME)
    served = counts.function(NAME)
    served.codes[200] += 1
    served.starts[0].connected(0.1)
    counts.add(NAME)
    assert counts.function(NAME) is served
    counts.drop(NAME)
    counts.drop(NAME)
    # Its last call ends after it was deleted.
    served.codes[200] += 1
    for number in range(600):
        other = ("t", "n", str(number))
        counts.add(other)
        counts.function(other).codes[200] += 1
        counts.drop(other)
    # What is not there is counted as nobody's.
    counts.function(NAME).codes[404] += 1
    assert list(counts.named()) == []
    assert sum(one.codes[200] for one in counts.all()) == 602
    assert sum(one.starts[0].calls for one in counts.all()) == 1
    assert counts.unnamed[404] == 1
    assert len(list(counts.all())) < 300


def test_statuses_that_a_tenants_program_makes_up_are_one():
    async def main():
        counts = GatewayCounts()
        counts.add(NAME)
        for code in (200, 299, 418, 499, *range(600, 999)):
            counts.function(NAME).codes[code] += 1
        now = GatewayNow([(NAME, 0, 0)], {}, 0, False, 0, 0)
        text = (await exposition([GatewaySource(counts, lambda: now)])).decode()
        assert {
            one.labels["status"]: one.value
            for family in text_string_to_metric_families(text)
            for one in family.samples
            if one.name == "funccallcnt_total"
        } == {"200": 1, "418": 1, "499": 1, "other": 400}

    run(main())
