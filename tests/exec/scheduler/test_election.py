"""Who leads: one at a time, in growing epochs, and never on a lease that has run out."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from inferx.core.machine.step import Record
from inferx.exec.clock import WallClock
from inferx.exec.scheduler import election
from inferx.exec.scheduler.election import LEADER, RECORDS, DeposedError, Leadership, win
from inferx.exec.state.limits import COMMIT_PARTS
from inferx.exec.state.memory import MemoryStore
from inferx.exec.state.store import Delete

RECORD = Record("pod/7", b"here")


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await work

    asyncio.run(bounded())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(election, "TTL_S", 0.4)
    monkeypatch.setattr(election, "RENEW_S", 0.1)
    monkeypatch.setattr(election, "STOP_S", 0.3)
    monkeypatch.setattr(election, "WAIT_S", 0.02)


def test_of_many_who_stand_one_leads_at_a_time_in_growing_epochs() -> None:
    async def work() -> None:
        store = MemoryStore(WallClock())
        epochs: list[int] = []
        leading = 0

        async def stand(number: int) -> None:
            nonlocal leading
            leadership = await win(store, f"host:{number}")
            leading += 1
            assert leading == 1
            epochs.append(leadership.epoch)
            await asyncio.sleep(0.01)
            leading -= 1
            await leadership.resign()

        await asyncio.gather(*(stand(number) for number in range(6)))
        assert epochs == [1, 2, 3, 4, 5, 6]

    run(work())


def test_a_leader_that_dies_is_followed_when_its_lease_has_run_out() -> None:
    async def work() -> None:
        store = MemoryStore(WallClock())
        await win(store, "host:1")
        began = asyncio.get_running_loop().time()
        second = await win(store, "host:2")
        assert second.epoch == 2
        assert asyncio.get_running_loop().time() - began >= 0.3
        entry = await store.get(LEADER.path)
        assert entry is not None
        assert b"host:2" in entry.value

    run(work())


def test_a_step_may_change_more_than_one_commit_holds_and_a_pod_twice() -> None:
    async def work() -> None:
        store = MemoryStore(WallClock())
        leadership = await win(store, "host:1")
        many = [Record(f"pod/{number}", b"made") for number in range(3 * COMMIT_PARTS)]
        await leadership.persist((*many, Record("pod/0", b""), Record("pod/1", b"again")))
        kept = {one.key: one.value for one in (await store.list(RECORDS)).entries}
        assert len(kept) == 3 * COMMIT_PARTS - 1
        assert f"{RECORDS}pod/0" not in kept
        assert kept[f"{RECORDS}pod/1"] == b"again"
        await leadership.persist(tuple(Record(one.key, b"") for one in many))
        assert not (await store.list(RECORDS)).entries

    run(work())


def test_inv_8_a_leader_that_was_paused_past_its_lease_can_write_nothing() -> None:
    async def work() -> None:
        store = MemoryStore(WallClock())
        first = await win(store, "host:1")
        await first.persist((RECORD,))
        second = await win(store, "host:2")
        with pytest.raises(DeposedError, match="epoch 1: another scheduler leads"):
            await first.persist((Record("pod/8", b"late"),))
        assert await store.get(f"{RECORDS}pod/8") is None
        await second.persist((Record("pod/7", b""),))
        assert await store.get(f"{RECORDS}pod/7") is None

    run(work())


def test_a_leader_holds_on_while_it_can_and_stops_where_it_cannot() -> None:
    async def work() -> None:
        store = MemoryStore(WallClock())
        leadership = await win(store, "host:1")
        holding = asyncio.create_task(leadership.hold())
        await asyncio.sleep(0.8)
        assert not holding.done()
        await leadership.persist((RECORD,))
        await leadership.resign()
        with pytest.raises(DeposedError):
            await holding

    run(work())


def test_a_leader_whose_key_was_taken_away_is_deposed() -> None:
    async def work() -> None:
        store = MemoryStore(WallClock())
        leadership: Leadership = await win(store, "host:1")
        await store.commit((), (Delete(LEADER.path),))
        with pytest.raises(DeposedError):
            await leadership.persist((RECORD,))

    run(work())


def test_a_store_that_does_not_answer_deposes_a_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        store = MemoryStore(WallClock())
        leadership = await win(store, "host:1")
        await store.close()
        with pytest.raises(DeposedError, match="does not take it"):
            await leadership.persist((RECORD,))

    run(work())
