"""Connections that last: open one, have its line run, and begin anew when it breaks."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio

from inferx.exec.wire.line import LineError
from inferx.exec.wire.rpc import KEEPALIVE, Method, stream

__all__ = ["CONNECT_S", "RETRY_S", "again_and_again", "called", "channel_to"]

CONNECT_S = 5.0
"""To reach the other side."""
RETRY_S = (0.1, 1.0)
"""Before a broken line is begun anew: first, and at most."""

_log = logging.getLogger(__name__)


def channel_to(address: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    """Return a channel to an address; without credentials in the clear."""
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=KEEPALIVE)
    return grpc.aio.secure_channel(address, credentials, options=KEEPALIVE)


@asynccontextmanager
async def called(
    address: str, method: Method, credentials: grpc.ChannelCredentials | None
) -> AsyncGenerator[Any]:
    """Open a stream to an address.

    Raises:
        LineError: It could not be reached, or broke.
    """
    channel = channel_to(address, credentials)
    try:
        try:
            async with asyncio.timeout(CONNECT_S):
                await channel.channel_ready()
        except TimeoutError as error:
            raise LineError(f"{address} was not reached in {CONNECT_S:.0f} s") from error
        call = stream(channel, method)()
        try:
            yield call
        except grpc.aio.AioRpcError as error:
            raise LineError(f"{address}: {error.code().name}: {error.details()}") from error
        finally:
            call.cancel()
    finally:
        await channel.close()


async def again_and_again(name: str, once: Callable[[], Awaitable[None]]) -> None:
    """Run one line after another until cancelled."""
    first_s, most_s = RETRY_S
    pause_s = first_s
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        try:
            await once()
        except LineError as error:
            _log.info("%s: %s", name, error)
        # A line that stood for a while broke by chance; one that never stands is not hurried.
        pause_s = first_s if loop.time() - began > most_s else min(2 * pause_s, most_s)
        await asyncio.sleep(pause_s)
