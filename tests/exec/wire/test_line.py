"""A line's two ends: order, silence, who has heard what, and an end that cannot keep up."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from inferx.exec.clock import WallClock
from inferx.exec.wire import line as line_module
from inferx.exec.wire import wire_pb2 as pb
from inferx.exec.wire.line import Line, LineError

END = object()
"""What gRPC's streams read at their end is no message."""


class Pipe:
    """One direction in each of two queues, as a gRPC stream between two ends of one process."""

    def __init__(self, reads: "asyncio.Queue[Any]", writes: "asyncio.Queue[Any]") -> None:
        self._reads, self._writes = reads, writes
        self.deaf = False

    async def read(self) -> Any:
        return await self._reads.get()

    async def write(self, message: Any, /) -> None:
        if not self.deaf:
            await self._writes.put(message)


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await work

    asyncio.run(bounded())


def ends(size: int = 0) -> tuple[Line, Line, Pipe, Pipe]:
    there: asyncio.Queue[Any] = asyncio.Queue(size)
    back: asyncio.Queue[Any] = asyncio.Queue(size)
    left, right = Pipe(back, there), Pipe(there, back)
    clock, quick = WallClock(), {"beat_s": 0.02, "silent_s": 0.2}
    return (
        Line(left, pb.ToNode, clock, **quick),
        Line(right, pb.FromNode, clock, **quick),
        left,
        right,
    )


def stop(sequence: int) -> pb.ToNode:
    return pb.ToNode(stop=pb.Stop(sequence=sequence))


def test_what_is_said_is_heard_in_order_and_each_end_knows_that_it_was() -> None:
    async def work() -> None:
        scheduler, agent, _, _ = ends()
        heard: list[int] = []
        tasks = [
            asyncio.create_task(scheduler.run(lambda _: None)),
            asyncio.create_task(agent.run(lambda m: heard.append(m.stop.sequence))),
        ]
        for sequence in range(100):
            scheduler.say(stop(sequence))
        await asyncio.sleep(0.2)
        assert scheduler.reached_ns > 0
        assert agent.reached_ns > 0
        assert heard == list(range(100))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(work())


def test_what_waits_goes_as_one_message_once_the_other_end_reads_such() -> None:
    async def work() -> None:
        scheduler, agent, pipe, _ = ends()
        written: list[Any] = []
        pass_on = pipe.write

        async def write(message: Any, /) -> None:
            written.append(message)
            await pass_on(message)

        pipe.write = write  # type: ignore[method-assign]  # the same pipe, looked into
        heard: list[int] = []
        tasks = [
            asyncio.create_task(scheduler.run(lambda _: None)),
            asyncio.create_task(agent.run(lambda m: heard.append(m.stop.sequence))),
        ]
        for sequence in range(10):
            scheduler.say(stop(sequence))
        await asyncio.sleep(0.05)
        # It had not said so yet.
        assert not any(message.also for message in written)
        written.clear()
        for sequence in range(10, 30):
            scheduler.say(stop(sequence))
        scheduler.say(stop(30))
        await asyncio.sleep(0.05)
        many = [1 + len(message.also) for message in written if message.stop.sequence]
        assert max(many) >= 20
        assert heard == list(range(31))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(work())


def test_to_an_end_that_does_not_say_that_it_reads_such_each_message_goes_by_itself() -> None:
    async def work() -> None:
        scheduler, _, pipe, _ = ends()
        await pipe._reads.put(pb.FromNode(beat=pb.Beat(number=1)))
        task = asyncio.create_task(scheduler.run(lambda _: None))
        await asyncio.sleep(0.05)
        for sequence in range(10):
            scheduler.say(stop(sequence))
        await asyncio.sleep(0.05)
        written = [pipe._writes.get_nowait() for _ in range(pipe._writes.qsize())]
        assert not any(message.also for message in written)
        told = [one.stop.sequence for one in written if one.WhichOneof("message") == "stop"]
        assert told == list(range(10))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(work())


def test_what_is_too_large_for_one_message_goes_as_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = stop(1_000).ByteSize()
    monkeypatch.setattr(line_module, "MANY_BYTES", 4 * size)

    async def work() -> None:
        scheduler, _, pipe, _ = ends()
        await pipe._reads.put(pb.FromNode(beat=pb.Beat(number=1, many=True)))
        task = asyncio.create_task(scheduler.run(lambda _: None))
        await asyncio.sleep(0.05)
        while not pipe._writes.empty():
            pipe._writes.get_nowait()
        for sequence in range(1_000, 1_010):
            scheduler.say(stop(sequence))
        await asyncio.sleep(0.01)
        written = [pipe._writes.get_nowait() for _ in range(pipe._writes.qsize())]
        stops = [one for one in written if one.WhichOneof("message") == "stop"]
        assert [1 + len(one.also) for one in stops][:2] == [4, 4]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(work())


def test_silence_ends_a_line_at_both_ends_though_only_one_cannot_speak() -> None:
    async def work() -> None:
        scheduler, agent, _, mute = ends()
        tasks = [
            asyncio.create_task(scheduler.run(lambda _: None)),
            asyncio.create_task(agent.run(lambda _: None)),
        ]
        await asyncio.sleep(0.1)
        mute.deaf = True
        with pytest.raises(LineError, match="nothing was heard for"):
            await tasks[0]
        # The other still heard, and was heard no more: its latest beat that got through is old.
        reached = agent.reached_ns
        with pytest.raises(LineError, match="nothing was heard for"):
            await tasks[1]
        assert agent.reached_ns == reached

    run(work())


def test_the_end_of_a_stream_ends_the_line() -> None:
    async def work() -> None:
        scheduler, _, pipe, _ = ends()
        await pipe._reads.put(END)
        with pytest.raises(LineError, match="ended the stream"):
            await scheduler.run(lambda _: None)

    run(work())


class EndedPipe(Pipe):
    """As gRPC's streams are from their end until that has been read."""

    async def write(self, message: Any, /) -> None:
        del message
        raise asyncio.InvalidStateError("RPC already finished.")


def test_a_stream_that_ended_before_that_was_read_breaks_the_line_and_nothing_else() -> None:
    async def work() -> None:
        pipe = EndedPipe(asyncio.Queue(), asyncio.Queue())
        line = Line(pipe, pb.ToNode, WallClock())
        with pytest.raises(LineError, match="RPC already finished"):
            await line.run(lambda _: None)

    run(work())


def test_an_end_that_cannot_keep_up_breaks_the_line_and_drops_nothing_in_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(line_module, "QUEUE_LIMIT", 8)

    async def work() -> None:
        scheduler, _, _, _ = ends(size=1)
        task = asyncio.create_task(scheduler.run(lambda _: None))
        await asyncio.sleep(0.05)
        for sequence in range(20):
            scheduler.say(stop(sequence))
        with pytest.raises(LineError, match="8 messages wait to be sent"):
            await task

    run(work())


def test_a_line_can_be_given_up_with_a_reason() -> None:
    async def work() -> None:
        scheduler, _, _, _ = ends()
        task = asyncio.create_task(scheduler.run(lambda _: None))
        await asyncio.sleep(0.05)
        scheduler.hang_up("another leads")
        with pytest.raises(LineError, match="another leads"):
            await task

    run(work())


def test_what_a_hearer_raises_ends_the_line() -> None:
    async def work() -> None:
        scheduler, agent, _, _ = ends()

        def refuse(_: Any) -> None:
            raise ValueError("no")

        tasks = [
            asyncio.create_task(scheduler.run(lambda _: None)),
            asyncio.create_task(agent.run(refuse)),
        ]
        scheduler.say(stop(1))
        with pytest.raises(ValueError, match="no"):
            await tasks[1]
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(work())
