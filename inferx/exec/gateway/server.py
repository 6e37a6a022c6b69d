"""The gateway's listener: connections in, and an end that lets what is served end."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

from inferx.core.errors import InferXError
from inferx.exec.gateway.client_connection import ClientConnection
from inferx.exec.gateway.dispatch import Dispatcher
from inferx.exec.gateway.limits import HttpLimits
from inferx.exec.gateway.pods import Pods
from inferx.exec.gateway.proxy import Authorize, Catalogue, Proxy
from inferx.exec.gateway.records import RequestRecord
from inferx.exec.gateway.requests import Requests
from inferx.exec.gateway.sweeping import Sweep
from inferx.exec.metrics.gateway import GatewayCounts

__all__ = ["Gateway", "ListenError"]

BACKLOG = 1024


class ListenError(InferXError):
    """The gateway cannot listen where it was told to."""


class Gateway:
    """One listener over one dispatcher.

    Args:
        requests: Told of each request's steps.
        fault: Told of a request's unexpected exception.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        authorize: Authorize,
        catalogue: Catalogue,
        limits: HttpLimits,
        requests: Requests,
        *,
        fault: Callable[[Exception, RequestRecord], None],
    ) -> None:
        self._limits = limits
        self.counts = counts = GatewayCounts()
        self._sweep = Sweep()
        self._pods = Pods(limits, self._sweep)
        self._proxy = Proxy(
            *(dispatcher, authorize, catalogue, self._pods, limits, self._sweep, requests, counts),
            fault=fault,
        )
        self._clients: set[ClientConnection] = set()
        self._left = asyncio.Event()
        """A client has left; looked at while draining."""
        self._server: asyncio.Server | None = None

    @property
    def connections(self) -> int:
        """Clients that are connected."""
        return len(self._clients)

    async def listen(
        self, host: str, port: int, *, api: str = "", tls: ssl.SSLContext | None = None
    ) -> int:
        """Begin to serve; return the port, which the system chooses for 0.

        Args:
            host: Address to listen on.
            port: The same.
            api: Where requests go that are no inference.
            tls: Serve HTTPS alone, with it.

        Raises:
            ListenError: The address cannot be had.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        except (OSError, OverflowError) as error:
            text = error.strerror if isinstance(error, OSError) else str(error)
            raise ListenError(f"cannot listen on {host}:{port}: {text}") from error
        self._proxy.api = api
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._connection,
            sock=listener,
            backlog=BACKLOG,
            ssl=tls,
            # A handshake that does not come is a head that does not.
            ssl_handshake_timeout=None if tls is None else self._limits.header_s,
        )
        return int(listener.getsockname()[1])

    async def drain(self) -> None:
        """Accept nothing more, let what is served end within `drain_s`, then cut the rest off."""
        if self._server is not None:
            self._server.close()
        for client in tuple(self._clients):
            client.drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.drain_s):
                while self._clients:
                    self._left.clear()
                    await self._left.wait()
        for client in tuple(self._clients):
            client.cut()
        # Those who were cut off end in a turn of their own.
        await asyncio.sleep(0)
        self._pods.close()
        self._sweep.stop()

    def _connection(self) -> ClientConnection:
        return ClientConnection(
            *(self._proxy.serve, self._limits, self._sweep, self._clients, self._left.set),
            self.counts,
        )
