"""`inferx trace convert` and `transform`: one trace made of others."""

from collections.abc import Iterable
from pathlib import Path

import click

from inferx.cli.trace.files import watched, write
from inferx.cli.trace.options import (
    FILE,
    JSON,
    READ_SEED,
    READING,
    SEED,
    WRITING,
    example,
    options,
    seconds_ns,
    window_ns,
)
from inferx.sim.workload.read import open_trace
from inferx.sim.workload.splice import splice
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

__all__ = ["convert", "transform"]


@click.command(
    epilog=example(
        "inferx trace convert AzureLLMInferenceTrace_conv.csv -o conv.parquet",
    )
)
@click.argument("trace", type=FILE)
@options(*WRITING, READ_SEED, *READING, JSON)
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
    write(out, watched(reader), overwrite=overwrite, as_json=as_json, readers=(reader,))


@click.command(
    epilog=example(
        "inferx trace transform conv.parquet --scale 2 --cut 0:3600 --sample 0.1",
        "--assign zipf:1.1,50 --seed 1 -o small.parquet",
    )
)
@click.argument("traces", type=FILE, nargs=-1, required=True)
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
@options(SEED, *WRITING, *READING, JSON)
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
    starts_ns = [seconds_ns("start", start) for start in starts] if starts else None
    merged = splice([watched(reader) for reader in readers], starts_ns=starts_ns)
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
    write(out, chunks, overwrite=overwrite, as_json=as_json, readers=readers)


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
        chunks = cut(chunks, *window_ns(window))
    if sample is not None:
        chunks = sample_requests(chunks, sample, seed)
    if functions is not None:
        chunks = sample_functions(chunks, functions, seed)
    if factor is not None:
        chunks = scale(chunks, factor)
    if width is not None:
        chunks = jitter(chunks, seconds_ns("jitter", width), seed)
    if spread is not None:
        chunks = assign(chunks, parse_assign(spread), seed)
    return chunks
