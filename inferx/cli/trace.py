"""`inferx trace`: look at request traces, make them and change them."""

import dataclasses
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from inferx.cli.trace_tables import print_json, print_reuse, print_stats, print_written
from inferx.core.errors import DescriptionError
from inferx.core.units import FOREVER_NS, NS_PER_S
from inferx.sim.workload.generate import Plan, generate
from inferx.sim.workload.grammar import parse_arrivals, parse_popularity, parse_size
from inferx.sim.workload.read import TraceReader, open_trace
from inferx.sim.workload.reuse import reuse as count_reuse
from inferx.sim.workload.servegen import ServeGen, generate_servegen
from inferx.sim.workload.servegen_files import read_clients
from inferx.sim.workload.splice import splice
from inferx.sim.workload.stats import trace_stats
from inferx.sim.workload.trace import Trace
from inferx.sim.workload.transform import (
    assign,
    cut,
    jitter,
    parse_assign,
    sample_functions,
    sample_requests,
    scale,
)
from inferx.sim.workload.write import write_trace

__all__ = ["trace"]

Command = TypeVar("Command", bound=Callable[..., None])


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _example(*lines: str) -> str:
    """Return the end of a command's help; a line that goes on is indented."""
    return "\b\nExample:\n  " + " \\\n    ".join(lines)


def _seed(ctx: click.Context, option: click.Parameter, seed: int) -> int:
    del ctx, option
    if seed < 0:
        raise DescriptionError(f"seed {seed}: expected a whole number, at least 0")
    return seed


_FILE = click.Path(path_type=Path)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
_SEED = click.option(
    "--seed", default=0, show_default=True, callback=_seed, help="Seed of all that is random."
)
_READ_SEED = click.option(
    "--seed",
    default=0,
    show_default=True,
    callback=_seed,
    help="For Azure Functions 2019 alone: where in its minute a request falls.",
)
_READING = (
    click.option("--sort", is_flag=True, help="Sort a trace that should be in order but is not."),
    click.option(
        "--durations",
        type=_FILE,
        metavar="FILE",
        help="Companion file of durations, for Azure Functions 2019.",
    ),
)
_WRITING = (
    click.option(
        "-o", "--out", type=_FILE, required=True, metavar="FILE", help="Trace file to write."
    ),
    click.option("--overwrite", is_flag=True, help="Replace the file if it exists."),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def trace() -> None:
    """Look at, make and change request traces.

    Reads InferX's own Parquet files, Azure LLM inference, Azure Functions 2019 and 2021, Mooncake,
    BurstGPT, Alibaba GenAI 2026 and Alibaba openb pod lists, plain or gzip. The format is found
    from the content.
    """


@trace.command(
    epilog=_example(
        "inferx trace info traces/demo.parquet",
    )
)
@click.argument("trace", type=_FILE)
@_options(_READ_SEED, *_READING, _JSON)
def info(*, trace: Path, seed: int, sort: bool, durations: Path | None, as_json: bool) -> None:
    """Describe a trace: rate, burstiness, popularity, sizes.

    Quantiles are within 0.1 %; all other figures are exact.
    """
    reader = open_trace(trace, seed=seed, sort=sort, durations=durations)
    described = trace_stats(_watched(reader))
    if as_json:
        facts = {"path": str(trace), "format": reader.format, "dropped": reader.dropped}
        print_json({**facts, **dataclasses.asdict(described)})
        return
    print_stats(reader, described)


@trace.command(
    epilog=_example(
        "inferx trace reuse traces/demo.parquet --keep-alive 10,60 --slots 1,4 --json",
    )
)
@click.argument("trace", type=_FILE)
@click.option(
    "--keep-alive",
    default="10,60,600,1800",
    show_default=True,
    metavar="SECONDS,...",
    help="Count cold starts where functions stay this long after an arrival.",
)
@click.option(
    "--slots",
    default="1,4,16",
    show_default=True,
    metavar="COUNT,...",
    help="Count misses of a least-recently-used cache of so many functions.",
)
@_options(_READ_SEED, *_READING, _JSON)
def reuse(
    *,
    trace: Path,
    keep_alive: str,
    slots: str,
    seed: int,
    sort: bool,
    durations: Path | None,
    as_json: bool,
) -> None:
    """Count how often a function is found cold, exactly.

    A cold start is a first use, or a gap between arrivals of one function above the keep-alive.
    """
    keeps = {item: _seconds_ns("keep-alive", item) for item in _items(keep_alive)}
    rooms = {item: _slots(item) for item in _items(slots)}
    reader = open_trace(trace, seed=seed, sort=sort, durations=durations)
    counted = count_reuse(
        _watched(reader), keep_alive_ns=list(keeps.values()), slots=list(rooms.values())
    )
    cold = {text: counted.cold_starts_by_keep_alive_ns[ns] for text, ns in keeps.items()}
    misses = {text: counted.lru_misses_by_slots[count] for text, count in rooms.items()}
    if as_json:
        print_json(
            {
                "trace": str(trace),
                "rows_with_a_model": counted.requests,
                "models": counted.functions,
                "lru_misses_by_slots": misses,
                "cold_starts_by_keep_alive_s": cold,
            }
        )
        return
    print_reuse(counted, cold, misses)


@trace.command(
    epilog=_example(
        "inferx trace convert AzureLLMInferenceTrace_conv.csv -o conv.parquet",
    )
)
@click.argument("trace", type=_FILE)
@_options(*_WRITING, _READ_SEED, *_READING, _JSON)
def convert(
    *,
    trace: Path,
    out: Path,
    overwrite: bool,
    seed: int,
    sort: bool,
    durations: Path | None,
    as_json: bool,
) -> None:
    """Write a trace of any known format as an InferX Parquet file."""
    reader = open_trace(trace, seed=seed, sort=sort, durations=durations)
    _write(out, _watched(reader), overwrite=overwrite, as_json=as_json, readers=(reader,))


@trace.command(
    epilog=_example(
        "inferx trace synth --arrivals gamma:rate=5,cv=4 --functions 50 --popularity zipf:1.1",
        "--input-tokens lognormal:1000,4000 --output-tokens lognormal:200,800",
        "--duration 3600 --seed 1 -o synth.parquet",
    )
)
@click.option(
    "--arrivals",
    required=True,
    metavar="PROCESS",
    help="poisson:RATE, gamma:RATE,CV, weibull:RATE,CV, diurnal:RATE,AMPLITUDE,PERIOD or "
    "mmpp:RATE/RATE...,STAY/STAY...; requests per second, seconds.",
)
@click.option("--functions", required=True, type=int, metavar="COUNT", help="How many functions.")
@click.option(
    "--popularity",
    default="zipf:1.1",
    show_default=True,
    metavar="SHARES",
    help="zipf:ALPHA or uniform; `sticky=P` repeats the function before with chance P.",
)
@click.option("--input-tokens", metavar="SIZE", help="lognormal:MEAN,P99 or a number.")
@click.option("--output-tokens", metavar="SIZE", help="The same, for generated tokens.")
@click.option("--service", metavar="SIZE", help="Seconds a request; instead of tokens.")
@click.option("--tenants", default=1, show_default=True, help="Functions are dealt to so many.")
@click.option(
    "--duration", required=True, type=float, metavar="SECONDS", help="How long requests arrive."
)
@_options(_SEED, *_WRITING, _JSON)
def synth(
    *,
    arrivals: str,
    functions: int,
    popularity: str,
    input_tokens: str | None,
    output_tokens: str | None,
    service: str | None,
    tenants: int,
    duration: float,
    seed: int,
    out: Path,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Make a synthetic trace.

    Parameters may be named: `gamma:5,4` is `gamma:rate=5,cv=4`.
    """
    plan = Plan(
        arrivals=parse_arrivals(arrivals),
        popularity=parse_popularity(popularity, functions),
        span_ns=_seconds_ns("duration", duration),
        input=None if input_tokens is None else parse_size(input_tokens),
        output=None if output_tokens is None else parse_size(output_tokens),
        service=None if service is None else parse_size(service),
        tenants=tenants,
    )
    _write(out, generate(plan, seed), overwrite=overwrite, as_json=as_json)


@trace.command(
    epilog=_example(
        "inferx trace servegen ServeGen/data/reason/deepseek-r1 --cut 79200:82800",
        "--scale 0.5 --seed 1 -o r1.parquet",
    )
)
@click.argument("folder", type=_FILE)
@click.option("--cut", "window", metavar="FROM:TO", help="Make these seconds; TO is not included.")
@click.option(
    "--scale",
    "factor",
    default=1.0,
    show_default=True,
    metavar="X",
    help="X times the requests, in the same time.",
)
@click.option("--clients", type=int, metavar="COUNT", help="Only the COUNT busiest; all if not.")
@click.option("--input-tokens", metavar="SIZE", help="For clients without a dataset; as in synth.")
@click.option("--output-tokens", metavar="SIZE", help="The same, for generated tokens.")
@_options(_SEED, *_WRITING, _JSON)
def servegen(
    *,
    folder: Path,
    window: str | None,
    factor: float,
    clients: int | None,
    input_tokens: str | None,
    output_tokens: str | None,
    seed: int,
    out: Path,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Make a trace of ServeGen's clients, each a function.

    FOLDER holds chunk-N-trace.csv and chunk-N-dataset.json of every client, as published. Requests
    are as many as each window says; when they come and how long they are is drawn.
    """
    known, window_s = read_clients(folder)
    from_ns, to_ns = (0, FOREVER_NS) if window is None else _window_ns(window)
    plan = ServeGen(
        clients=known,
        window_s=window_s,
        from_ns=from_ns,
        to_ns=to_ns,
        factor=factor,
        most=clients,
        input=None if input_tokens is None else parse_size(input_tokens),
        output=None if output_tokens is None else parse_size(output_tokens),
    )
    _write(out, generate_servegen(plan, seed), overwrite=overwrite, as_json=as_json)


@trace.command(
    epilog=_example(
        "inferx trace transform conv.parquet --scale 2 --cut 0:3600 --sample 0.1",
        "--assign zipf:1.1,50 --seed 1 -o small.parquet",
    )
)
@click.argument("traces", type=_FILE, nargs=-1, required=True)
@click.option(
    "--start",
    "starts",
    multiple=True,
    type=float,
    metavar="SECONDS",
    help="When each trace begins, once a trace; all at 0 when left out.",
)
@click.option("--cut", "window", metavar="FROM:TO", help="Keep these seconds; TO is not included.")
@click.option("--sample", type=float, metavar="P", help="Keep each request with chance P.")
@click.option("--sample-functions", type=float, metavar="P", help="Keep each function, whole.")
@click.option("--scale", "factor", type=float, metavar="X", help="X times the arrival rate.")
@click.option("--jitter", "width", type=float, metavar="SECONDS", help="Delay arrivals by 0 to it.")
@click.option(
    "--assign", "spread", metavar="SHARES", help="Spread over functions: zipf:1.1,50, uniform:50."
)
@_options(_SEED, *_WRITING, *_READING, _JSON)
def transform(
    *,
    traces: tuple[Path, ...],
    starts: tuple[float, ...],
    window: str | None,
    sample: float | None,
    sample_functions: float | None,
    factor: float | None,
    width: float | None,
    spread: str | None,
    seed: int,
    out: Path,
    overwrite: bool,
    sort: bool,
    durations: Path | None,
    as_json: bool,
) -> None:
    """Change a trace, or merge several in time.

    Whatever their order on the line, the steps are: merge, cut, sample, scale, jitter, assign.
    """
    readers = [open_trace(path, seed=seed, sort=sort, durations=durations) for path in traces]
    starts_ns = [_seconds_ns("start", start) for start in starts] if starts else None
    merged = splice([_watched(reader) for reader in readers], starts_ns=starts_ns)
    chunks = _changed(
        merged,
        window=window,
        sample=sample,
        functions=sample_functions,
        factor=factor,
        width=width,
        spread=spread,
        seed=seed,
    )
    _write(out, chunks, overwrite=overwrite, as_json=as_json, readers=readers)


def _changed(
    chunks: Iterable[Trace],
    *,
    window: str | None,
    sample: float | None,
    functions: float | None,
    factor: float | None,
    width: float | None,
    spread: str | None,
    seed: int,
) -> Iterable[Trace]:
    """Apply the steps that were asked for, in their fixed order."""
    if window is not None:
        chunks = cut(chunks, *_window_ns(window))
    if sample is not None:
        chunks = sample_requests(chunks, sample, seed)
    if functions is not None:
        chunks = sample_functions(chunks, functions, seed)
    if factor is not None:
        chunks = scale(chunks, factor)
    if width is not None:
        chunks = jitter(chunks, _seconds_ns("jitter", width), seed)
    if spread is not None:
        chunks = assign(chunks, parse_assign(spread), seed)
    return chunks


def _seconds_ns(what: str, text: str | float) -> int:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < FOREVER_NS / NS_PER_S:  # Also refuses NaN.
        raise DescriptionError(f"{what} {text}: expected seconds, at least 0")
    return round(seconds * NS_PER_S)


def _slots(text: str) -> int:
    if not text.isdecimal():
        raise DescriptionError(f"slots {text!r}: expected a whole number, at least 1")
    return int(text)


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _window_ns(text: str) -> tuple[int, int]:
    first, colon, last = text.partition(":")
    if not colon:
        raise DescriptionError(f"cut {text!r}: expected FROM:TO in seconds, such as 0:3600")
    to_ns = _seconds_ns("cut to", last) if last else FOREVER_NS
    return _seconds_ns("cut from", first or 0), to_ns


def _watched(reader: TraceReader) -> Iterator[Trace]:
    """Read on, with a bar on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield from reader
        return
    columns = (TextColumn("reading {task.description}"), BarColumn(), TimeElapsedColumn())
    with ExitStack() as stack:
        console = Console(stderr=True)
        bar = stack.enter_context(Progress(*columns, console=console, transient=True))
        task = bar.add_task(reader.path.name, total=reader.bytes_total)
        for chunk in reader:
            bar.update(task, completed=reader.bytes_read)
            yield chunk


def _write(
    out: Path,
    chunks: Iterable[Trace],
    *,
    overwrite: bool,
    as_json: bool,
    readers: Iterable[TraceReader] = (),
) -> None:
    """Write the trace and say what was written."""
    written = write_trace(out, chunks, overwrite=overwrite)
    dropped: dict[str, int] = {}
    for reader in readers:
        for why, count in reader.dropped.items():
            dropped[why] = dropped.get(why, 0) + count
    facts: dict[str, object] = {"path": str(out), **dataclasses.asdict(written), "dropped": dropped}
    if as_json:
        print_json(facts)
    else:
        print_written(facts)
