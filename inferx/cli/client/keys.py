"""`inferx keys`: API keys, made, listed and revoked."""

import time
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, TypeVar, cast

import click

from inferx.cli.client.command import SETTINGS, Asking, Form, asking, form_option
from inferx.cli.client.printing import age, print_rows
from inferx.client.cluster import AccessLevel
from inferx.client.errors import ClientError
from inferx.core.units import NS_PER_S
from inferx.spec.document import shown

__all__ = ["keys"]

F = TypeVar("F", bound=Callable[..., Any])

EVERY = "*"
YEARS_10 = 3_660
_DAY_NS = 86_400 * NS_PER_S
_COLUMNS = ("id", "label", "tenant", "namespace", "level", "age", "expires", "state")

_TENANT = click.option(
    *("--tenant", "--restrict-tenant"), help="Whose it is.  [default: the context's; * is all]"
)
_NAMESPACE = click.option(
    *("--namespace", "--restrict-namespace"), help="Of the tenant's.  [default: all of them]"
)


def _username(command: F) -> F:
    """Add a user's name, which another tool takes in either place; it is passed as `username`."""

    @wraps(command)
    def takes(*args: Any, username: str | None, username_too: str | None, **more: Any) -> Any:
        return command(*args, username=username or username_too or "", **more)

    named = click.option("--username", "username_too", hidden=True)(takes)
    return cast("F", click.argument("username", required=False)(named))


@click.group(context_settings=SETTINGS)
def keys() -> None:
    """Make, list and revoke API keys."""


@keys.command(
    epilog="\b\nExample:\n  inferx keys create ci --tenant acme --namespace chat --level inference"
)
@click.argument("label")
@_username
@_TENANT
@_NAMESPACE
@click.option(
    *("--level", "--access-level"),
    type=click.Choice(("full", "read", "inference")),
    default="inference",
    show_default=True,
    help="How much it allows there.",
)
@click.option(
    "--expires-in-days", type=click.IntRange(1, YEARS_10), help="[default: not before revoked]"
)
@form_option("table", "json", "yaml")
@asking
def create(
    *,
    label: str,
    username: str,
    tenant: str | None,
    namespace: str | None,
    level: AccessLevel,
    expires_in_days: int | None,
    form: Form,
    ask: Asking,
) -> None:
    """Make a key that people call LABEL, and print it: nobody can print it again.

    A key is whoever's that holds it. A USERNAME is part of what it is called: `LABEL (USERNAME)`.
    """
    request: dict[str, object] = {
        "tenant": _tenant(tenant, ask),
        "namespace": namespace or EVERY,
        "level": level,
        "label": _called(label, username),
    }
    if expires_in_days is not None:
        request["expires_ns"] = time.time_ns() + expires_in_days * _DAY_NS
    with ask.cluster() as cluster:
        made = cluster.issue_key(request)
    if form == "table":
        # The key alone on stdout: `$(inferx keys create ...)` has it, and nothing else.
        click.echo(f"key {made['id']}, shown this once:", err=True)
        click.echo(made["key"])
    else:
        print_rows([made], form, columns=(), called=lambda row: str(row["id"]))


@keys.command("list")
@_TENANT
@_NAMESPACE
@form_option()
@asking
def list_(*, tenant: str | None, namespace: str | None, form: Form, ask: Asking) -> None:
    """Print what is known of keys; the keys themselves nobody knows."""
    with ask.cluster() as cluster:
        found = cluster.keys(_tenant(tenant, ask), namespace or "")
    print_rows(
        found,
        form,
        columns=_COLUMNS,
        called=lambda row: str(row["id"]),
        cells=_cells,
        right=("age",),
    )


@keys.command()
@click.argument("key_id", metavar="ID")
@_username
@_TENANT
@_NAMESPACE
@asking
def revoke(
    *, key_id: str, username: str, tenant: str | None, namespace: str | None, ask: Asking
) -> None:
    """Make a key good for nothing, for ever. ID is as `keys list` has it, or the key's label."""
    whose, key_id = _tenant(tenant, ask), _called(key_id, username)
    with ask.cluster() as cluster:
        found = [
            one
            for one in cluster.keys(whose, namespace or "")
            if key_id in {one["id"], one["label"]} and one.get("revoked_ns") is None
        ]
        if len(found) != 1:
            told = f"{len(found)} keys that are called so" if found else "no such key"
            raise ClientError(f"key {shown(key_id)} of tenant {whose}: {told}; expected one ID")
        cluster.revoke_key(found[0]["id"], found[0]["tenant"], found[0]["namespace"])
    click.echo(f"key {found[0]['id']} revoked")


# A record is kept when its key is revoked; there is no other way to be rid of one.
keys.add_command(revoke, "delete")


def _called(label: str, username: str) -> str:
    return f"{label} ({username})" if username else label


def _tenant(stated: str | None, ask: Asking) -> str:
    if found := stated or ask.tenant:
        return found
    raise click.UsageError("expected --tenant, '*' for who runs the cluster, or a context with one")


def _cells(row: Mapping[str, Any]) -> Iterable[str]:
    expires_ns, revoked_ns = row.get("expires_ns"), row.get("revoked_ns")
    expired = expires_ns is not None and expires_ns <= time.time_ns()
    state = "revoked" if revoked_ns is not None else "expired" if expired else "good"
    in_ = "-" if expires_ns is None else f"{age(expires_ns)}{' ago' if expired else ''}"
    plain = tuple(str(row[key]) for key in ("id", "label", "tenant", "namespace", "level"))
    return *plain, age(row["issued_ns"]), in_, state
