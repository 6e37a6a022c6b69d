"""What the commands that run a service have in common: options, signals, logs, and being ready."""

import asyncio
import json
import logging
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import click
import grpc

from inferx.core.errors import InferXError
from inferx.exec.files import write_whole
from inferx.exec.identity.tls import ServerTls, TlsFiles

__all__ = [
    "FILE",
    "Ready",
    "run_service",
    "server_credentials",
    "service_options",
    "tls_files",
]

F = TypeVar("F", bound=Callable[..., Any])

FILE = click.Path(path_type=Path)


def service_options(listen: str) -> Callable[[F], F]:
    """Return the options of every service; `listen` is its address if nothing else is said."""
    options = (
        click.option(
            "--listen", default=listen, show_default=True, help="Address; port 0 takes a free one."
        ),
        click.option("--ready-file", type=FILE, help="Written, as JSON, once it serves."),
        click.option(
            "--metrics-listen",
            metavar="HOST:PORT|off",
            help="Where Prometheus reads.  [default: loopback, 8000 above the port of --listen]",
        ),
        click.option("--tls-certificate", type=FILE, help="Own certificate, in PEM."),
        click.option("--tls-key", type=FILE, help="Its private key."),
        click.option("--tls-authority", type=FILE, help="Who signs the other services'."),
        click.option("--log-json", is_flag=True, help="Log lines of JSON."),
    )

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def tls_files(
    certificate: Path | None, key: Path | None, authority: Path | None
) -> TlsFiles | None:
    """Return where certificates are; None where none is named: connections are in the clear."""
    if certificate is None and key is None and authority is None:
        return None
    return TlsFiles(certificate=certificate, key=key, authority=authority)


@asynccontextmanager
async def server_credentials(
    tls: TlsFiles | None,
) -> AsyncGenerator[grpc.ServerCredentials | None]:
    """Yield what a server shows and demands; renewed files are seen while it serves.

    Raises:
        TlsError: The files cannot be used.
    """
    if tls is None:
        yield None
        return
    server = ServerTls(tls)
    renewing = asyncio.create_task(server.keep_fresh(), name="certificates")
    try:
        yield server.grpc_credentials()
    finally:
        renewing.cancel()


class Ready:
    """Says once that a service serves: a line on stderr, and a file for who waits for it."""

    def __init__(self, name: str, path: Path | None) -> None:
        self._name = name
        self._path = path

    def __call__(self, address: str, **more: object) -> None:
        """Say it."""
        click.echo(f"{self._name} ready at {address}", err=True)
        if self._path is not None:
            write_whole(self._path, json.dumps({"address": address, **more}).encode())


class _JsonLines(logging.Formatter):
    """One object a line: when, how bad, who, what, and the fields that were given."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, object] = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        told |= getattr(record, "fields", {})
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


def run_service(
    work: Coroutine[Any, Any, None],
    *,
    log_json: bool,
    loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """Run a service until SIGINT or SIGTERM, or until it fails.

    Args:
        work: The service.
        log_json: Whether its log is lines of JSON.
        loop: Makes the event loop; None makes asyncio's own.

    Raises:
        InferXError: It failed; the first of its parts that did.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _JsonLines() if log_json else logging.Formatter("%(asctime)s %(name)s %(message)s")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(_until_told(work))


async def _until_told(work: Coroutine[Any, Any, None]) -> None:
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        with suppress(asyncio.CancelledError):
            await task
    except Exception as error:
        # The parts of a service fail together; what the first says is why.
        first = _first(error)
        if isinstance(first, InferXError):
            raise first from None
        raise


def _first(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        group = cast("ExceptionGroup[Exception]", error)
        error = group.exceptions[0]
    return error
