"""Who leads: one key in the store, under a lease, and an epoch that only grows.

Laws:
1. The key and the next epoch are written in one commit, on condition that the key is not there.
2. Whatever a leader makes durable is committed on condition that the key is still its own: one that
   was paused past its lease can start no pod (INV-8).
3. A leader whose lease was not renewed in time stops by its own clock, before it can run out.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec

from inferx.core.errors import InferXError
from inferx.core.machine.step import Record
from inferx.exec.logs import ids
from inferx.exec.state.limits import COMMIT_PARTS
from inferx.exec.state.objects.bodies import Scheduler
from inferx.exec.state.objects.envelope import REGISTRY, SYSTEM_NAME, DataObject, Key, encode
from inferx.exec.state.store import (
    ABSENT,
    Change,
    Delete,
    Deleted,
    Entry,
    Expect,
    LeaseLostError,
    Put,
    Store,
    StoreError,
    StoreLeaseId,
    UnavailableError,
)

__all__ = ["LEADER", "TTL_S", "DeposedError", "Leadership", "win"]

LEADER: Final = Key("scheduler", SYSTEM_NAME, SYSTEM_NAME, "scheduler")
"""The object that says who leads, and where it is reached."""
EPOCH: Final = f"{REGISTRY}epoch"
RECORDS: Final = "/scheduler/"
"""Where a leader's records are."""
TTL_S: Final = 3.0
"""How long a leader that is gone is still taken for one."""
RENEW_S: Final = TTL_S / 4
STOP_S: Final = TTL_S * 3 / 4
"""Without a renewal for so long a leader stops by itself."""
WAIT_S: Final = 0.5
COMMIT_S: Final = 2.0
"""A commit that takes longer is given up, and the leadership with it."""

_log = logging.getLogger(__name__)


class DeposedError(InferXError):
    """This scheduler does not lead any more."""


class Leadership:
    """One term of one leader; see the module's laws."""

    def __init__(self, store: Store, lease: StoreLeaseId, revision: int, epoch: int) -> None:
        self._store = store
        self._lease = lease
        self._expect = Expect(LEADER.path, revision)
        self.epoch = epoch

    async def persist(self, records: Sequence[Record]) -> None:
        """Make records durable.

        Raises:
            DeposedError: Another one leads, or it cannot be known.
        """
        # One step may make a pod and give it up.
        latest = {RECORDS + one.key: one.value for one in records}
        changes: list[Change] = [
            Put(key, value) if value else Delete(key) for key, value in latest.items()
        ]
        # Nothing is sent until all are durable: a leader that dies between two commits leaves
        # records of pods that nobody was told to start, as one does that dies after the last.
        for first in range(0, len(changes), COMMIT_PARTS):
            await self._commit(changes[first : first + COMMIT_PARTS])

    async def _commit(self, changes: Sequence[Change]) -> None:
        try:
            async with asyncio.timeout(COMMIT_S):
                committed = await self._store.commit((self._expect,), changes)
        except (StoreError, TimeoutError) as error:
            text = str(error) or f"no answer within {COMMIT_S:g} s"
            raise DeposedError(f"epoch {self.epoch}: the store does not take it: {text}") from error
        if committed is None:
            raise DeposedError(f"epoch {self.epoch}: another scheduler leads")

    async def hold(self) -> None:
        """Keep the lease alive for as long as that is possible.

        Raises:
            DeposedError: It was lost, or could not be renewed in time.
        """
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        while True:
            await asyncio.sleep(RENEW_S)
            began = loop.time()
            try:
                async with asyncio.timeout_at(renewed + STOP_S):
                    await self._store.keep_alive(self._lease)
                renewed = began
            except LeaseLostError as error:
                raise DeposedError(f"epoch {self.epoch}: {error}") from error
            except (StoreError, TimeoutError) as error:
                _log.warning(
                    "the lease of epoch %d was not renewed: %s",
                    self.epoch,
                    error,
                    extra=ids(epoch=self.epoch),
                )
            if loop.time() - renewed > STOP_S:
                raise DeposedError(f"epoch {self.epoch}: not renewed for {STOP_S} s")

    async def resign(self) -> None:
        """Let another one lead at once."""
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(COMMIT_S):
                await self._store.revoke(self._lease)


async def win(store: Store, address: str) -> Leadership:
    """Wait until nobody leads, and lead.

    Args:
        store: The cluster's state.
        address: Where gateways reach this scheduler, as `host:port`.
    """
    while True:
        try:
            found = await store.get(LEADER.path)
            if found is None:
                won = await _claim(store, address)
                if won is not None:
                    return won
            else:
                await _gone(store, found)
        except UnavailableError as error:
            _log.warning("the store cannot be reached: %s", error)
        except StoreError as error:
            _log.info("%s", error)
        await asyncio.sleep(WAIT_S)


async def _claim(store: Store, address: str) -> Leadership | None:
    counted = await store.get(EPOCH)
    epoch = 1 if counted is None else int(counted.value) + 1
    lease = await store.grant(TTL_S)
    body = msgspec.to_builtins(Scheduler(address=address, epoch=epoch))
    leader = DataObject(
        type=LEADER.type,
        tenant=LEADER.tenant,
        namespace=LEADER.namespace,
        name=LEADER.name,
        object=body,
    )
    revision = await store.commit(
        (
            Expect(LEADER.path, ABSENT),
            Expect(EPOCH, ABSENT if counted is None else counted.modified),
        ),
        (Put(LEADER.path, encode(leader), lease), Put(EPOCH, str(epoch).encode())),
    )
    if revision is None:
        await store.revoke(lease)
        return None
    return Leadership(store, lease, revision, epoch)


async def _gone(store: Store, leader: Entry) -> None:
    """Wait until the leader's key is gone, or its watch ends."""
    folder = leader.key.rpartition("/")[0] + "/"
    async for news in store.watch(folder, leader.modified):
        changes = getattr(news, "changes", ())
        if any(isinstance(one, Deleted) and one.key == leader.key for one in changes):
            return
