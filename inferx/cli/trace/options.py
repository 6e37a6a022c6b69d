"""Options that the commands of `inferx trace` share, and what their words mean."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from inferx.core.errors import DescriptionError
from inferx.core.units import FOREVER_NS, NS_PER_S

__all__ = [
    "FILE",
    "JSON",
    "READING",
    "READ_SEED",
    "SEED",
    "WRITING",
    "example",
    "options",
    "seconds_ns",
    "window_ns",
]

Command = TypeVar("Command", bound=Callable[..., None])


def options(*several: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return what gives a command several options, shown in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(several):
            command = option(command)
        return command

    return decorate


def example(*lines: str) -> str:
    """Return the end of a command's help; a line that goes on is indented."""
    return "\b\nExample:\n  " + " \\\n    ".join(lines)


def _seed(ctx: click.Context, option: click.Parameter, seed: int) -> int:
    del ctx, option
    if seed < 0:
        raise DescriptionError(f"seed {seed}: expected a whole number, at least 0")
    return seed


FILE = click.Path(path_type=Path)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
SEED = click.option(
    "--seed", default=0, show_default=True, callback=_seed, help="Seed of all that is random."
)
READ_SEED = click.option(
    "--seed",
    default=0,
    show_default=True,
    callback=_seed,
    help="For Azure Functions 2019 alone: where in its minute a request falls.",
)
READING = (
    click.option("--sort", is_flag=True, help="Sort a trace that should be in order but is not."),
    click.option(
        "--durations",
        type=FILE,
        metavar="FILE",
        help="Companion file of durations, for Azure Functions 2019.",
    ),
)
WRITING = (
    click.option(
        "-o", "--out", type=FILE, required=True, metavar="FILE", help="Trace file to write."
    ),
    click.option("--overwrite", is_flag=True, help="Replace the file if it exists."),
)


def seconds_ns(what: str, text: str | float) -> int:
    """Return a time in seconds, as somebody wrote it, in nanoseconds."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < FOREVER_NS / NS_PER_S:  # Also refuses NaN.
        raise DescriptionError(f"{what} {text}: expected seconds, at least 0")
    return round(seconds * NS_PER_S)


def window_ns(text: str) -> tuple[int, int]:
    """Return the two ends of FROM:TO, in nanoseconds; what is left out is all there is."""
    first, colon, last = text.partition(":")
    if not colon:
        raise DescriptionError(f"cut {text!r}: expected FROM:TO in seconds, such as 0:3600")
    to_ns = seconds_ns("cut to", last) if last else FOREVER_NS
    return seconds_ns("cut from", first or 0), to_ns
