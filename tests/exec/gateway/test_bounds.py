"""Every bound of the gateway's HTTP holds, and nothing is left behind."""

import asyncio
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from gateway_bed import (
    CALL,
    LIMIT_S,
    Pod,
    answer,
    echo,
    gateway,
    request,
    run,
    told,
    until,
)

from inferx.exec.gateway.refusals import Refused

FUNCTIONS = Path(__file__).parents[3] / "deploy" / "functions"


def code(got):
    return json.loads(got.body)["error"]["code"]


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: a"])
def test_a_head_that_does_not_come_closes_the_connection(sent):
    async def main():
        async with gateway(header_s=0.2) as bed:
            reader, writer = await bed.connect()
            writer.write(sent)
            async with asyncio.timeout(LIMIT_S):
                got = await reader.read()
            assert got.startswith(b"HTTP/1.1 408") if sent else got == b""
            writer.close()

    run(main())


def test_a_head_that_drips_is_not_given_more_time():
    async def main():
        async with gateway(header_s=0.3) as bed:
            reader, writer = await bed.connect()
            writer.write(b"GET / HTTP/1.1\r\n")
            reading = asyncio.create_task(reader.read())
            async with asyncio.timeout(5):
                while not reading.done():
                    writer.write(b"X-A: b\r\n")
                    await asyncio.sleep(0.02)
            assert reading.result().startswith(b"HTTP/1.1 408")
            writer.close()

    run(main())


@pytest.mark.parametrize("path", [CALL + "/x", "/v1/completions"])
def test_a_body_that_does_not_come_is_given_up(path):
    async def main():
        async with Pod(echo) as pod, gateway(pod.address, body_idle_s=0.2) as bed:
            reader, writer = await bed.connect()
            writer.write(request("POST", path, ["Content-Length: 10"]) + b'{"a":')
            got = await answer(reader)
            assert (got.status, code(got)) == (408, "request_timeout")
            assert await reader.read() == b""
            writer.close()
            await until(lambda: bed.router.running() == 0)

    run(main())


@pytest.mark.parametrize("path", [CALL + "/x", "/v1/completions"])
def test_a_body_that_drips_is_not_given_more_time(path):
    async def main():
        async with Pod(echo) as pod, gateway(pod.address, body_idle_s=0.3) as bed:
            reader, writer = await bed.connect()
            writer.write(request("POST", path, ["Content-Length: 100000"]))
            reading = asyncio.create_task(answer(reader))
            async with asyncio.timeout(5):
                while not reading.done():
                    writer.write(b" ")
                    await asyncio.sleep(0.02)
            assert (reading.result().status, code(reading.result())) == (408, "request_timeout")
            writer.close()
            await until(lambda: bed.router.running() == 0)

    run(main())


def test_a_body_that_the_gateway_does_not_take_loses_no_time():
    async def main():
        bounds = {"body_idle_s": 0.4, "body_ahead_bytes": 1000}
        async with Pod(echo) as pod, gateway(pod.address, **bounds) as bed:
            bed.granting = False
            whole = request("POST", CALL + "/x", chunks=[bytes(500)] * 100)
            reader, writer = await bed.connect()
            writer.write(whole[:20_000])
            await until(lambda: bed.dispatch.waiting == 1)
            await asyncio.sleep(1.0)
            bed.grant()
            writer.write(whole[20_000:])
            got = await answer(reader)
            assert (got.status, got.body) == (200, bytes(50_000))
            writer.close()

    run(main())


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"a" * 5000,
        b"GET / HTTP/1.1\r\nX: " + b"a" * 5000,
        b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 1000,
    ],
)
def test_a_head_has_a_size(sent, caplog):
    async def main():
        async with gateway(header_bytes=4096) as bed:
            reader, writer = await bed.connect()
            writer.write(sent)
            got = await answer(reader)
            assert (got.status, code(got)) == (431, "headers_too_large")
            writer.close()

    run(main())
    # It is refused once, however many bounds it breaks: nothing is written behind the end.
    assert caplog.messages == []


def test_trailers_have_a_size():
    async def main():
        async with Pod(echo) as pod, gateway(pod.address, header_bytes=4096) as bed:
            reader, writer = await bed.connect()
            writer.write(request("POST", CALL + "/x", ["Transfer-Encoding: chunked"]))
            writer.write(b"1\r\na\r\n0\r\nX: " + b"a" * 9000)
            got = await answer(reader)
            assert got.status == 431
            writer.close()

    run(main())


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_has_a_size(chunked):
    body = bytes(200_000)

    async def main():
        async with Pod(echo) as pod, gateway(pod.address, body_bytes=100_000) as bed:
            reader, writer = await bed.connect()
            writer.write(
                request("POST", CALL + "/x", chunks=[body[:60_000]] * 4)
                if chunked
                else request("POST", CALL + "/x", body=body)
            )
            got = await answer(reader)
            assert (got.status, code(got)) == (413, "body_too_large")
            writer.close()
            assert bed.router.finished == 0

    run(main())


@pytest.mark.parametrize("length", ["Content-Length: 8000000", "Transfer-Encoding: chunked"])
def test_of_who_is_not_known_nothing_but_the_head_is_read(length):
    async def main():
        async with gateway(body_idle_s=LIMIT_S) as bed:
            bed.unknown = Refused("unauthenticated", "no key")
            for path in ("/v1/completions", "/v1/chat/completions", CALL + "/x"):
                reader, writer = await bed.connect()
                writer.write(request("POST", path, [length]))
                got = await answer(reader)
                assert (got.status, code(got)) == (401, "unauthenticated")
                writer.close()

    run(main())


def test_how_far_is_read_for_a_model_is_bounded_and_what_was_read_goes_on():
    late = json.dumps({"prompt": "x" * 50_000, "model": "tiny"}).encode()
    early = json.dumps({"model": "tiny", "prompt": "x" * 300_000}).encode()

    async def main():
        async with Pod(echo) as pod, gateway(pod.address, peek_bytes=100_000) as bed:
            for body in (late, early):
                assert (await bed.ask("POST", "/v1/completions", body=body)).body == body
            huge = json.dumps({"prompt": "x" * 200_000, "model": "tiny"}).encode()
            reader, writer = await bed.connect()
            writer.write(request("POST", "/v1/completions", body=huge)[:180_000])
            got = await answer(reader)
            assert (got.status, code(got)) == (413, "body_too_large")
            writer.close()
            for body in (b"{", b"[]", b"{}", b'{"model": 1}', b"\xff"):
                got = await bed.ask("POST", "/v1/completions", body=body)
                assert (got.status, code(got)) == (400, "bad_request")

    run(main())


def test_connections_have_a_number():
    async def main():
        async with gateway(connections=2) as bed:
            held = [await bed.connect() for _ in range(2)]
            await until(lambda: bed.gateway.connections == 2)
            got = await bed.ask()
            assert (got.status, got["retry-after"]) == (503, "1")
            held[0][1].close()
            await until(lambda: bed.gateway.connections == 1)
            assert (await bed.ask(path="/")).status == 404
            held[1][1].close()

    run(main())


@pytest.mark.parametrize("what", ["pod_idle_s", "pod_total_s"])
def test_a_pod_that_does_not_answer_is_given_up(what):
    async def main():
        async def silent(asked, reader, writer):
            await reader.read()
            raise ConnectionError

        async with Pod(silent) as pod, gateway(pod.address, **{what: 0.2}) as bed:
            got = await bed.ask("POST", body=b"{}")
            assert (got.status, code(got)) == (504, "pod_timeout")
            await until(lambda: pod.left == 1)

    run(main())


def test_a_client_that_reads_nothing_is_cut_off():
    async def main():
        async with (
            Pod(told(bytes(32 * 2**20))) as pod,
            gateway(pod.address, write_stall_s=0.3) as bed,
        ):
            _, writer = await bed.connect()
            writer.transport.pause_reading()
            writer.write(request("GET", CALL + "/x"))
            await until(lambda: bed.router.failed == 1)
            assert bed.gateway.connections == 0
            writer.transport.abort()

    run(main())


def test_an_idle_connection_is_closed():
    async def main():
        async with Pod(echo) as pod, gateway(pod.address, keep_alive_s=0.2) as bed:
            reader, writer = await bed.connect()
            writer.write(request("GET", CALL + "/x"))
            assert (await answer(reader)).status == 200
            async with asyncio.timeout(LIMIT_S):
                assert await reader.read() == b""
            writer.close()

    run(main())


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 5, 5\r\n",
        b"Transfer-Encoding: identity, chunked, identity\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"X: a\r\n Content-Length: 5\r\n",
        b"X: a\nContent-Length: 5\r\n",
        b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
    ],
)
def test_a_request_that_can_be_read_in_two_ways_is_refused(head):
    async def main():
        async with Pod(echo) as pod, gateway(pod.address) as bed:
            reader, writer = await bed.connect()
            writer.write(b"POST %b/x HTTP/1.1\r\nHost: x\r\n%b\r\n" % (CALL.encode(), head))
            writer.write(b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n")
            got = await answer(reader)
            assert (got.status, code(got)) == (400, "bad_request")
            writer.close()
            assert not any("smuggled" in asked.line for asked in pod.asked)

    run(main())


@pytest.mark.parametrize(
    "path",
    [
        "sleep",
        "sleep?level=2",
        "wake_up",
        "/sleep",
        "%73leep",
        "%2573leep",
        "v1/../sleep",
        "./wake_up",
        "SLEEP",
        "inferx/quiesce",
        "inferx/%71uiesce?timeout_s=1",
        "inferx//wake",
        "release_memory_occupation",
        "resume_memory_occupation",
    ],
)
def test_engines_cannot_be_put_to_sleep_from_outside(path):
    async def main():
        async with Pod(echo) as pod, gateway(pod.address) as bed:
            got = await bed.ask("POST", f"{CALL}/{path}")
            assert (got.status, code(got)) == (403, "forbidden")
            assert pod.asked == []

    run(main())


def test_what_agents_post_to_pods_of_the_shipped_files_no_caller_can():
    async def main():
        async with Pod(echo) as pod, gateway(pod.address) as bed:
            for path in sorted(hooks):
                assert (await bed.ask("POST", f"{CALL}{path}")).status == 403
            assert pod.asked == []

    shipped = (json.loads(file.read_text()) for file in FUNCTIONS.glob("*.json"))
    specs = [one["object"]["spec"]["inferx"] for one in shipped]
    hooks = {spec[key]["path"] for spec in specs for key in ("quiesce", "wake")}
    assert hooks
    run(main())


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/funccall/t/n", 404),
        ("GET", "/funccall/t/n/g/x", 404),
        ("GET", "/funccall/t//f/x", 404),
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/models", 405),
    ],
)
def test_what_is_not_there_is_told(method, path, status):
    async def main():
        async with gateway() as bed:
            got = await bed.ask(method, path)
            assert got.status == status
            assert set(json.loads(got.body)["error"]) == {"message", "type", "param", "code"}

    run(main())


def test_draining_lets_what_is_served_end_and_takes_nothing_more():
    async def main():
        go = asyncio.Event()

        async def late(asked, reader, writer):
            await go.wait()
            await echo(asked, reader, writer)

        async with Pod(late) as pod, gateway(pod.address, drain_s=LIMIT_S) as bed:
            idle, idle_writer = await bed.connect()
            asking = asyncio.create_task(bed.ask("POST", body=b"late"))
            await until(lambda: pod.asked)
            draining = asyncio.create_task(bed.gateway.drain())
            assert await idle.read() == b""
            with pytest.raises(ConnectionRefusedError):
                await bed.connect()
            assert not draining.done()
            go.set()
            got = await asking
            assert (got.body, got["connection"]) == (b"late", "close")
            await draining
            idle_writer.close()

    run(main())


def test_draining_ends_in_time():
    async def main():
        async def never(asked, reader, writer):
            await asyncio.Event().wait()

        async with Pod(never) as pod, gateway(pod.address, drain_s=0.1) as bed:
            asking = asyncio.create_task(bed.ask())
            await until(lambda: pod.asked)
            async with asyncio.timeout(5):
                await bed.gateway.drain()
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await asking
            await until(lambda: bed.router.running() == 0)

    run(main())


def resident_kib():
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def test_ten_thousand_requests_leave_nothing_behind():
    async def main():
        async with Pod(echo) as pod, gateway(pod.address) as bed:

            async def ask(count):
                reader, writer = await bed.connect()
                for number in range(count):
                    body = b"%d" % number
                    writer.write(request("POST", CALL + "/x?a=1", body=body))
                    assert (await answer(reader)).body == body
                    pod.asked.clear()
                writer.close()

            async def many(count):
                async with asyncio.TaskGroup() as tasks:
                    for _ in range(8):
                        tasks.create_task(ask(count // 8))

            await many(2_000)
            await until(lambda: bed.gateway.connections == 0)
            tasks, resident = len(asyncio.all_tasks()), [resident_kib()]
            # Other tests' garbage lies in the same process, and pages come and go with it:
            # what is left behind by requests grows every time.
            for _ in range(3):
                await many(10_000)
                await until(lambda: bed.gateway.connections == 0)
                resident.append(resident_kib())
            assert len(asyncio.all_tasks()) <= tasks
            # A hundred bytes a request would be a megabyte.
            assert min(after - before for before, after in pairwise(resident)) < 1024
            assert bed.router.finished == 32_000

    run(main())
