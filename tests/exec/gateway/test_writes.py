"""Messages that go out together: each whole, in its place, and before the loop waits."""

import asyncio

import pytest
from gateway_bed import CALL, LIMIT_S, Pod, answer, gateway, request, run, told

from inferx.exec.gateway.refusals import Refused
from inferx.exec.gateway.writes import Writes


class Transport:
    def __init__(self):
        self.written = []
        self.closing = False

    def is_closing(self):
        return self.closing

    def write(self, message):
        self.written.append(message)


def test_what_is_kept_goes_out_in_its_order_and_not_to_who_is_gone():
    async def main():
        writes = Writes()
        one, gone = Transport(), Transport()
        writes.keep(one, b"a")
        writes.keep(gone, b"x")
        writes.keep(one, b"b")
        gone.closing = True
        assert one.written == []
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (one.written, gone.written) == ([b"a", b"b"], [])
        writes.keep(one, b"c")
        writes.flush()
        assert one.written == [b"a", b"b", b"c"]
        await asyncio.sleep(0)
        assert one.written == [b"a", b"b", b"c"]

    run(main())


@pytest.mark.parametrize("behind", [b"\x00junk\r\n\r\n", b"GET / HTTP/1.1\r\nBad Name: 1\r\n\r\n"])
def test_an_answer_is_not_overtaken_by_the_refusal_of_what_came_behind_it(behind):
    async def main():
        async with gateway() as bed:
            bed.denied = Refused("forbidden")
            for pause_s in [0, 0, 0, 0.0001, 0.001] * 10:
                reader, writer = await bed.connect()
                writer.write(request("GET", CALL + "/x"))
                await asyncio.sleep(pause_s)
                writer.write(behind)
                first = await answer(reader)
                async with asyncio.timeout(LIMIT_S):
                    rest = await reader.read()
                assert first.status == 403
                assert rest.startswith(b"HTTP/1.1 400") or not rest
                writer.close()

    run(main())


def test_what_was_answered_in_the_turn_of_the_end_is_told():
    async def main():
        async with Pod(told(b"whole")) as pod:
            for _ in range(20):
                async with gateway(pod.address) as bed:
                    reader, writer = await bed.connect()
                    writer.write(request("GET", CALL + "/x"))
                    while not pod.asked:  # noqa: ASYNC110  # a pod tells nobody
                        await asyncio.sleep(0)
                    pod.asked.clear()
                    await bed.gateway.drain()
                    got = await answer(reader)
                    assert (got.status, got.body, got.whole) == (200, b"whole", True)
                    writer.close()

    run(main())
