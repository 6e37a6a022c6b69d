"""A service's own object in the store, there for as long as the service is.

It is put under a lease that is kept alive; where the lease was lost, it is put there anew.
"""

import asyncio
import logging
from typing import Final

from inferx.exec.state.objects.actor import SYSTEM
from inferx.exec.state.objects.envelope import DataObject
from inferx.exec.state.objects.errors import ObjectsError
from inferx.exec.state.objects.objects import Objects
from inferx.exec.state.store import LeaseLostError, Store, StoreError

__all__ = ["TTL_S", "registered"]

TTL_S: Final = 10.0
"""How long a service that is gone is still listed."""
RENEW_S: Final = TTL_S / 4
CALL_S: Final = TTL_S / 4
"""A call that takes longer is given up."""

_log = logging.getLogger(__name__)


async def registered(store: Store, objects: Objects, one: DataObject) -> None:
    """Keep an object in the store until cancelled; then it is taken out.

    Args:
        store: Gives the lease.
        objects: Where it is put.
        one: The object; what it says differs from start to start.
    """
    while True:
        try:
            async with asyncio.timeout(CALL_S):
                lease = await store.grant(TTL_S)
                await objects.apply(one, who=SYSTEM, lease=lease)
        except (StoreError, ObjectsError, TimeoutError) as error:
            _log.warning("%s is not registered: %s", one.key, error or "no answer")
            await asyncio.sleep(RENEW_S)
            continue
        try:
            while True:
                await asyncio.sleep(RENEW_S)
                try:
                    async with asyncio.timeout(CALL_S):
                        await store.keep_alive(lease)
                except LeaseLostError:
                    _log.warning("%s: its lease was lost; registering anew", one.key)
                    break
                except (StoreError, TimeoutError) as error:
                    _log.warning("%s: its lease was not renewed: %s", one.key, error)
        except asyncio.CancelledError:
            async with asyncio.timeout(CALL_S):
                await store.revoke(lease)
            raise
