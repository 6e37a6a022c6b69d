"""What the command line says of workers that stand in for images."""

import re
from collections.abc import Sequence

import click

from inferx.cli.worker import worker
from inferx.core.errors import DescriptionError

__all__ = ["worker_options", "worker_settings"]


def worker_options(settings: Sequence[str]) -> tuple[str, ...]:
    """Return the options of `inferx worker` that settings like `tokens-per-s=100` stand for.

    Raises:
        DescriptionError: The worker takes no such option, or not with this value.
    """
    options: list[str] = []
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not re.fullmatch("[a-z][a-z-]*", name):
            text = "expected NAME=VALUE, as in tokens-per-s=100"
            raise DescriptionError(f"--worker-set {setting!r}: {text}")
        options += (f"--{name}", value)
    try:
        worker.make_context("worker", list(options))
    except click.UsageError as error:
        raise DescriptionError(f"--worker-set: {error.format_message()}") from error
    return tuple(options)


worker_settings = click.option(
    "--worker-set",
    "worker_set",
    multiple=True,
    metavar="NAME=VALUE",
    help="Option of the workers that stand in, as tokens-per-s=100.",
)
