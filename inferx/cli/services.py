"""What the commands that run a service have in common: options, signals, logs, and being ready."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click
import grpc

from inferx.core.errors import InferXError
from inferx.exec.files import write_whole
from inferx.exec.identity.tls import ServerTls, TlsFiles
from inferx.exec.logs import log_to_stderr
from inferx.exec.tracing.config import RATIO, TraceConfig, trace_config
from inferx.exec.tracing.recorder import Recorder, open_recorder

__all__ = [
    "FILE",
    "Ready",
    "recording",
    "run_service",
    "server_credentials",
    "service_options",
    "tls_files",
    "trace_options",
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


def trace_options(*, begins: bool = False) -> Callable[[F], F]:
    """Return the options of a service that records traces, passed on as `traces`.

    Args:
        begins: Whether traces begin there: then it has a share of its own.
    """

    def decorate(command: F) -> F:
        @wraps(command)
        def traced(*args: Any, otlp: str | None, trace_ratio: float = RATIO, **more: Any) -> Any:
            # A sub-command is no service, whatever the environment says of those.
            serves = click.get_current_context().invoked_subcommand is None
            traces = trace_config(otlp, trace_ratio, os.environ) if serves else None
            return command(*args, traces=traces, **more)

        wrapped = cast("F", traced)
        if begins:
            wrapped = click.option(
                "--trace-ratio",
                type=click.FloatRange(0, 1),
                default=RATIO,
                show_default=True,
                help="Share of requests that are traced; cold starts always are.",
            )(wrapped)
        return click.option(
            "--otlp",
            metavar="URL",
            help="Send traces there, by OTLP over gRPC.  [default: OTEL_EXPORTER_OTLP_ENDPOINT]",
        )(wrapped)

    return decorate


@contextmanager
def recording(traces: TraceConfig | None, service: str, **where: str) -> Generator[Recorder | None]:
    """Record a service's spans while the block runs, and send what is left at its end."""
    recorder = open_recorder(traces, service, **where)
    try:
        yield recorder
    finally:
        if recorder is not None:
            recorder.close()


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


def run_service(
    work: Coroutine[Any, Any, None],
    *,
    log_json: bool,
    service: str,
    name: str = "",
    loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ending: str = "",
) -> None:
    """Run a service until SIGINT or SIGTERM, or until it fails.

    Args:
        work: The service.
        log_json: Whether its log is lines of JSON.
        service: Which one it is: told on each of these lines.
        name: What it is called, where there are several: a gateway, or an agent's node.
        loop: Makes the event loop; None makes asyncio's own.
        ending: What is said when it is told to end, and to who tells it again: nothing cuts its end
            short. Empty says nothing, and the second time it ends as it is.

    Raises:
        InferXError: It failed; the first of its parts that did.
    """
    where = {"node" if service == "agent" else "name": name}
    log_to_stderr(as_json=log_json, service=service, **where)
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(_until_told(work, ending))


async def _until_told(work: Coroutine[Any, Any, None], ending: str) -> None:
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)

    def told() -> None:
        if ending:
            click.echo(ending, err=True)
        if not (ending and task.cancelling()):
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told)
    try:
        with suppress(asyncio.CancelledError):
            await task
    except Exception as error:
        # The parts of a service fail together; what the first says is why.
        first = _first(error)
        if isinstance(first, InferXError):
            raise first from None
        raise
    finally:
        if ending:
            # What is left is the caller's to remove, and asyncio's handlers would go with its loop.
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)


def _first(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        group = cast("ExceptionGroup[Exception]", error)
        error = group.exceptions[0]
    return error
