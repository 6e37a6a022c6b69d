"""The asyncio driver: one owner, records before commands, deadlines met."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest
import uvloop
from virtual_loop import NothingLeftError, VirtualClock, VirtualLoop

from inferx.core.machine.step import Record, Step
from inferx.exec.clock import WallClock
from inferx.exec.driver import Driver, InboxFullError, drive


def run(main: Coroutine) -> object:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


class Script:
    """A machine that answers its steps from a list, and remembers what it was told."""

    def __init__(self, *answers: Step) -> None:
        self.answers = list(answers)
        self.told: list[tuple[int, tuple]] = []

    def step(self, now_ns: int, events: tuple) -> Step:
        self.told.append((now_ns, events))
        return self.answers.pop(0) if self.answers else Step((), (), None)


class World:
    """Takes note; a store may be slow, or refuse."""

    def __init__(self, log: list, *, persist_s: float = 0.0, fenced: bool = False) -> None:
        self.log = log
        self.persist_s = persist_s
        self.fenced = fenced

    async def persist(self, records: tuple[Record, ...]) -> None:
        await asyncio.sleep(self.persist_s)
        if self.fenced:
            raise PermissionError("a newer leader acts")
        self.log.append(records)

    def send(self, command: object) -> None:
        self.log.append(command)


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def answer(*commands: object, persist: tuple = (), at: int | None = None) -> Step:
    return Step(persist, commands, at)


def clock() -> VirtualClock:
    return VirtualClock(asyncio.get_running_loop())


async def ended(task: asyncio.Task) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_records_are_durable_before_their_commands_are_sent_and_steps_keep_their_order() -> None:
    async def main() -> list:
        log: list = []
        record = Record("pod/1", b"x")
        machine = Script(answer("a", "b", persist=(record,)), answer("c"))
        driver = Driver("one", machine, clock(), World(log, persist_s=1.0))
        task = asyncio.create_task(driver.run())
        driver.post("first")
        await asyncio.sleep(0.5)
        assert log == []
        driver.post("second", "third")
        await asyncio.sleep(0.4)
        # The machine is not stepped again while its records are under way.
        assert machine.told == [(0, ("first",))]
        await asyncio.sleep(1)
        assert machine.told[1] == (1_000_000_000, ("second", "third"))
        await ended(task)
        return log

    assert run(main()) == [(Record("pod/1", b"x"),), "a", "b", "c"]


def test_a_step_takes_all_that_is_in_the_inbox() -> None:
    async def main() -> None:
        machine = Script()
        driver = Driver("one", machine, clock(), World([]))
        driver.post(1)
        driver.post(2, 3)
        task = asyncio.create_task(driver.run())
        await settled()
        assert machine.told == [(0, (1, 2, 3))]
        await ended(task)

    run(main())


def test_a_machine_is_stepped_at_its_deadline_to_the_nanosecond() -> None:
    odd = 9_007_199_254_740_993  # One more than a float counts to.

    async def main() -> None:
        machine = Script(answer(at=odd), answer(at=odd + 5), answer(at=odd + 2))
        driver = Driver("one", machine, clock(), World([]))
        task = asyncio.create_task(driver.run())
        driver.post("go")
        await asyncio.sleep(9_007_199.5)
        assert [at for at, _ in machine.told] == [0, odd, odd + 5, odd + 5]
        await ended(task)

    run(main())


def test_an_overtaken_deadline_is_forgotten() -> None:
    async def main() -> None:
        machine = Script(answer(at=10), answer(at=4), answer(at=20))
        driver = Driver("one", machine, clock(), World([]))
        task = asyncio.create_task(driver.run())
        driver.post("go")
        await settled()
        driver.post("sooner")
        await asyncio.sleep(1)
        # At 4, then at 20, which the step at 4 asked for; the timer for 10 does nothing.
        assert [at for at, _ in machine.told] == [0, 0, 4, 20]
        await ended(task)

    run(main())


def test_a_fenced_leader_sends_nothing_and_takes_its_siblings_down() -> None:
    async def main() -> list:
        log: list = []
        fenced = Driver(
            "leader",
            Script(answer("never", persist=(Record("k", b"v"),))),
            clock(),
            World(log, fenced=True),
        )
        other = Driver("other", Script(), clock(), World(log))
        fenced.post("go")
        with pytest.raises(ExceptionGroup) as caught:
            await drive([fenced, other])
        assert caught.group_contains(PermissionError)
        return log

    assert run(main()) == []


def test_a_full_inbox_refuses_the_whole_post() -> None:
    async def main() -> None:
        machine = Script()
        driver = Driver("one", machine, clock(), World([]), inbox_limit=2)
        driver.post(1)
        with pytest.raises(InboxFullError, match="one: 1 events wait, expected at most 2"):
            driver.post(2, 3)
        driver.post(2)
        task = asyncio.create_task(driver.run())
        await settled()
        assert machine.told == [(0, (1, 2))]
        driver.post(4)
        await settled()
        assert machine.told[-1] == (0, (4,))
        await ended(task)

    run(main())


def test_a_loop_with_nothing_to_do_says_so() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(NothingLeftError):
        run(main())


def test_the_wall_clock_never_goes_back_and_never_calls_early(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wall = WallClock()
    first = wall.now_ns()
    monkeypatch.setattr("inferx.exec.clock.time.time_ns", lambda: first - 5)
    assert wall.now_ns() == first

    async def main() -> None:
        loop = asyncio.get_running_loop()
        # A host's clock that runs a little behind the loop's: the loop wakes early.
        monkeypatch.setattr(
            "inferx.exec.clock.time.time_ns", lambda: first + loop.now_ns() * 999 // 1000
        )
        called: list[int] = []
        at_ns = wall.now_ns() + 1_000_000_000
        wall.call_at(at_ns, lambda: called.append(wall.now_ns()))
        await asyncio.sleep(0.9995)
        assert called == []
        await asyncio.sleep(0.1)
        assert len(called) == 1
        assert called[0] >= at_ns
        wall.call_at(0, lambda: called.append(0))
        await settled()
        assert called[1:] == [0]

    run(main())


def test_the_wall_clock_does_not_look_again_and_again_for_less_than_a_tick_of_the_loop() -> None:
    """uvloop calls at once what is due in less than half a millisecond."""
    looks: list[int] = []

    class Counting(WallClock):
        __slots__ = ()

        def call_at(self, at_ns: int, call: Callable[[], None]) -> None:
            looks.append(at_ns)
            super().call_at(at_ns, call)

    async def main() -> None:
        wall = Counting()
        called = asyncio.get_running_loop().create_future()
        due_ns = wall.now_ns() + 450_000
        wall.call_at(due_ns, lambda: called.set_result(wall.now_ns()))
        assert await called >= due_ns
        # Once to be told, once when it is due, and once more where the loop was early.
        assert len(looks) <= 3

    uvloop.run(main())
