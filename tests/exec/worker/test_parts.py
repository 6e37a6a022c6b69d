"""Stops and slots against naive models."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from inferx.exec.worker.slots import FullError, Slots
from inferx.exec.worker.stops import StopCutter

LETTERS = st.text("ab", max_size=12)


@given(st.lists(LETTERS, max_size=8), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_a_text_in_pieces_is_cut_as_the_whole_text(pieces, stops):
    cutter = StopCutter(stops)
    told = ""
    for piece in pieces:
        told += cutter.add(piece)
        so_far = "".join(pieces)
        assert so_far.startswith(told)
    told += cutter.end()
    whole = "".join(pieces)
    # Naively: the first piece by whose end a stop text is there, cut at the earliest.
    expected, stopped, text = whole, False, ""
    for piece in pieces:
        text += piece
        found = [text.find(stop) for stop in stops if stop in text]
        if found:
            expected, stopped = text[: min(found)], True
            break
    assert (told, cutter.stopped) == (expected, stopped)


STEPS = st.tuples(st.sampled_from(["ask", "end", "leave", "pause", "resume"]), st.integers(0, 9))


@given(st.integers(1, 3), st.integers(0, 3), st.lists(STEPS, max_size=30))
def test_slots_are_given_in_order_and_none_is_lost(count, queue_len, steps):
    async def run():
        slots = Slots(count, queue_len)
        got, asked, refused, tasks, ends = [], [], [], {}, {}

        async def hold(name):
            try:
                async with slots.hold():
                    got.append(name)
                    await ends[name].wait()
            except FullError:
                refused.append(name)

        async def settle():
            for _ in range(6):
                await asyncio.sleep(0)

        def running():
            return [n for n in got if not tasks[n].done()]

        pausing = None
        for number, (what, which) in enumerate(steps):
            live = [name for name, task in tasks.items() if not task.done()]
            match what:
                case "ask":
                    room = len(live) - len(running()) < queue_len
                    free = not slots.paused and len(live) < count
                    ends[number] = asyncio.Event()
                    tasks[number] = asyncio.create_task(hold(number))
                    asked.append(number)
                    await settle()
                    assert (number in refused) == (not room and not free)
                case "end" if running():
                    ends[running()[which % len(running())]].set()
                case "leave" if live:
                    tasks[live[which % len(live)]].cancel()
                case "pause" if pausing is None:
                    pausing = asyncio.create_task(slots.pause(60))
                case "resume" if pausing is not None:
                    pausing.cancel()
                    pausing = None
                    slots.resume()
            await settle()
            assert slots.active == len(running()) <= count
            left = [n for n, task in tasks.items() if not task.done() and n not in got]
            assert slots.waiting == len(left) <= queue_len
            if not slots.paused:
                assert not left or slots.active == count
        if pausing is not None:
            pausing.cancel()
        slots.resume()
        for end in ends.values():
            end.set()
        await asyncio.wait_for(asyncio.gather(*tasks.values(), return_exceptions=True), 10)
        assert (slots.active, slots.waiting) == (0, 0)
        assert got == sorted(got)

    asyncio.run(run())
