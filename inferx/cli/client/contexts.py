"""`inferx context`: which cluster the other commands ask, and as whom."""

import sys
from pathlib import Path

import click
import msgspec

from inferx.cli.client.command import SETTINGS, Form, form_option
from inferx.cli.client.printing import print_rows
from inferx.client.connection import Connection
from inferx.client.contexts import Context, contexts_path, read_contexts, write_contexts
from inferx.client.errors import ClientError
from inferx.spec.document import shown
from inferx.spec.reference import NAME, is_name

__all__ = ["context"]

KEY_LIMIT = 8192
"""Characters: a signed token of an identity provider is the longest."""


@click.group(context_settings=SETTINGS)
def context() -> None:
    """Keep which clusters there are, and the keys for them, in a file that only you can read."""


@context.command(
    "set",
    epilog="\b\nExample:\n  inferx context set lab --server http://10.0.0.1:4000 --key-file key",
)
@click.argument("name")
@click.option("--server", metavar="URL", help="The gateway.  [required for a new one]")
@click.option("--key-file", metavar="FILE|-", help="Has the key; - reads it, unseen at a terminal.")
@click.option("--tenant", help="Whose objects are meant where a command names no tenant.")
def set_(*, name: str, server: str | None, key_file: str | None, tenant: str | None) -> None:
    """Add or change a context; the first is the one in use."""
    path = contexts_path()
    contexts = read_contexts(path)
    known = contexts.named.get(name)
    if server is None and known is None:
        raise click.UsageError(f"context {name} is new: expected --server")
    if tenant and not is_name(tenant):
        raise ClientError(f"--tenant {shown(tenant)}; expected {NAME}")
    one = known or Context(server="")
    if server is not None:
        # A key is for one server: it does not follow to another.
        same = server.rstrip("/") == one.server
        one = msgspec.structs.replace(one, server=server.rstrip("/"), key=one.key if same else "")
    if key_file is not None:
        one = msgspec.structs.replace(one, key=_key(key_file))
    if tenant is not None:
        one = msgspec.structs.replace(one, tenant=tenant)
    with Connection(one.server, one.key):
        pass  # It could be asked.
    current = contexts.current or name
    named = {**contexts.named, name: one}
    write_contexts(path, msgspec.structs.replace(contexts, current=current, named=named))
    click.echo(f"context {name}: {one.server}" + (", in use" if current == name else ""))


def _key(source: str) -> str:
    if source != "-":
        with Path(source).open() as file:
            text = file.read(KEY_LIMIT + 1)
    elif sys.stdin.isatty():
        text = str(click.prompt("API key", hide_input=True, err=True))
    else:
        text = sys.stdin.read(KEY_LIMIT + 1)
    key = text.strip()
    if not key or len(text) > KEY_LIMIT or len(key.split()) != 1:
        raise ClientError(f"--key-file {source}: expected an API key, and nothing else")
    return key


@context.command()
@click.argument("name")
def use(*, name: str) -> None:
    """Ask this one from now on."""
    path = contexts_path()
    contexts = read_contexts(path)
    one = contexts.get(name)
    write_contexts(path, msgspec.structs.replace(contexts, current=name))
    click.echo(f"context {name}: {one.server}, in use")


@context.command()
@click.argument("name")
def remove(*, name: str) -> None:
    """Forget a context and its key; the key itself stays good."""
    path = contexts_path()
    contexts = read_contexts(path)
    contexts.get(name)
    named = {other: one for other, one in contexts.named.items() if other != name}
    current = "" if contexts.current == name else contexts.current
    write_contexts(path, msgspec.structs.replace(contexts, current=current, named=named))
    click.echo(f"context {name}: removed")


@context.command("list")
@form_option()
def list_(*, form: Form) -> None:
    """Print all contexts; keys are not shown."""
    contexts = read_contexts(contexts_path())
    rows = [
        {
            "current": "*" if name == contexts.current else "",
            "name": name,
            "server": one.server,
            "tenant": one.tenant or "-",
            "key": "yes" if one.key else "no",
        }
        for name, one in contexts.named.items()
    ]
    columns = ("current", "name", "server", "tenant", "key")
    print_rows(rows, form, columns=columns, called=lambda row: str(row["name"]))
