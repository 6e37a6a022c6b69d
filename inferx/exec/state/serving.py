"""A gRPC server of state services: bound, secured if asked, and open about its health."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from inferx.exec.state.rpc import MESSAGE_BYTES
from inferx.exec.state.store import Store, StoreError, UnavailableError

__all__ = ["PROBE_KEY", "PROBE_S", "Serving"]

PROBE_S = 2.0
"""How often the store is asked whether it answers."""
PROBE_KEY = "/health"
"""What it is asked for; nobody puts it."""
GRACE_S = 2.0
"""How long calls under way have when the server stops."""

OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    # A client that went without a word is noticed, and its watches end.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    # Two servers on one port would share its calls by chance.
    ("grpc.so_reuseport", 0),
)


class Serving:
    """A server that runs; its health is that of the store underneath.

    Attributes:
        port: Where it listens.
    """

    def __init__(
        self, store: Store, services: Sequence[tuple[str, grpc.GenericRpcHandler]]
    ) -> None:
        """Serve `services` by name, which all use `store`."""
        self.port = 0
        self._store = store
        self._names = ["", *(name for name, _ in services)]
        self._server: Any = grpc.aio.server(options=OPTIONS)
        self._server.add_generic_rpc_handlers(tuple(handler for _, handler in services))
        # Its types are nobody's.
        self._health: Any = health.aio.HealthServicer()  # pyright: ignore[reportAttributeAccessIssue]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._probing: asyncio.Task[None] | None = None

    async def start(self, address: str, credentials: grpc.ServerCredentials | None = None) -> None:
        """Listen at `host:port`; port 0: one that the kernel chooses. None: in the clear.

        Raises:
            UnavailableError: The address cannot be had.
        """
        try:
            if credentials is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise UnavailableError(f"cannot listen at {address}: {error}") from error
        await self._server.start()
        self._probing = asyncio.create_task(self._probe())

    async def stop(self) -> None:
        """Say that it stops, let calls under way end, and stop."""
        if self._probing:
            self._probing.cancel()
            with suppress(asyncio.CancelledError):
                await self._probing
        await self._health.enter_graceful_shutdown()
        await self._server.stop(GRACE_S)

    async def _probe(self) -> None:
        status = health_pb2.HealthCheckResponse.ServingStatus
        while True:
            try:
                await self._store.get(PROBE_KEY)
                health_now = status.SERVING
            except StoreError:
                health_now = status.NOT_SERVING
            for name in self._names:
                await self._health.set(name, health_now)
            await asyncio.sleep(PROBE_S)
