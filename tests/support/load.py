"""Clients that ask a cluster without pause while it is hurt, and an account of what they were told.

What is asked is new each time, and its answer is known: a function of the request's own text. So a
wrong answer is seen, one that was another's, and a part that looks like a whole. Each request has
an id that the workers write down when they begin it, so that one that was served twice is seen.
"""

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
import msgspec

from inferx.exec.worker.engine import Generation
from inferx.exec.worker.paced import _answer

__all__ = ["RETRYABLE", "Account", "Clients", "Ended", "served_ids"]

RETRYABLE: Final = {429, 502, 503}
"""Statuses that tell to ask again, with a `Retry-After`."""
HUNG_S: Final = 90.0
"""Longer than any request may wait."""
PAUSE_S: Final = 0.1
"""A client's, after it was told to ask again; shorter than it was told, for a test is short."""


@dataclass(frozen=True, slots=True)
class Ended:
    """One request and its end.

    Attributes:
        outcome: `right`, `again` (a clear error: ask again), `broken` (the connection ended before
            the answer), `unheard` (there was no connection), or `wrong`.
        why: The error's code, or what is wrong.
    """

    request: str
    function: str
    began_s: float
    ended_s: float
    outcome: str
    why: str = ""


@dataclass(slots=True)
class Account:
    """All requests of a run, and which of them workers began."""

    ended: list[Ended] = field(default_factory=list[Ended])
    served: Counter[str] = field(default_factory=Counter[str])

    def count(self, outcome: str) -> int:
        return sum(one.outcome == outcome for one in self.ended)

    @property
    def reasons(self) -> dict[str, int]:
        """How often each end came, by outcome and reason."""
        told = Counter(f"{one.outcome} {one.why}".strip() for one in self.ended)
        return dict(sorted(told.items()))

    @property
    def twice(self) -> list[str]:
        """Requests that more than one worker began, or one more than once."""
        return sorted(request for request, times in self.served.items() if times > 1)

    @property
    def denied(self) -> list[Ended]:
        """Requests that were served although their client was told that they would not be."""
        sent = {"pod_failed", "stream pod_failed", "pod_timeout"}
        return [
            one
            for one in self.ended
            if one.outcome == "again" and one.why not in sent and self.served[one.request]
        ]

    @property
    def unserved(self) -> list[Ended]:
        """Requests with a right answer that no worker wrote down: the log is not to be trusted."""
        return [
            one for one in self.ended if one.outcome == "right" and not self.served[one.request]
        ]

    def back_s(self, returned_s: float, functions: Iterable[str]) -> float:
        """Return when the last of these functions answered again who asked after a time.

        Counted from that time; infinite where one never did.
        """
        return max(
            min(
                (
                    one.ended_s - returned_s
                    for one in self.ended
                    if one.function == function
                    and one.outcome == "right"
                    and one.began_s >= returned_s
                ),
                default=float("inf"),
            )
            for function in functions
        )

    def clean_s(self, returned_s: float) -> float:
        """Return when the last request began that did not end well, after a time; 0 for none."""
        began = (one.began_s - returned_s for one in self.ended if one.outcome != "right")
        return max(0.0, *began, 0.0)

    def gap_s(self) -> float:
        """Return the longest time in which no right answer came."""
        times = sorted(one.ended_s for one in self.ended if one.outcome == "right")
        return max((b - a for a, b in itertools.pairwise(times)), default=float("inf"))

    def check(self) -> None:
        """Assert that nothing was lost, and nothing answered wrongly or twice."""
        wrong = [one for one in self.ended if one.outcome == "wrong"]
        assert not wrong, wrong[:5]
        assert not self.twice, self.twice[:5]
        assert not self.denied, self.denied[:5]
        assert not self.unserved, self.unserved[:5]
        assert self.count("right") > len(self.ended) / 4, self.reasons


class Clients:
    """So many clients of so many functions, from `start` until `stop`.

    Args:
        gateway: Its URL.
        key: For it.
        warm: Functions that are asked all the time.
        cold: Functions of which one is asked now and then, in turn.
        count: How many clients.
        tokens: Of an answer, in turn.
    """

    def __init__(
        self,
        gateway: str,
        key: str,
        *,
        warm: Sequence[str],
        cold: Sequence[str],
        count: int = 8,
        tokens: Sequence[int] = (2, 6, 40),
        cold_every: int = 24,
        pause_s: float = 0.02,
        prefix: str = "r",
    ) -> None:
        self._gateway = gateway
        self._headers = {"Authorization": f"Bearer {key}"}
        self._warm, self._cold = warm, cold
        self._count = count
        self._tokens = tokens
        self._cold_every = cold_every
        self._pause_s = pause_s
        self._prefix = prefix
        self._number = 0
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self.account = Account()

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=HUNG_S)
        )
        self._tasks = [asyncio.create_task(self._client(one)) for one in range(self._count)]
        return self

    async def __aexit__(self, *raised: object) -> None:
        """Ask no more, and wait for what was asked."""
        self._stopping = True
        try:
            await asyncio.gather(*self._tasks)
        finally:
            await self._session.close()

    async def _client(self, client: int) -> None:
        del client
        while not self._stopping:
            number = self._number
            self._number += 1
            if self._cold and number % self._cold_every == self._cold_every - 1:
                function = self._cold[number // self._cold_every % len(self._cold)]
            else:
                function = self._warm[number % len(self._warm)]
            ended = await self.ask(function, number)
            await asyncio.sleep(self._pause_s if ended.outcome == "right" else PAUSE_S)

    async def ask(self, function: str, number: int) -> Ended:
        """Ask once, and note what came of it."""
        request = f"{self._prefix}{number}"
        prompt = f"{request} to {function}"
        tokens = self._tokens[number % len(self._tokens)]
        stream = number // len(self._tokens) % 2 == 0
        body = {"model": function, "prompt": prompt, "max_tokens": tokens, "stream": stream}
        expected = "".join(
            _answer(0, Generation(prompt=prompt, seed=0, limit=tokens, complete=False))
        )
        began_s = time.monotonic()
        outcome, why = await self._told(function, request, body, expected)
        ended = Ended(request, function, began_s, time.monotonic(), outcome, why)
        self.account.ended.append(ended)
        return ended

    async def ask_until_right(self, function: str) -> float:
        """Ask a function until it answers; return when it did."""
        while True:
            number = self._number
            self._number += 1
            ended = await self.ask(function, number)
            if ended.outcome == "right":
                return ended.ended_s
            await asyncio.sleep(PAUSE_S)

    async def _told(
        self, function: str, request: str, body: dict[str, Any], expected: str
    ) -> tuple[str, str]:
        url = f"{self._gateway}/funccall/public/demo/{function}/v1/completions"
        headers = {**self._headers, "X-Request-Id": request}
        try:
            async with self._session.post(url, json=body, headers=headers) as answer:
                told = await answer.read()
        except aiohttp.ClientConnectorError:
            return "unheard", ""
        except TimeoutError:
            return "wrong", "no answer"
        except (aiohttp.ClientError, OSError) as error:
            return "broken", type(error).__name__
        if answer.status != 200:
            return refusal(answer.status, answer.headers.get("Retry-After"), told)
        if body["stream"]:
            return streamed(told, function, expected)
        completion = msgspec.json.decode(told)
        return compared(completion["model"], completion["choices"][0]["text"], function, expected)


def refusal(status: int, retry_after: str | None, body: bytes) -> tuple[str, str]:
    """Return what an error is: a clear word to ask again, or not."""
    try:
        code = str(msgspec.json.decode(body)["error"]["code"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return "wrong", f"{status} with {body[:80]!r}"
    if status in RETRYABLE and (retry_after or "").isdecimal():
        return "again", code
    return "wrong", f"{status} {code}, Retry-After {retry_after}"


def streamed(body: bytes, function: str, expected: str) -> tuple[str, str]:
    """Return what a stream of events is that ended as one does that is whole."""
    text, model, done = "", function, False
    for line in body.decode().splitlines():
        if not line.startswith("data: "):
            continue
        if line == "data: [DONE]":
            done = True
            continue
        event = json.loads(line.removeprefix("data: "))
        if "error" in event:
            code = event["error"]["code"]
            late = code in {"queue_timeout", "pod_timeout", "internal_error"}
            return ("wrong" if late else "again"), f"stream {code}"
        model = event["model"]
        text += "".join(choice["text"] for choice in event["choices"])
    if not done:
        return "wrong", f"a stream without its end: {text[:40]!r}"
    return compared(model, text, function, expected)


def compared(model: str, text: str, function: str, expected: str) -> tuple[str, str]:
    """Return whether an answer is the one to this request."""
    if (model, text) == (function, expected):
        return "right", ""
    return "wrong", f"{model} said {text[:40]!r}, expected {function} to say {expected[:40]!r}"


def served_ids(log: Path) -> Counter[str]:
    """Return how often workers began each request, by their log."""
    if not log.exists():
        return Counter()
    ids = (json.loads(line)["request"] for line in log.read_text().splitlines())
    return Counter(one for one in ids if one)
