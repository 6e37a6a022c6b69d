"""OpenAI clients against real workers, and streams that wait for a pod."""

import asyncio
import json
import signal
from contextlib import suppress

import openai
import pytest
from gateway_bed import (
    CALL,
    EVENTS,
    Pod,
    chunk,
    chunks,
    gateway,
    request,
    run,
    told,
    until,
)
from worker_process import worker

from inferx.exec.gateway.refusals import Refused

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Say something."}]}
STREAM = json.dumps({**CHAT, "stream": True}).encode()
JSON = ["Content-Type: application/json"]


@pytest.fixture(scope="module")
def paced():
    with worker("--weights", "1MiB", "--tokens-per-s", 2000, "--ttft-ms", 1) as one:
        yield one


def client(bed, base="/v1"):
    return openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{bed.port}{base}", api_key="ix_x", max_retries=0, timeout=30
    )


@pytest.mark.parametrize("base", ["/v1", CALL + "/v1"])
def test_the_openai_client_is_served_whole_and_streamed(paced, base):
    async def main():
        async with gateway(f"127.0.0.1:{paced.port}") as bed, client(bed, base) as ai:
            whole = await ai.chat.completions.create(**CHAT, max_tokens=12)
            text = whole.choices[0].message.content
            pieces = [
                piece.choices[0].delta.content or ""
                async for piece in await ai.chat.completions.create(
                    **CHAT, max_tokens=12, stream=True
                )
            ]
            assert len(pieces) > 5
            assert "".join(pieces) == text
            plain = await ai.completions.create(model="tiny", prompt="Hello", max_tokens=3)
            assert plain.usage.completion_tokens == 3
            vector = await ai.embeddings.create(model="tiny", input="Hello")
            assert vector.data[0].embedding
            assert [model.id async for model in ai.models.list()] == ["tiny"]

    run(main())


def test_tokens_that_a_pod_tells_of_reach_the_router_and_whoever_gave_leave(paced):
    async def main():
        async with gateway(f"127.0.0.1:{paced.port}") as bed, client(bed) as ai:
            await ai.chat.completions.create(**CHAT, max_tokens=7)
            async for _ in await ai.chat.completions.create(
                **CHAT, max_tokens=9, stream=True, stream_options={"include_usage": True}
            ):
                pass
            async for _ in await ai.chat.completions.create(**CHAT, max_tokens=5, stream=True):
                pass
            await until(lambda: len(bed.finished) == 3)
            assert bed.finished == bed.passes.tokens == [7, 9, 0]

    run(main())


def test_errors_are_the_openai_clients_own(paced):
    async def main():
        async with gateway(f"127.0.0.1:{paced.port}") as bed, client(bed) as ai:
            with pytest.raises(openai.NotFoundError, match="no model 'other'"):
                await ai.chat.completions.create(**{**CHAT, "model": "other"})
            with pytest.raises(openai.BadRequestError, match="max_tokens"):
                await ai.chat.completions.create(**CHAT, max_tokens=-1)
            for reason, kind in [
                ("unauthenticated", openai.AuthenticationError),
                # Who may not call a model does not learn that it is there.
                ("forbidden", openai.NotFoundError),
            ]:
                bed.denied = Refused(reason)
                with pytest.raises(kind):
                    await ai.chat.completions.create(**CHAT)
            assert (await bed.ask()).status == 403
            bed.denied = Refused("rate limited", retry_after_s=2.4)
            with pytest.raises(openai.RateLimitError) as caught:
                await ai.chat.completions.create(**CHAT)
            assert caught.value.response.headers["retry-after"] == "3"
            assert bed.router.arrived == 1

    run(main())


def test_a_client_that_leaves_while_served_frees_the_pod():
    with worker("--weights", "1MiB", "--tokens-per-s", 20) as slow:

        async def main():
            async with gateway(f"127.0.0.1:{slow.port}") as bed, client(bed) as ai:
                told = await ai.chat.completions.create(**CHAT, max_tokens=2000, stream=True)
                async for _ in told:
                    break
                assert bed.router.running() == 1
                await told.close()
                await until(lambda: bed.router.running() == 0)
                state = await asyncio.to_thread(slow.until, lambda told: told["active"] == 0)
                assert state["aborted"] == 1
                assert (bed.router.failed, bed.router.finished) == (1, 0)

        run(main())


def test_a_pod_that_dies_while_it_streams_is_told_in_an_event_and_by_the_end():
    with worker("--weights", "1MiB", "--tokens-per-s", 20) as slow:

        async def main():
            async with gateway(f"127.0.0.1:{slow.port}") as bed:
                reader, writer = await bed.connect()
                writer.write(request("POST", "/v1/chat/completions", JSON, STREAM))
                await reader.readuntil(b"data: ")
                slow.process.send_signal(signal.SIGKILL)
                got = await rest_of(reader)
                assert b"[DONE]" not in got
                assert b'data: {"error":' in got
                assert not got.endswith(b"0\r\n\r\n")
                await until(lambda: bed.router.failed == 1)
                writer.close()

        run(main())


def test_the_openai_client_sees_why_a_stream_broke_off():
    with worker("--weights", "1MiB", "--tokens-per-s", 20) as slow:

        async def main():
            async with gateway(f"127.0.0.1:{slow.port}") as bed, client(bed) as ai:
                told = await ai.chat.completions.create(**CHAT, max_tokens=2000, stream=True)
                await anext(told)
                slow.process.send_signal(signal.SIGKILL)
                with pytest.raises(openai.APIError, match="closed its connection"):
                    [event async for event in told]

        run(main())


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


@pytest.mark.parametrize(
    ("head", "sent"),
    [
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"7\r\ndata: {\r\n"),
        (HEAD + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\n\n\n\r\n"),
        (HEAD + b"Content-Length: 99\r\n\r\n", b"data: 1\n\n"),
    ],
    ids=["in the middle of an event", "compressed", "of a told length"],
)
def test_where_no_event_fits_a_stream_is_cut_off_without(head, sent):
    async def main():
        async def script(asked, reader, writer):
            writer.write(head + sent)
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.close()

        async with Pod(script) as pod, gateway(pod.address) as bed:
            got = await bed.ask("POST", body=b"{}")
            assert not got.whole
            assert b"error" not in got.body

    run(main())


async def rest_of(reader):
    """Return what comes until the connection ends, in whichever way."""
    got = b""
    with suppress(ConnectionResetError):
        while piece := await reader.read(65536):
            got += piece
    return got


async def waiting_stream(bed, path="/v1/chat/completions", headers=JSON, body=STREAM):
    """Ask for a stream, and read until the gateway says that it waits."""
    reader, writer = await bed.connect()
    writer.write(request("POST", path, headers, body))
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert b"text/event-stream" in head
    told = chunks(reader)
    assert await anext(told) == b": waiting\n\n"
    return told, writer


async def streamed(asked, reader, writer):
    writer.write(EVENTS + chunk(b"data: 1\n\n"))
    await writer.drain()
    await asyncio.sleep(0.02)
    writer.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        ("/v1/chat/completions", JSON, STREAM),
        (CALL + "/v1/chat/completions", JSON, STREAM),
        (CALL + "/generate", ["Accept: text/event-stream"], b""),
    ],
)
def test_a_stream_that_waits_is_told_so_and_then_served(path, headers, body):
    async def main():
        async with Pod(streamed) as pod, gateway(pod.address, waiting_s=0.05) as bed:
            bed.granting = False
            told, writer = await waiting_stream(bed, path, headers, body)
            assert await anext(told) == b": waiting\n\n"
            bed.grant()
            rest = b"".join([piece async for piece in told]).replace(b": waiting\n\n", b"")
            assert rest == b"data: 1\n\ndata: [DONE]\n\n"
            assert pod.asked[0].body == body
            writer.close()

    run(main())


def test_what_is_no_stream_waits_without_a_head():
    async def main():
        body = json.dumps(CHAT).encode()
        async with Pod(told(b"late")) as pod, gateway(pod.address, waiting_s=0.02) as bed:
            bed.granting = False
            asking = asyncio.create_task(bed.ask("POST", "/v1/chat/completions", JSON, body))
            await until(lambda: bed.router.waiting() == 1)
            await asyncio.sleep(0.1)
            bed.grant()
            got = await asking
            assert (got.status, got.body) == (200, b"late")
            assert int(got["x-tcpconn-latency"]) >= 100

    run(main())


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (told(b'{"error":{"message":"too long","code":"x"}}', b"400 Bad"), "too long"),
        (told(b"oops", b"500 Oops"), "the pod answered with status 500"),
        (told(b'{"a":1}', b"200 OK", b"Content-Type: application/json"), "no plain event stream"),
    ],
)
def test_an_error_after_the_head_is_an_event_and_ends_the_stream(reply, message):
    async def main():
        async with Pod(reply) as pod, gateway(pod.address, waiting_s=0.02) as bed:
            bed.granting = False
            told, writer = await waiting_stream(bed)
            bed.grant()
            rest = b"".join([piece async for piece in told]).replace(b": waiting\n\n", b"")
            assert rest.startswith(b"data: ")
            assert message in json.loads(rest[6:])["error"]["message"]
            writer.close()

    run(main())


def test_a_stream_that_waited_in_vain_ends_with_an_event_the_client_knows():
    async def main():
        async with gateway(waiting_s=0.02, queue_timeout_s=0.2) as bed, client(bed) as ai:
            with pytest.raises(openai.APIError, match="queue timeout"):
                async for _ in await ai.chat.completions.create(**CHAT, stream=True):
                    pass
            assert bed.router.refused == 1

    run(main())


@pytest.mark.parametrize("streaming", [False, True])
def test_a_client_that_leaves_while_it_waits_takes_its_request_along(streaming):
    async def main():
        async with Pod(streamed) as pod, gateway(pod.address, waiting_s=0.02) as bed:
            bed.granting = False
            if streaming:
                _, writer = await waiting_stream(bed)
            else:
                _, writer = await bed.connect()
                writer.write(request("GET", CALL + "/x"))
                await until(lambda: bed.router.waiting() == 1)
            writer.close()
            await until(lambda: bed.router.cancelled == 1)
            bed.grant()
            await asyncio.sleep(0.05)
            assert pod.asked == []

    run(main())


def test_a_full_queue_and_a_late_slot_are_told_by_status():
    async def main():
        async with gateway(queue_len=1) as bed:
            first = asyncio.create_task(bed.ask(headers=["X-Inferx-Timeout: 0.3"]))
            await until(lambda: bed.router.waiting() == 1)
            full = await bed.ask()
            assert (full.status, full["retry-after"]) == (429, "1")
            assert json.loads(full.body)["error"]["code"] == "queue_full"
            late = await first
            assert (late.status, json.loads(late.body)["error"]["code"]) == (504, "queue_timeout")

    run(main())


@pytest.mark.parametrize("text", ["nan", "-1", "soon", "0", "1e9"])
def test_a_timeout_that_is_none_is_refused(text):
    async def main():
        async with gateway() as bed:
            got = await bed.ask(headers=[f"X-Inferx-Timeout: {text}"])
            assert got.status == 400
            assert "expected seconds" in json.loads(got.body)["error"]["message"]

    run(main())


def test_a_caller_may_wait_for_less_than_its_function_lets_it_and_not_for_more():
    async def main():
        async with gateway(queue_timeout_s=0.2) as bed:
            async with asyncio.timeout(5):
                assert (await bed.ask(headers=["X-Inferx-Timeout: 3600"])).status == 504

    run(main())
