"""What goes through the gateway goes through untouched, once, and piece by piece."""

import asyncio
import json

import pytest
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
from hypothesis import given
from hypothesis import strategies as st

QUERY = st.text(st.characters(codec="ascii", exclude_characters=" #\x7f", min_codepoint=33))
PIECES = 1000
"""Of 64 KiB: more than all sockets on the way hold."""
TYPE = st.sampled_from(["application/json", "multipart/form-data; boundary=x", "audio/wav"])


@given(
    query=QUERY,
    pieces=st.lists(st.binary(max_size=3000), max_size=5),
    chunked=st.booleans(),
    kind=TYPE,
)
def test_query_and_body_arrive_byte_for_byte(query, pieces, chunked, kind):
    async def main():
        async with Pod(echo) as pod, gateway(pod.address) as bed:
            body = b"".join(pieces)
            reader, writer = await bed.connect()
            path = f"{CALL}/v1/audio?{query}"
            headers = [f"Content-Type: {kind}"]
            if chunked:
                writer.write(request("POST", path, headers, chunks=pieces))
            else:
                sent = request("POST", path, headers, body)
                # Not in one segment: heads and bodies come in pieces.
                writer.write(sent[:40])
                await writer.drain()
                await asyncio.sleep(0)
                writer.write(sent[40:])
            got = await answer(reader)
            writer.close()
            assert (got.status, got.body, got.whole) == (200, body, True)
            assert pod.asked[0].body == body
            assert pod.asked[0].line == f"POST /v1/audio?{query} HTTP/1.1"
            assert pod.asked[0].headers["content-type"] == kind

    run(main())


def test_a_multipart_body_larger_than_every_buffer_arrives_whole():
    body = b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n" + bytes(range(256)) * 20_000

    async def main():
        async with Pod(echo) as pod, gateway(pod.address) as bed:
            got = await bed.ask("POST", body=body)
            assert got.body == body

    run(main())


def test_hop_headers_stop_here_and_the_rest_goes_on():
    headers = [
        "Connection: keep-alive, X-Mine",
        "X-Mine: hop",
        "Keep-Alive: 5",
        "TE: trailers",
        "Proxy-Authorization: secret",
        "Authorization: Bearer ix_secret",
        "X-Forwarded-For: 10.0.0.9",
        "X-Other: one",
        "X-Other: two",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ]
    reply = told(
        b"ok", b"200 OK", b"Connection: X-Hop", b"X-Hop: 1", b"Set-Cookie: a", b"Set-Cookie: b"
    )

    async def main():
        async with Pod(reply) as pod, gateway(pod.address) as bed:
            got = await bed.ask(headers=headers)
            raw = pod.asked[0].raw
            for left in (b"X-Mine", b"Keep-Alive", b"TE:", b"secret", b"Connection:"):
                assert left not in raw
            assert b"X-Other: one\r\nX-Other: two\r\n" in raw
            assert pod.asked[0].headers["x-forwarded-for"] == "10.0.0.9, 127.0.0.1"
            assert pod.asked[0].headers["x-forwarded-host"] == "gateway.test"
            assert pod.asked[0].headers["host"] == pod.address
            assert raw.count(b"traceparent") == 1
            assert b"0af7651916cd43dd8448eb211c80319c" in raw
            assert [value for name, value in got.headers if name == "Set-Cookie"] == ["a", "b"]
            assert got["x-hop"] is None
            assert int(got["x-tcpconn-latency"]) >= 0
            assert int(got["x-ttft-latency"]) >= 0
            await bed.ask()
            assert pod.asked[1].headers["traceparent"].count("-") == 3

    run(main())


def test_a_length_cannot_be_hidden_by_naming_it_a_hop_header():
    async def main():
        async with Pod(echo) as pod, gateway(pod.address) as bed:
            got = await bed.ask("POST", headers=["Connection: Content-Length"], body=b"GET / x")
            assert got.body == b"GET / x"

    run(main())


@pytest.mark.parametrize("status", ["201 Created", "400 Bad", "429 Slow", "500 Oops", "503 Later"])
def test_what_a_pod_answers_is_not_replaced_and_not_tried_again(status):
    async def main():
        body = b"not json \xff"
        reply = told(body, status.encode(), b"Retry-After: 7", b"X-Own: 1")
        async with Pod(reply) as pod, gateway(pod.address, pod.address) as bed:
            got = await bed.ask("POST", body=b"{}")
            assert (got.status, got.body) == (int(status[:3]), body)
            assert (got["Retry-After"], got["X-Own"]) == ("7", "1")
            assert len(pod.asked) == 1

    run(main())


def test_answers_without_a_body_end():
    async def main():
        async def script(asked, reader, writer):
            if asked.line.startswith("HEAD"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")
            else:
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

        async with Pod(script) as pod, gateway(pod.address) as bed:
            reader, writer = await bed.connect()
            for method, status in [("HEAD", 200), ("DELETE", 204), ("HEAD", 200)]:
                writer.write(request(method, CALL + "/x"))
                got = await answer(reader, head_only=method == "HEAD")
                assert got.status == status
                assert (got["content-length"] == "99") == (method == "HEAD")
            writer.close()

    run(main())


def test_an_answer_that_ends_with_its_connection_is_whole():
    async def main():
        async def script(asked, reader, writer):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\nsome")
            await writer.drain()
            await asyncio.sleep(0.02)
            writer.write(b" more")
            writer.close()

        async with Pod(script) as pod, gateway(pod.address) as bed:
            got = await bed.ask()
            assert (got.body, got.whole) == (b"some more", True)

    run(main())


@pytest.mark.parametrize(
    "head", [EVENTS + chunk(b"data: 1\n\n"), b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"]
)
def test_an_answer_that_breaks_off_does_not_look_whole(head):
    async def main():
        async def script(asked, reader, writer):
            writer.write(head)
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.close()

        async with Pod(script) as pod, gateway(pod.address) as bed:
            got = await bed.ask("POST", body=b"{}")
            assert got.status == 200
            assert not got.whole
            assert (len(pod.asked), bed.router.failed) == (1, 1)

    run(main())


def test_a_request_whose_body_reached_a_pod_is_not_sent_to_another():
    async def main():
        async def hang_up(asked, reader, writer):
            writer.close()

        async with (
            Pod(hang_up) as one,
            Pod(echo) as other,
            gateway(one.address, other.address, slots=1) as bed,
        ):
            got = await bed.ask("POST", body=b"{}")
            assert got.status == 502
            assert json.loads(got.body)["error"]["code"] == "pod_failed"
            assert (len(one.asked), len(other.asked)) == (1, 0)

    run(main())


def test_a_pod_that_takes_no_connection_costs_another_turn_and_not_the_request():
    async def main():
        async with Pod(echo) as pod, gateway(dead_address(), pod.address, slots=1) as bed:
            # The first pod has failed by then; its lease is still the router's, so make it known.
            bed.grant()
            bed.grant()
            await until(lambda: not bed.free)
            got = await bed.ask("POST", body=b"once")
            assert (got.status, got.body) == (200, b"once")
            assert (bed.router.arrived, bed.router.failed, bed.router.finished) == (2, 1, 1)

    run(main())


def test_where_no_pod_takes_a_connection_the_tries_are_bounded():
    async def main():
        async with gateway(dead_address()) as bed:
            got = await bed.ask("POST", body=b"{}")
            assert got.status == 502
            assert bed.router.arrived == bed.router.failed == 2

    run(main())


def test_connections_to_a_pod_are_used_again_and_stale_ones_are_not():
    async def main():
        async with Pod(echo) as pod, gateway(pod.address, pool_idle_s=0.3) as bed:
            for _ in range(20):
                await bed.ask()
            assert pod.connections == 1
            await until(lambda: pod.left == 1)
            assert (await bed.ask()).status == 200
            assert pod.connections == 2

    run(main())


def test_a_pod_that_answers_before_it_read_the_body_is_not_given_the_next_request():
    async def main():
        async def early(asked, reader, writer):
            await told(b"no", b"413 Too Large")(asked, reader, writer)

        async with Pod(early, read_body=False) as pod, gateway(pod.address) as bed:
            reader, writer = await bed.connect()
            writer.write(request("POST", CALL + "/x", ["Content-Length: 1000"]) + b"part")
            assert (await answer(reader)).status == 413
            writer.close()
            await bed.ask()
            assert pod.connections == 2

    run(main())


def test_a_slow_client_holds_its_pod_back():
    async def main():
        written = 0
        piece = bytes(64 * 1024)

        async def script(asked, reader, writer):
            nonlocal written
            writer.write(EVENTS)
            for _ in range(PIECES):
                writer.write(chunk(piece))
                written += len(piece)
                await writer.drain()
            writer.write(b"0\r\n\r\n")

        async with Pod(script) as pod, gateway(pod.address) as bed:
            reader, writer = await bed.connect()
            writer.write(request("GET", CALL + "/x"))
            await until(lambda: written)
            before = -1
            while written != before:
                before = written
                await asyncio.sleep(0.3)
            # Sockets hold some megabytes; the gateway holds next to nothing.
            assert written < 32 * 2**20
            got = await answer(reader)
            assert len(got.body) == PIECES * len(piece)
            writer.close()

    run(main())


def test_a_slow_pod_holds_its_client_back():
    async def main():
        go = asyncio.Event()

        async def script(asked, reader, writer):
            await go.wait()
            await reader.readexactly(PIECES * 64 * 1024)
            await told(b"done")(asked, reader, writer)

        async with (
            Pod(script, read_body=False) as pod,
            gateway(pod.address, body_bytes=2**30) as bed,
        ):
            reader, writer = await bed.connect()
            piece = bytes(64 * 1024)
            writer.write(request("PUT", CALL + "/x", [f"Content-Length: {PIECES * len(piece)}"]))
            sent = 0

            async def send():
                nonlocal sent
                for _ in range(PIECES):
                    writer.write(piece)
                    await writer.drain()
                    sent += len(piece)

            sending = asyncio.create_task(send())
            await until(lambda: sent)
            before = -1
            while sent != before:
                before = sent
                await asyncio.sleep(0.3)
            assert sent < 32 * 2**20
            go.set()
            await sending
            assert (await answer(reader)).body == b"done"
            writer.close()

    run(main())


def test_a_body_is_not_waited_for_before_its_first_piece_goes_on():
    async def main():
        got = asyncio.Event()

        async def script(asked, reader, writer):
            assert await reader.readexactly(5) == b"first"
            got.set()
            await reader.readexactly(4)
            await told(b"ok")(asked, reader, writer)

        async with Pod(script, read_body=False) as pod, gateway(pod.address) as bed:
            reader, writer = await bed.connect()
            writer.write(request("POST", CALL + "/x", ["Content-Length: 9"]) + b"first")
            async with asyncio.timeout(10):
                await got.wait()
            writer.write(b"last")
            assert (await answer(reader)).body == b"ok"
            writer.close()

    run(main())


def test_requests_sent_ahead_are_answered_in_order():
    async def main():
        async with Pod(echo) as pod, gateway(pod.address) as bed:
            reader, writer = await bed.connect()
            writer.write(request("POST", CALL + "/x", body=b"one"))
            await writer.drain()
            await until(lambda: bed.gateway.connections == 1 and bed.router.arrived == 1)
            writer.write(request("POST", CALL + "/x", body=b"two"))
            assert (await answer(reader)).body == b"one"
            assert (await answer(reader)).body == b"two"
            # In one segment the second is dropped with the connection, never half served.
            writer.write(request("POST", CALL + "/x", body=b"3") + request("GET", CALL + "/x"))
            assert (await answer(reader)).body == b"3"
            assert await reader.read() == b""
            writer.close()

    run(main())
