"""`inferx worker`: a server to run where no inference engine is at hand."""

import asyncio
import math
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import click

from inferx.core.errors import DescriptionError
from inferx.core.units import MIB
from inferx.exec.worker.engine import Engine, WorkerError
from inferx.spec.sizes import parse_bytes

__all__ = ["worker"]

_FILE = click.Path(path_type=Path)
_ENGINES = click.Choice(["paced", "torch"])
_TORCH_BYTES = 512 * MIB


def _size(ctx: click.Context, option: click.Parameter, text: str | None) -> int | None:
    del ctx
    return None if text is None else parse_bytes(option.opts[-1], text)


def _number(ctx: click.Context, option: click.Parameter, value: float) -> float:
    """Refuse NaN, which every range lets pass."""
    del ctx
    if math.isnan(value):
        raise DescriptionError(f"{option.opts[-1]} nan: expected a number")
    return value


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExample:\n  inferx worker weights tiny.bin --bytes 100MiB\n"
    "  inferx worker --model tiny --weights tiny.bin --kv 64MiB --tokens-per-s 100",
)
@click.option("--model", default="tiny", show_default=True, help="Name that clients ask for.")
@click.option("--any-model", is_flag=True, help="Answer to every other name as well.")
@click.option(
    "--engine",
    type=_ENGINES,
    default="paced",
    show_default=True,
    help="paced: declared size and speed; torch: a small transformer that really computes.",
)
@click.option(
    "--weights",
    default=None,
    metavar="SIZE|FILE",
    help="How many bytes of weights to make and hold, or a file to load (./1GiB is a file). "
    "[default: 64MiB; torch: 512MiB, 134M parameters]",
)
@click.option(
    "--kv", callback=_size, metavar="SIZE", help="KV cache to hold. [default: 0; torch: 256MiB]"
)
@click.option(
    "--tokens-per-s",
    type=click.FloatRange(0.001, 1_000_000),
    callback=_number,
    default=50.0,
    show_default=True,
    help="Pace of each request (paced).",
)
@click.option(
    "--ttft-ms",
    type=click.FloatRange(0, 3_600_000),
    callback=_number,
    default=30.0,
    show_default=True,
    help="Time to the first token (paced).",
)
@click.option(
    "--slots",
    type=click.IntRange(1, 4096),
    default=8,
    show_default=True,
    help="Requests that generate at once; others wait in order.",
)
@click.option(
    "--queue-len",
    type=click.IntRange(0, 1_000_000),
    default=1000,
    show_default=True,
    help="Requests that may wait; more are refused with status 429.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8000,
    show_default=True,
    envvar="PORT",
    show_envvar=True,
    help="0 takes a free one, and says which.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    envvar="INFERX_HOST",
    show_envvar=True,
    help="Address to listen on.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of weights and answers."
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where weights and KV cache are held; cuda needs torch.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="Of torch, on a CPU.",
)
@click.option(
    "--drain-s",
    type=click.FloatRange(0, 86_400),
    callback=_number,
    default=30.0,
    show_default=True,
    help="How long requests may go on after SIGTERM.",
)
@click.option(
    "--request-log",
    type=_FILE,
    help="File that a line with its X-Request-Id is appended to for each request served.",
)
@click.pass_context
def worker(
    ctx: click.Context,
    *,
    model: str,
    any_model: bool,
    engine: str,
    weights: str | None,
    kv: int | None,
    tokens_per_s: float,
    ttft_ms: float,
    slots: int,
    queue_len: int,
    port: int,
    host: str,
    seed: int,
    device: str,
    threads: int,
    drain_s: float,
    request_log: Path | None,
) -> None:
    """Serve the OpenAI API with a model of declared size.

    It loads real bytes, holds real memory and streams tokens at a declared pace. The same seed and
    prompt give the same text, before and after a restore from a snapshot.
    """
    if ctx.invoked_subcommand is not None:
        return
    with _installed("exec"):
        from inferx.exec.worker.server import Served, serve

    file, size = _weights(weights)
    made: Engine
    if engine == "torch":
        from inferx.exec.worker.torch_engine import TorchEngine, TorchSettings

        made = TorchEngine(
            TorchSettings(
                weights=file,
                weight_bytes=_TORCH_BYTES if size is None else size,
                kv_bytes=256 * MIB if kv is None else kv,
                slots=slots,
                seed=seed,
                device=device,
                threads=threads,
            )
        )
    else:
        from inferx.exec.worker.paced import PacedEngine, PacedShape

        made = PacedEngine(
            PacedShape(
                weights=file,
                weight_bytes=64 * MIB if size is None else size,
                kv_bytes=kv or 0,
                tokens_per_s=tokens_per_s,
                ttft_s=ttft_ms / 1e3,
                seed=seed,
                device=device,
            )
        )
    served = Served(
        model=model,
        any_model=any_model,
        host=host,
        port=port,
        slots=slots,
        queue_len=queue_len,
        drain_s=drain_s,
        request_log=request_log,
    )
    asyncio.run(serve(served, made, _say))


@worker.command(
    epilog="\b\nExample:\n  inferx worker weights weights.bin --bytes 1GiB --seed 7",
)
@click.argument("file", type=_FILE)
@click.option(
    "--bytes",
    "size",
    callback=_size,
    required=True,
    metavar="SIZE",
    help="How many; for torch, the widest model within.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the bytes.")
@click.option("--engine", type=_ENGINES, default="paced", show_default=True, help="For which.")
def weights(*, file: Path, size: int, seed: int, engine: str) -> None:
    """Write a file of weights: the same seed and size give the same bytes."""
    if engine == "torch":
        with _installed("torch"):
            from inferx.exec.worker.torch_weights import write_torch_weights

        size = write_torch_weights(file, size, seed)
    else:
        from inferx.exec.worker.weights import write_weights

        write_weights(file, size, seed)
    _say(f"{file}: {size} bytes of weights")


@contextmanager
def _installed(extra: str) -> Generator[None, None, None]:
    """Say what to install, where an import fails."""
    try:
        yield
    except ImportError as error:
        raise WorkerError(f"{error}; expected pip install 'inferx[{extra}]'") from error


def _weights(text: str | None) -> tuple[Path | None, int | None]:
    """Tell a size from a file: what a size begins with is a digit."""
    if text is None:
        return None, None
    if text[:1].isdigit():
        return None, parse_bytes("--weights", text)
    if not Path(text).is_file():
        raise DescriptionError(f"--weights {text}: no such file; expected one, or a size as 1GiB")
    return Path(text), None


def _say(line: str) -> None:
    click.echo(line)
