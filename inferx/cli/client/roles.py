"""`inferx grant`, `revoke`, `tenantusers`, `namespaceusers`, `roles`: who may do what, by name."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar

import click

from inferx.cli.client.command import SETTINGS, Asking, Form, asking, form_option
from inferx.cli.client.printing import age, print_rows
from inferx.client.names import Name, name_of

__all__ = ["grant", "namespaceusers", "revoke", "roles", "tenantusers"]

F = TypeVar("F", bound=Callable[..., Any])
Scope = Literal["tenant", "namespace"]

EVERY = "*"
_SCOPE = click.argument("scope", type=click.Choice(("tenant", "namespace")))
_ROLE = click.argument("role", type=click.Choice(("admin", "user")))
_ISSUER = click.option(
    "--issuer", default="", metavar="URL", help="Whose user.  [default: the only]"
)
_COLUMNS = ("username", "issuer", "by", "age")


def _role_of_somebody(command: F) -> F:
    """Add the words that say which role, whose, and where."""
    words = click.argument("words", nargs=-1, required=True, metavar="TENANT [NAMESPACE]")
    for add in (_ISSUER, words, click.argument("username"), _ROLE, _SCOPE):
        command = add(command)
    return command


@click.command(
    context_settings=SETTINGS,
    epilog="\b\nExamples:\n  inferx grant namespace user ada acme chat\n"
    "  inferx grant tenant admin ada acme --issuer https://id.example.org/realms/inferx",
)
@_role_of_somebody
@asking
def grant(
    *, scope: Scope, role: str, username: str, words: tuple[str, ...], issuer: str, ask: Asking
) -> None:
    """Grant a role to a user, by the name that is in their tokens.

    An admin has full access there; a user reads, and sends requests.
    """
    place = _place(scope, words, ask)
    with ask.cluster() as cluster:
        kept = cluster.grant_role(_request(place, role, username, issuer))
    click.echo(f"{kept['username']} of {kept['issuer']} is {role} of {place}")


@click.command(
    context_settings=SETTINGS,
    epilog="\b\nExample:\n  inferx revoke namespace user ada acme chat",
)
@_role_of_somebody
@asking
def revoke(
    *, scope: Scope, role: str, username: str, words: tuple[str, ...], issuer: str, ask: Asking
) -> None:
    """Revoke a role that was granted by name. Roles that a token brings are its issuer's."""
    place = _place(scope, words, ask)
    with ask.cluster() as cluster:
        cluster.revoke_role(_request(place, role, username, issuer))
    click.echo(f"{username} is no longer {role} of {place}")


@click.command(
    context_settings=SETTINGS,
    epilog="\b\nExample:\n  inferx tenantusers admin acme",
)
@_ROLE
@click.argument("words", nargs=-1, required=True, metavar="TENANT")
@form_option()
@asking
def tenantusers(*, role: str, words: tuple[str, ...], form: Form, ask: Asking) -> None:
    """Print who was granted a role in a whole tenant, by name."""
    place = _place("tenant", words, ask)
    with ask.cluster() as cluster:
        _print_users(cluster.role_holders(role, place.name), form)


@click.command(
    context_settings=SETTINGS,
    epilog="\b\nExample:\n  inferx namespaceusers user acme chat",
)
@_ROLE
@click.argument("words", nargs=-1, required=True, metavar="[TENANT] NAMESPACE")
@form_option()
@asking
def namespaceusers(*, role: str, words: tuple[str, ...], form: Form, ask: Asking) -> None:
    """Print who was granted a role in a namespace, by name.

    Not those who have it in the whole tenant: that is `inferx tenantusers`.
    """
    place = _place("namespace", words, ask)
    with ask.cluster() as cluster:
        _print_users(cluster.role_holders(role, place.tenant, place.name), form)


@click.command(context_settings=SETTINGS, epilog="\b\nExample:\n  inferx roles -o json")
@form_option()
@asking
def roles(*, form: Form, ask: Asking) -> None:
    """Print what you may do, and where: by your key or your token, and by name."""
    with ask.cluster() as cluster:
        found = cluster.roles()
    columns = ("level", "tenant", "namespace")
    print_rows(found, form, columns=columns, called=lambda row: " ".join(row[c] for c in columns))


def _place(scope: Scope, words: tuple[str, ...], ask: Asking) -> Name:
    return name_of(scope, words, tenant=ask.tenant)


def _request(place: Name, role: str, username: str, issuer: str) -> Mapping[str, object]:
    whole = place.type == "tenant"
    stated = {
        "role": role,
        "username": username,
        "tenant": place.name if whole else place.tenant,
        "namespace": EVERY if whole else place.name,
    }
    return stated | ({"issuer": issuer} if issuer else {})


def _print_users(found: tuple[Mapping[str, Any], ...], form: Form) -> None:
    print_rows(
        found,
        form,
        columns=_COLUMNS,
        called=lambda row: str(row["username"]),
        cells=_cells,
        right=("age",),
    )


def _cells(row: Mapping[str, Any]) -> Iterable[str]:
    return str(row["username"]), str(row["issuer"]), str(row["by"]), age(row["granted_ns"])
