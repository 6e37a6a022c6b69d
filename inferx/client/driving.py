"""Sends requests to a cluster when each is due, whatever became of the ones before.

Laws:
1. Open loop: a slow cluster does not slow the arrivals. Only `at_once` open requests do, and how
   late a request was sent is told.
2. A request is sent once. What became of it is one of `Outcome`; until then it is unfinished.
3. Times are the host's clock, nanoseconds since 1970: they can be laid beside a journal's.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, cast

import httpx2 as httpx

from inferx import __version__
from inferx.client.errors import UnreachableError
from inferx.core.units import NS_PER_S

__all__ = ["Answer", "Call", "Outcome", "drive", "prompt_of"]

Outcome = Literal["unfinished", "finished", "refused", "aborted"]

CONNECT_S: Final = 10.0
PREFIX: Final = "data:"
DONE: Final = "[DONE]"
LINE_LIMIT: Final = 1 << 20
BROKEN: Final = frozenset(("pod failed", "pod timeout", "internal error"))
"""A gateway's reasons for what may have reached a pod; whoever met another one never did."""


class Call(NamedTuple):
    """A request that is to be sent.

    Attributes:
        due_ns: When, since the first.
        place: The function, TENANT/NAMESPACE/NAME.
        input_tokens: About how long its prompt is: words.
        output_tokens: How many tokens it asks for.
    """

    due_ns: int
    place: str
    input_tokens: int
    output_tokens: int


@dataclass(slots=True)
class Answer:
    """What became of a request; instants that never came are -1."""

    sent_ns: int = -1
    first_ns: int = -1
    """When its first token came."""
    ended_ns: int = -1
    tokens: int = 0
    """As the engine counts them; where it does not, the pieces that came."""
    outcome: Outcome = "unfinished"
    why: str = ""
    """Unless it finished: a short word for it."""
    text: str = ""
    """What was generated."""


def prompt_of(row: int, call: Call) -> str:
    """Return a request's prompt: another one for each, so that no engine knows its beginning."""
    return " ".join([f"r{row}", *("word" for _ in range(call.input_tokens - 1))])


async def drive(
    server: str,
    key: str,
    calls: Sequence[Call],
    answers: Sequence[Answer],
    *,
    at_once: int,
    within_s: float,
    on_sent: Callable[[int], object] = lambda _: None,
) -> None:
    """Send every call when it is due; return when all have been answered.

    Args:
        server: The gateway's URL.
        key: An API key; empty asks as nobody.
        calls: In the order in which they are due.
        answers: One for each call, filled in as things happen: also of what is cut short.
        at_once: Open requests at most; who is due beyond that is sent late.
        within_s: A request that has not ended by then is given up.
        on_sent: Told how many have been sent.

    Raises:
        UnreachableError: There is no gateway at all.
    """
    headers = {"User-Agent": f"inferx/{__version__}"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once)
    room = asyncio.Semaphore(at_once)
    loop = asyncio.get_running_loop()
    timeout = httpx.Timeout(within_s, connect=CONNECT_S)
    async with httpx.AsyncClient(
        base_url=server, headers=headers, limits=limits, timeout=timeout, trust_env=False
    ) as http:
        await _knock(http, server)

        async def one(row: int) -> None:
            try:
                async with asyncio.timeout(within_s):
                    await _ask(http, row, calls[row], answers[row])
            except (TimeoutError, httpx.TimeoutException):
                _end(answers[row], "aborted", "no answer in time")
            except httpx.HTTPError:
                _end(answers[row], "aborted", "connection broke")
            finally:
                room.release()

        async with asyncio.TaskGroup() as tasks:
            began_s = loop.time()
            for row, call in enumerate(calls):
                await asyncio.sleep(began_s + call.due_ns / NS_PER_S - loop.time())
                await room.acquire()
                tasks.create_task(one(row))
                on_sent(row + 1)


async def _knock(http: httpx.AsyncClient, server: str) -> None:
    """Open a connection, which the first request then need not wait for."""
    try:
        await http.get("/v1/models", timeout=CONNECT_S)
    except httpx.HTTPError as error:
        raise UnreachableError(f"{server}: {error or type(error).__name__}") from error


def _end(answer: Answer, outcome: Outcome, why: str = "") -> None:
    if answer.outcome != "unfinished":
        return
    answer.ended_ns = time.time_ns()
    answer.outcome, answer.why = outcome, why


def _fail(answer: Answer, code: str) -> None:
    refused = answer.first_ns < 0 and code not in BROKEN and not code.startswith("status 5")
    _end(answer, "refused" if refused else "aborted", code)


async def _ask(http: httpx.AsyncClient, row: int, call: Call, answer: Answer) -> None:
    body = {
        "model": call.place.rpartition("/")[2],
        "prompt": prompt_of(row, call),
        "max_tokens": call.output_tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    answer.sent_ns = time.time_ns()
    path = f"/funccall/{call.place}/v1/completions"
    async with http.stream("POST", path, json=body) as got:
        if got.status_code != 200:
            _fail(answer, _code(await got.aread(), got.status_code))
            return
        # Read to its end, also after the last event: who leaves before has not taken its answer.
        async for event in _events(got):
            if answer.outcome != "unfinished":
                continue
            if event == DONE:
                _end(answer, "finished")
            elif error := _take(event, answer):
                _fail(answer, error)
    if answer.outcome == "unfinished":
        _end(answer, "aborted", "answer broke off")


async def _events(got: httpx.Response) -> AsyncIterator[str]:
    async for line in got.aiter_lines():
        if len(line) > LINE_LIMIT:
            return
        if line.startswith(PREFIX):
            yield line.removeprefix(PREFIX).strip()


def _take(event: str, answer: Answer) -> str:
    """Take note of an event; return the reason where it is an error."""
    now_ns = time.time_ns()
    try:
        told: Any = json.loads(event)
    except ValueError:
        return "no event of a model"
    if not isinstance(told, dict):
        return "no event of a model"
    fields = cast("dict[str, Any]", told)
    if "error" in fields:
        return _code(event.encode(), 500)
    for choice in fields.get("choices") or ():
        text = choice.get("text") or ""
        if text:
            answer.text += text
            answer.tokens += 1
            if answer.first_ns < 0:
                answer.first_ns = now_ns
    usage = fields.get("usage")
    if usage:
        answer.tokens = int(usage.get("completion_tokens") or answer.tokens)
    return ""


def _code(content: bytes, status: int) -> str:
    try:
        return str(json.loads(content)["error"]["code"])[:60]
    except (ValueError, KeyError, TypeError):
        return f"status {status}"
