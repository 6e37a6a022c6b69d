"""The HTTP server in front of an engine.

It listens before the model is loaded, so that whoever waits for it sees `503` and not a refused
connection. It holds what CRIU can dump: sockets, pipes and one epoll on asyncio's own loop; loading
happens in a thread that ends.
"""

import asyncio
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec
from aiohttp import web

from inferx.exec.worker.engine import Engine, WorkerError
from inferx.exec.worker.handlers import Handlers
from inferx.exec.worker.request_log import RequestLog
from inferx.exec.worker.slots import Slots

__all__ = ["Served", "serve"]


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What is served, and where.

    Attributes:
        any_model: Whether other names than the model's are taken as well.
        port: 0 lets the system choose one.
        drain_s: How long those who generate may go on after SIGTERM.
        request_log: Where each request is written down as it begins; None writes none.
    """

    model: str
    any_model: bool = False
    host: str
    port: int
    slots: int
    queue_len: int
    drain_s: float
    request_log: Path | None = None


async def serve(served: Served, engine: Engine, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, then let those who generate end, within `drain_s`.

    Raises:
        WorkerError: The port is taken, the model cannot be loaded, or no log can be written.
    """
    log = None if served.request_log is None else RequestLog(served.request_log)
    listener = _listen(served)
    handlers = Handlers(
        *(served.model, engine, Slots(served.slots, served.queue_len), log),
        any_model=served.any_model,
    )
    runner = web.AppRunner(
        handlers.application(), handler_cancellation=True, access_log=None, shutdown_timeout=1.0
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await runner.setup()
    try:
        await web.SockSite(runner, listener, backlog=1024).start()
        host = f"[{served.host}]" if ":" in served.host else served.host
        say(f"{served.model} listens on http://{host}:{listener.getsockname()[1]}")
        loading = asyncio.create_task(handlers.load())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
            say(f"{served.model} holds {engine.weight_bytes} bytes of weights, ready")
            await stop.wait()
        await handlers.drain(served.drain_s)
    finally:
        await runner.cleanup()
        listener.close()


def _listen(served: Served) -> socket.socket:
    family = socket.AF_INET6 if ":" in served.host else socket.AF_INET
    try:
        return socket.create_server((served.host, served.port), family=family)
    except (OSError, OverflowError) as error:
        where = f"{served.host}:{served.port}"
        text = error.strerror if isinstance(error, OSError) else str(error)
        raise WorkerError(f"cannot listen on {where}: {text}") from error
