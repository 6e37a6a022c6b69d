"""Parts of the gateway on their own: bodies that are peeked into, turns, and reasons."""

import asyncio
import json

import pytest
from gateway_bed import gateway, run, until
from hypothesis import given
from hypothesis import strategies as st

from inferx.core.commands import Dispatch, Refuse, ReportLoad
from inferx.core.events import RequestArrived, RequestCancelled, RequestFailed, RequestFinished
from inferx.core.types import FunctionId, PodId, RequestId, RouterId
from inferx.exec.clock import WallClock
from inferx.exec.gateway.dispatch import Call, FunctionName, RouterDispatch, Target
from inferx.exec.gateway.peeking import peek
from inferx.exec.gateway.refusals import REASONS, Refused, error_body, status_of

NAME = FunctionName("t", "n", "f")
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("model"), inner),
    max_leaves=8,
)
BODY = st.fixed_dictionaries(
    {}, optional={"model": st.text(), "stream": st.booleans(), "messages": VALUE, "a": VALUE}
)


@given(body=BODY, order=st.randoms(use_true_random=False), ascii_only=st.booleans())
def test_no_beginning_of_a_body_tells_otherwise_than_the_whole(body, order, ascii_only):
    keys = list(body)
    order.shuffle(keys)
    text = json.dumps({key: body[key] for key in keys}, ensure_ascii=ascii_only).encode()
    whole = peek(text, whole=True)
    assert whole == (body.get("model"), body.get("stream"))
    for size in range(len(text)):
        told = peek(text[:size], whole=False)
        assert told.model in {None, whole.model}
        assert told.stream in {None, whole.stream}
    if text.endswith(b"}"):
        assert peek(text, whole=False).model == whole.model


def test_a_model_is_known_before_a_long_prompt_came():
    assert peek(b'{"model": "tiny", "prompt": "xxxx', whole=False) == ("tiny", None)
    assert peek(b'{"a": {"model": "no"}, "stream": true, "prompt": "', whole=False) == (None, True)


def made():
    posted = []
    dispatch = RouterDispatch(
        posted.append,
        WallClock(),
        function=lambda name: Target(FunctionId(3), 10**9) if name == NAME else None,
        address={PodId(7): "127.0.0.1:1"}.get,
    )
    return dispatch, posted


async def held(dispatch, *, pod=7, tokens=None):
    async with dispatch.acquire(Call(NAME)) as route:
        assert route.pod == pod
        if tokens is not None:
            route.finished(tokens)


def test_a_turn_is_asked_for_held_and_ended():
    async def main():
        dispatch, posted = made()
        for number, tokens in [(1, 5), (2, None)]:
            task = asyncio.create_task(held(dispatch, tokens=tokens))
            await until(lambda: dispatch.waiting == 1)
            assert posted.pop() == RequestArrived(RequestId(number), FunctionId(3))
            assert dispatch.take(Dispatch(RequestId(number), PodId(7)))
            await task
            ended = posted.pop()
            assert ended == (
                RequestFailed(RequestId(number), PodId(7))
                if tokens is None
                else RequestFinished(RequestId(number), PodId(7), tokens)
            )
        assert dispatch.waiting == dispatch.running == 0
        assert not dispatch.take(ReportLoad(RouterId(0), 1, (), (), (), ()))

    run(main())


def test_a_slot_that_comes_as_its_client_leaves_is_given_back():
    async def main():
        dispatch, posted = made()
        task = asyncio.create_task(held(dispatch))
        await until(lambda: posted)
        dispatch.take(Dispatch(RequestId(1), PodId(7)))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert posted[1:] == [RequestFailed(RequestId(1), PodId(7))]

    run(main())


def test_a_slot_that_comes_after_its_client_left_is_given_back():
    async def main():
        dispatch, posted = made()
        task = asyncio.create_task(held(dispatch))
        await until(lambda: posted)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert posted[1:] == [RequestCancelled(RequestId(1), FunctionId(3))]
        dispatch.take(Dispatch(RequestId(1), PodId(7)))
        assert posted[2:] == [RequestFailed(RequestId(1), PodId(7))]

    run(main())


def test_a_pod_without_an_address_fails_its_request_and_frees_its_slot():
    async def main():
        dispatch, posted = made()
        task = asyncio.create_task(held(dispatch))
        await until(lambda: posted)
        dispatch.take(Dispatch(RequestId(1), PodId(8)))
        with pytest.raises(Refused, match="pod 8 has no address"):
            await task
        assert posted[1:] == [RequestFailed(RequestId(1), PodId(8))]

    run(main())


def test_a_refusal_carries_the_routers_reason():
    async def main():
        dispatch, posted = made()
        task = asyncio.create_task(held(dispatch))
        await until(lambda: posted)
        dispatch.take(Refuse(RequestId(1), "no GPU fits"))
        with pytest.raises(Refused, match="no GPU fits") as caught:
            await task
        assert (status_of(caught.value.reason), caught.value.retry_after_s) == (503, 1)
        assert len(posted) == 1
        with pytest.raises(Refused, match="no function t/n/g"):
            await dispatch.acquire(Call(NAME._replace(name="g"))).__aenter__()

    run(main())


@pytest.mark.parametrize("reason", [*REASONS, "some reason of the scheduler's"])
def test_every_reason_has_a_status_and_openais_shape(reason):
    why = Refused(reason)
    assert 400 <= status_of(reason) < 600
    assert (why.retry_after_s is not None) == (status_of(reason) in {429, 502, 503})
    error = json.loads(error_body(why))["error"]
    assert error["code"] == reason.replace(" ", "_")
    assert error["message"] == reason


def test_a_fault_of_the_gateway_is_one_requests_and_is_told_of():
    async def main():
        async with gateway() as bed:

            async def broken(head):
                raise RuntimeError("a bug")

            bed.who = broken
            got = await bed.ask()
            assert (got.status, b"a bug" in got.body) == (500, False)
            assert [str(fault) for fault in bed.faults] == ["a bug"]
            bed.faults.clear()
            assert (await bed.ask(path="/nothing")).status == 404

    run(main())
