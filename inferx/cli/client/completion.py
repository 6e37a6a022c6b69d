"""`inferx completion`: what makes a shell complete this command's words."""

from typing import Literal

import click
from click.shell_completion import get_completion_class

from inferx.cli.client.command import SETTINGS

__all__ = ["completion"]

_VARIABLE = "_INFERX_COMPLETE"
"""In which click finds that a shell asks it."""


@click.command(
    context_settings=SETTINGS,
    epilog='\b\nExamples:\n  eval "$(inferx completion bash)"\n'
    "  inferx completion fish > ~/.config/fish/completions/inferx.fish",
)
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(*, shell: Literal["bash", "zsh", "fish"]) -> None:
    """Print a script that makes SHELL complete commands and options."""
    found = get_completion_class(shell)
    assert found is not None, "click knows these"
    root = click.get_current_context().find_root().command
    click.echo(found(root, {}, "inferx", _VARIABLE).source())
