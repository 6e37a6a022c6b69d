"""What the client's commands have in common: whom they ask, and what their failures exit with."""

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Final, Literal, TypeVar, cast

import click

from inferx.client.cluster import Cluster
from inferx.client.connection import Connection
from inferx.client.contexts import Context, chosen
from inferx.client.errors import GoneError, WaitError
from inferx.client.names import TYPES

__all__ = ["SETTINGS", "Asking", "Form", "asking", "form_option", "type_argument"]

F = TypeVar("F", bound=Callable[..., Any])
Form = Literal["table", "json", "yaml", "name"]

SETTINGS: Final = {"help_option_names": ["-h", "--help"]}
_FORMS: Final = ("table", "json", "yaml", "name")
_MISSING: Final = 1
"""Exit status of what is not there, or did not come about; 2 is of what went wrong."""


class Asking:
    """Whom a command asks: made from its options, connected when it asks."""

    def __init__(self, context: Context) -> None:
        self.tenant = context.tenant
        self.server = context.server
        self.key = context.key
        self._context = context

    @contextmanager
    def cluster(self) -> Generator[Cluster]:
        """Connect, for as long as the block runs."""
        with Connection(self._context.server, self._context.key) as connection:
            yield Cluster(connection)


class _Missing(click.ClickException):
    exit_code = _MISSING


def asking(command: F) -> F:
    """Add the options that say whom to ask, and pass what they say as `ask`.

    There is none for the key: who lists processes would read it.
    """

    @wraps(command)
    def asks(*args: Any, server: str | None, context: str | None, **more: Any) -> Any:
        ask = Asking(chosen(server, context, os.environ))
        try:
            return command(*args, ask=ask, **more)
        except (GoneError, WaitError) as error:
            raise _Missing(str(error)) from error

    options = (
        click.option("--server", metavar="URL", help="The gateway.  [default: INFERX_SERVER]"),
        click.option("--context", metavar="NAME", help="Of `inferx context`, for this once."),
    )
    for option in reversed(options):
        asks = option(asks)
    return cast("F", asks)


def type_argument(command: F) -> F:
    """Add the type of object that a command is about, which shells can complete."""
    return click.argument("type_", metavar="TYPE", shell_complete=_types)(command)


def _types(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    del ctx, parameter
    return [one for one in TYPES if one.startswith(begun)]


def form_option(*forms: Form) -> Callable[[F], F]:
    """Add `-o`: how something is printed; the first is the default."""
    choices = forms or _FORMS
    return click.option(
        *("-o", "--output", "form"),
        type=click.Choice(choices),
        default=choices[0],
        show_default=True,
        help="How it is printed.",
    )
