"""Tokens that a call used are charged to whoever pays, however the call ends."""

from contextlib import asynccontextmanager

import openai
import pytest
from gateway_bed import gateway, run, until
from worker_process import worker

from inferx.core.units import NS_PER_S
from inferx.exec.clock import WallClock
from inferx.exec.gateway.door import Door
from inferx.exec.gateway.tenants import Terms, limits_of
from inferx.exec.gateway.usage import Usage, told_usage
from inferx.exec.identity.limiter import Limiter
from inferx.exec.identity.limits import Limits, Rate
from inferx.exec.identity.principal import Grant, Level, Principal
from inferx.exec.state.objects.bodies import Limits as TenantLimits
from inferx.exec.state.objects.bodies import TenantSpec

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Say something."}]}
HOUR_NS = 3600 * NS_PER_S
BURST = 40
WHO = Principal("key:1", (Grant(Level.INFERENCE, "t", "*"),))


class Charged(Limiter):
    """A limiter that tells what it was asked to charge."""

    def __init__(self):
        super().__init__()
        self.settled = []

    def settle(self, now_ns, ticket, *, tokens):
        self.settled.append(tokens)
        super().settle(now_ns, ticket, tokens=tokens)


@pytest.fixture(scope="module")
def paced():
    with worker("--weights", "1MiB", "--tokens-per-s", 500, "--ttft-ms", 1) as one:
        yield one


@asynccontextmanager
async def limited(port, burst=BURST):
    """A gateway whose tenant has so many tokens, and gets no more of them within the test."""
    limiter = Charged()
    terms = Terms(Limits(tokens=Rate(count=1, period_ns=HOUR_NS, burst=burst)), False)
    door = Door(None, limiter, lambda _: terms, WallClock())
    async with gateway(f"127.0.0.1:{port}") as bed:
        bed.who = who
        bed.enter = door.enter
        ai = openai.AsyncOpenAI(
            base_url=f"http://127.0.0.1:{bed.port}/v1", api_key="x", max_retries=0, timeout=30
        )
        async with ai:
            yield bed, ai, limiter


async def who(head):
    return WHO


def test_what_was_used_is_charged_and_the_next_one_waits(paced):
    async def main():
        async with limited(paced.port) as (_, ai, limiter):
            told = await ai.chat.completions.create(**CHAT, max_tokens=60)
            used = told.usage.prompt_tokens + told.usage.completion_tokens
            await until(lambda: limiter.settled == [used])
            assert used > BURST
            with pytest.raises(openai.RateLimitError, match="too many tokens of tenant:t") as why:
                await ai.chat.completions.create(**CHAT, max_tokens=1)
            assert int(why.value.response.headers["Retry-After"]) > 3600

    run(main())


@pytest.mark.parametrize("tells", [True, False])
def test_a_stream_is_charged_whether_it_tells_what_it_used_or_not(paced, tells):
    more = {"stream_options": {"include_usage": True}} if tells else {}

    async def main():
        async with limited(paced.port) as (_, ai, limiter):
            pieces = 0
            async for _ in await ai.chat.completions.create(
                **CHAT, max_tokens=30, stream=True, **more
            ):
                pieces += 1
            await until(lambda: limiter.settled)
            assert limiter.settled[0] >= 30

    run(main())


def test_who_leaves_in_the_middle_pays_for_what_came(paced):
    async def main():
        async with limited(paced.port) as (bed, ai, limiter):
            stream = await ai.chat.completions.create(**CHAT, max_tokens=2_000, stream=True)
            pieces = 0
            async for _ in stream:
                pieces += 1
                if pieces == 40:
                    break
            await stream.close()
            await until(lambda: limiter.settled)
            assert 40 <= limiter.settled[0] < 2_000
            await until(lambda: bed.router.running() == 0)

    run(main())


def test_a_call_that_failed_costs_nothing():
    async def main():
        # Nobody listens there.
        async with limited(1) as (bed, ai, limiter):
            with pytest.raises(openai.InternalServerError):
                await ai.chat.completions.create(**CHAT)
            await until(lambda: limiter.settled == [0])
            bed.grant()

    run(main())


def test_one_that_is_larger_than_all_there_may_be_is_let_in_once(paced):
    async def main():
        async with limited(paced.port, burst=8) as (_, ai, limiter):
            long = [{"role": "user", "content": "word " * 400}]
            await ai.chat.completions.create(model="tiny", messages=long, max_tokens=1)
            await until(lambda: limiter.settled)
            with pytest.raises(openai.RateLimitError):
                await ai.chat.completions.create(model="tiny", messages=long, max_tokens=1)

    run(main())


@pytest.mark.parametrize(
    ("tail", "events", "expected"),
    [
        (b'{"usage": {"prompt_tokens": 3, "completion_tokens": 9}}', None, Usage(3, 9)),
        (b'data: {"usage":{"completion_tokens":2,"prompt_tokens":1}}', 7, Usage(1, 2)),
        (b'{"usage": {"prompt_tokens": 3, "total_tokens": 3}}', None, Usage(3, 0)),
        (b"data: [DONE]\n\n", 5, Usage(untold_events=5)),
        (b"anything", None, Usage()),
        (b"", None, Usage()),
        (b'"completion_tokens": 99999999999999999999999', None, Usage(0, 999_999_999_999)),
    ],
)
def test_usage_is_read_off_the_end(tail, events, expected):
    assert told_usage(tail, events) == expected


def test_the_largest_limits_of_a_tenant_are_limits():
    most = TenantLimits(
        max_requests_per_s=1_000_000, max_tokens_per_s=10**9, max_concurrency=1, burst_s=3_600
    )
    assert limits_of(TenantSpec(limit=most)).tokens is not None
    assert limits_of(TenantSpec()) == Limits()
