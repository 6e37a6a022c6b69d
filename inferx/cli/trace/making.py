"""`inferx trace synth` and `servegen`: traces drawn from a description."""

from pathlib import Path

import click

from inferx.cli.trace.files import write
from inferx.cli.trace.options import (
    FILE,
    JSON,
    SEED,
    WRITING,
    example,
    options,
    seconds_ns,
    window_ns,
)
from inferx.core.units import FOREVER_NS
from inferx.sim.workload.generate import Plan, generate
from inferx.sim.workload.grammar import parse_arrivals, parse_popularity, parse_size
from inferx.sim.workload.servegen import ServeGen, generate_servegen
from inferx.sim.workload.servegen_files import read_clients

__all__ = ["servegen", "synth"]


@click.command(
    epilog=example(
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
@options(SEED, *WRITING, JSON)
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
        span_ns=seconds_ns("duration", duration),
        input=None if input_tokens is None else parse_size(input_tokens),
        output=None if output_tokens is None else parse_size(output_tokens),
        service=None if service is None else parse_size(service),
        tenants=tenants,
    )
    write(out, generate(plan, seed), overwrite=overwrite, as_json=as_json)


@click.command(
    epilog=example(
        "inferx trace servegen ServeGen/data/reason/deepseek-r1 --cut 79200:82800",
        "--scale 0.5 --seed 1 -o r1.parquet",
    )
)
@click.argument("folder", type=FILE)
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
@options(SEED, *WRITING, JSON)
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
    from_ns, to_ns = (0, FOREVER_NS) if window is None else window_ns(window)
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
    write(out, generate_servegen(plan, seed), overwrite=overwrite, as_json=as_json)
