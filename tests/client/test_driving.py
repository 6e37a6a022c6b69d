"""Requests are sent when they are due, and what became of each is told, whatever it was."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from inferx.client.driving import Answer, Call, drive, prompt_of
from inferx.client.errors import UnreachableError

Serve = Callable[[bytes, bytes, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
PLACE = "public/demo/f"


def chunk(text: str) -> bytes:
    return b"%x\r\n%b\r\n" % (len(text.encode()), text.encode())


def event(told: object) -> bytes:
    return chunk(f"data: {told if isinstance(told, str) else json.dumps(told)}\n\n")


def word(text: str) -> bytes:
    return event({"choices": [{"text": text}]})


def refusal(status: int, code: str) -> bytes:
    body = json.dumps({"error": {"code": code, "message": "no"}}).encode()
    return b"HTTP/1.1 %d No\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def driven(
    serve: Serve, calls: list[Call], *, at_once: int = 100, within_s: float = 20.0, key: str = ""
) -> list[Answer]:
    """Drive calls at a server that answers as `serve` writes."""
    answers = [Answer() for _ in calls]

    async def run() -> None:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while head := await reader.readuntil(b"\r\n\r\n"):
                    length = 0
                    for line in head.lower().split(b"\r\n"):
                        if line.startswith(b"content-length:"):
                            length = int(line.partition(b":")[2])
                    body = await reader.readexactly(length)
                    if head.startswith(b"GET /v1/models"):
                        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                    else:
                        await serve(head, body, writer)
                    await writer.drain()
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            await drive(
                f"http://127.0.0.1:{port}", key, calls, answers, at_once=at_once, within_s=within_s
            )
        finally:
            server.close()

    asyncio.run(run())
    return answers


def test_an_answer_is_told_by_its_words_and_its_usage() -> None:
    seen: list[tuple[bytes, dict]] = []

    async def serve(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        seen.append((head, json.loads(body)))
        writer.write(HEAD + chunk(": waiting\n\n") + word("ba") + word(" do"))
        writer.write(event({"choices": [], "usage": {"completion_tokens": 7}}))
        writer.write(event("[DONE]") + b"0\r\n\r\n")

    [answer] = driven(serve, [Call(0, PLACE, 4, 7)], key="ix_k")
    assert (answer.outcome, answer.why, answer.tokens) == ("finished", "", 7)
    assert answer.sent_ns < answer.first_ns <= answer.ended_ns
    assert answer.text == "ba do"
    [(head, asked)] = seen
    assert head.startswith(b"POST /funccall/public/demo/f/v1/completions ")
    assert b"authorization: bearer ix_k" in head.lower()
    assert (asked["model"], asked["max_tokens"], asked["stream"]) == ("f", 7, True)
    assert asked["prompt"] == prompt_of(0, Call(0, PLACE, 4, 7)) == "r0 word word word"


@pytest.mark.parametrize(
    ("answered", "outcome", "why"),
    [
        (refusal(429, "queue full"), "refused", "queue full"),
        (refusal(504, "queue timeout"), "refused", "queue timeout"),
        (refusal(504, "pod timeout"), "aborted", "pod timeout"),
        (refusal(502, "pod failed"), "aborted", "pod failed"),
        (b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno", "refused", "status 404"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno", "aborted", "status 500"),
        (HEAD + event({"error": {"code": "no room"}}) + b"0\r\n\r\n", "refused", "no room"),
        (HEAD + word("a") + event({"error": {"code": "x"}}) + b"0\r\n\r\n", "aborted", "x"),
        (HEAD + word("a") + b"0\r\n\r\n", "aborted", "answer broke off"),
        (HEAD + event("3") + b"0\r\n\r\n", "refused", "no event of a model"),
        (HEAD + event("no JSON") + b"0\r\n\r\n", "refused", "no event of a model"),
    ],
)
def test_what_is_no_answer_is_refused_or_aborted(answered: bytes, outcome: str, why: str) -> None:
    async def serve(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answered)

    [answer] = driven(serve, [Call(0, PLACE, 1, 2)])
    assert (answer.outcome, answer.why) == (outcome, why)
    assert answer.ended_ns >= answer.sent_ns > 0


def test_a_broken_connection_and_one_that_stays_silent_are_aborted() -> None:
    async def breaks(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + word("a"))
        await writer.drain()
        writer.transport.abort()

    [answer] = driven(breaks, [Call(0, PLACE, 1, 2)])
    assert (answer.outcome, answer.why) == ("aborted", "connection broke")

    async def silent(_head: bytes, _body: bytes, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    [answer] = driven(silent, [Call(0, PLACE, 1, 2)], within_s=0.3)
    assert (answer.outcome, answer.why) == ("aborted", "no answer in time")


def test_a_slow_answer_holds_nobody_back_but_at_the_bound() -> None:
    open_now, most = 0, 0
    both = asyncio.Event()

    async def serve(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        if open_now == bound:
            both.set()
        await both.wait()
        open_now -= 1
        writer.write(HEAD + word("a") + event("[DONE]") + b"0\r\n\r\n")

    calls = [Call(row * 1_000_000, PLACE, 1, 1) for row in range(8)]
    bound = 8
    assert [one.outcome for one in driven(serve, calls)] == ["finished"] * 8
    assert most == 8
    open_now, most, bound, both = 0, 0, 3, asyncio.Event()
    assert [one.outcome for one in driven(serve, calls, at_once=3)] == ["finished"] * 8
    assert most == 3


def test_without_a_gateway_nothing_is_sent() -> None:
    answers = [Answer()]
    calls = [Call(0, PLACE, 1, 1)]
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1"):
        asyncio.run(drive("http://127.0.0.1:1", "", calls, answers, at_once=1, within_s=5.0))
    assert answers[0].outcome == "unfinished"
    assert answers[0].sent_ns == -1
