"""A state service, put together: a store, the objects over it, both served at one address.

Every process that serves one store may: what they write is kept apart by the store's commits. One
that is lost costs its clients a reconnection.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import grpc

from inferx.exec.state import wire
from inferx.exec.state.objects import methods
from inferx.exec.state.objects.objects import Objects
from inferx.exec.state.objects.service import ObjectsService
from inferx.exec.state.service import StoreService
from inferx.exec.state.serving import Serving
from inferx.exec.state.store import Store

__all__ = ["ADDRESS", "served"]

ADDRESS = "127.0.0.1:1237"
"""Where a state service listens if nothing else is said."""


@asynccontextmanager
async def served(
    store: Store,
    address: str = ADDRESS,
    *,
    objects: Objects | None = None,
    credentials: grpc.ServerCredentials | None = None,
) -> AsyncGenerator[Serving, None]:
    """Serve a store and its objects until left; the store is not closed.

    Args:
        store: What is served.
        address: `host:port`; port 0 is one that the kernel chooses.
        objects: Those over the store, where they are used here as well.
        credentials: None: in the clear, which is for the loopback.

    Raises:
        UnavailableError: The address cannot be had.
    """
    objects = objects or Objects(store)
    serving = Serving(
        store,
        [
            (wire.SERVICE, StoreService(store).handler()),
            (methods.SERVICE, ObjectsService(objects).handler()),
        ],
    )
    try:
        await serving.start(address, credentials)
        yield serving
    finally:
        await serving.stop()
