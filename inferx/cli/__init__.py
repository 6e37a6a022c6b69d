"""The `inferx` command. A sub-command's module is imported only when it runs."""

import importlib
import os
import signal
import sys
import threading

import click

from inferx import __version__
from inferx.core.errors import InferXError, Terminated

__all__ = ["main"]

COMMANDS: dict[str, tuple[str, str]] = {
    "replay": ("inferx.cli.replay:replay", "Replay a request trace under several policies."),
    "trace": ("inferx.cli.trace:trace", "Look at, make and change request traces."),
    "pack": ("inferx.cli.pack:pack", "Pack pods onto nodes under several rules."),
    "explain": ("inferx.cli.explain:explain", "Say why a request of a run waited."),
    "check": ("inferx.cli.check:check", "Hold a policy to the kernel's rules."),
    "up": ("inferx.cli.up:up", "Run a whole cluster on this machine."),
    "state": ("inferx.cli.state:state", "Keep a cluster's state."),
    "scheduler": ("inferx.cli.scheduler:scheduler", "Decide what runs where in a cluster."),
    "gateway": ("inferx.cli.gateway:gateway", "Take a cluster's requests in."),
    "replay-journal": (
        "inferx.cli.replay_journal:replay_journal",
        "Hold a live run's decisions to its journal.",
    ),
    "agent": ("inferx.cli.agent:agent", "Run a GPU node's agent; tell what a node can do."),
    "snapshot": ("inferx.cli.snapshot:snapshot", "Make, restore and look after snapshots."),
    "worker": ("inferx.cli.worker:worker", "Serve a model of declared size, to try things out."),
}
"""Sub-command -> where its click command lives, and its line in `inferx --help`."""

CLIENT: dict[str, tuple[str, str]] = {
    "apply": ("inferx.cli.client.writing:apply", "Make objects what files state."),
    "get": ("inferx.cli.client.reading:get", "Print an object."),
    "list": ("inferx.cli.client.reading:list_", "Print the objects of a type."),
    "watch": ("inferx.cli.client.reading:watch", "Print what changes, as it does."),
    "wait": ("inferx.cli.client.reading:wait", "Wait until a function is ready, idle or gone."),
    "create": ("inferx.cli.client.writing:create", "Make objects that are not there yet."),
    "update": ("inferx.cli.client.writing:update", "Change objects that nobody else changed."),
    "delete": ("inferx.cli.client.writing:delete", "Remove an object."),
    "logs": ("inferx.cli.client.logs:logs", "Print what a pod wrote."),
    "drive": ("inferx.cli.drive:drive", "Send a trace's requests, as they are due."),
    "top": ("inferx.cli.client.top:top", "Watch nodes, GPUs and functions."),
    "keys": ("inferx.cli.client.keys:keys", "Make, list and revoke API keys."),
    "grant": ("inferx.cli.client.roles:grant", "Grant a role to a user, by name."),
    "revoke": ("inferx.cli.client.roles:revoke", "Revoke a role that was granted by name."),
    "tenantusers": ("inferx.cli.client.roles:tenantusers", "Print who was granted a tenant."),
    "namespaceusers": (
        "inferx.cli.client.roles:namespaceusers",
        "Print who was granted a namespace.",
    ),
    "roles": ("inferx.cli.client.roles:roles", "Print what you may do, and where."),
    "context": ("inferx.cli.client.contexts:context", "Keep which clusters there are."),
    "completion": ("inferx.cli.client.completion:completion", "Make a shell complete words."),
}
"""The same, of a running cluster's users."""
HIDDEN: dict[str, str] = {"apikey": "keys"}
"""Other names that commands answer to, for who comes from another tool."""


class _LazyGroup(click.Group):
    """Finds sub-commands by name without importing the rest."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return [*COMMANDS, *CLIENT]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        found = (COMMANDS | CLIENT).get(HIDDEN.get(cmd_name, cmd_name))
        if found is None:
            return None
        module, _, attribute = found[0].partition(":")
        try:
            command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] == "inferx":
                raise
            # What runs a cluster needs more than what replays traces.
            text = f"{cmd_name}: no module {error.name}; expected pip install 'inferx[exec]'"
            raise click.ClickException(text) from error
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        for heading, commands in (("Commands", COMMANDS), ("Of a cluster's users", CLIENT)):
            with formatter.section(heading):
                formatter.write_dl([(name, text) for name, (_, text) in commands.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="inferx")
def _group() -> None:
    """Replay request traces under scheduling policies; run a cluster under them, and use it."""


def _terminate(*_: object) -> None:
    raise Terminated


def main() -> None:
    """Run a command; an operating error is one line on stderr and exit status 2.

    SIGTERM, which `timeout` and container engines send, stops it as Ctrl-C does, with status 143.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        _group(prog_name="inferx", standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        # A group without a sub-command prints its help; a mistake is one line.
        if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
            error.show()
        else:
            _complain(error.format_message())
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as stop:
        # Click turns both into its own Abort.
        terminated = isinstance(stop, Terminated) or isinstance(stop.__cause__, Terminated)
        click.echo(f"inferx: {'terminated' if terminated else 'interrupted'}", err=True)
        sys.exit(143 if terminated else 130)
    except BrokenPipeError:
        # The reader of a pipe left, as `head` does; there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except InferXError as error:
        _complain(str(error))
        sys.exit(2)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _complain(f"{where}{error.strerror or error}")
        sys.exit(2)


def _complain(message: str) -> None:
    """Print one line; messages may quote what a policy or a file says."""
    click.echo(f"inferx: {' '.join(message.split())}", err=True)
