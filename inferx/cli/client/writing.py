"""`inferx apply`, `create`, `update`, `delete`: what is to be."""

import click

from inferx.cli.client.command import SETTINGS, Asking, asking, type_argument
from inferx.client.applying import apply_all
from inferx.client.errors import ClientError, RefusedError
from inferx.client.files import Stated, read_objects
from inferx.client.names import name_of, type_of

__all__ = ["apply", "create", "delete", "update"]


@click.command(
    context_settings=SETTINGS,
    epilog="\b\nExamples:\n  inferx apply -f functions/\n"
    "  inferx apply -f tenant.yaml -f llama.json\n"
    "  inferx get function acme/chat/llama -o json | edit | inferx apply -f -",
)
@click.option(
    *("-f", "--file", "sources"),
    multiple=True,
    required=True,
    metavar="FILE|DIR|-",
    help="Where objects are, in JSON or YAML.  [repeatable]",
)
@asking
def apply(*, sources: tuple[str, ...], ask: Asking) -> None:
    """Make objects what files state.

    What is so already stays as it is. A tenant or namespace that is not there is made first, where
    the key may do that: a tenant with room for many functions.
    """
    objects = read_objects(sources)
    with ask.cluster() as cluster:
        for name, outcome, note in apply_all(cluster, objects):
            click.echo(f"{name} {outcome}" + (f" ({note})" if note else ""))


@click.command(context_settings=SETTINGS)
@click.argument("file")
@asking
def create(*, file: str, ask: Asking) -> None:
    """Make the objects of FILE, which must not be there yet."""
    objects = read_objects([file])
    with ask.cluster() as cluster:
        for one in objects:
            cluster.create(one)
            click.echo(f"{one.name} created")


@click.command(context_settings=SETTINGS)
@click.argument("file")
@click.option("--force", is_flag=True, help="Whatever they are now.")
@asking
def update(*, file: str, force: bool, ask: Asking) -> None:
    """Change the objects of FILE, which must still be at the `revision` that it states."""
    objects = read_objects([file])
    if not force:
        _check_revisions(objects)
    with ask.cluster() as cluster:
        for one in objects:
            cluster.update(one, force=force)
            click.echo(f"{one.name} updated")


def _check_revisions(objects: tuple[Stated, ...]) -> None:
    for one in objects:
        if not one.get("revision"):
            expected = "that of `inferx get`, or --force; `inferx apply` needs none"
            raise ClientError(f"{one.source}: {one.name}: no revision; expected {expected}")


@click.command(
    context_settings=SETTINGS,
    epilog="\b\nExamples:\n  inferx delete function acme/chat/llama\n"
    "  inferx delete namespace acme/chat --cascade\n  inferx delete pod 17 --now",
)
@type_argument
@click.argument("words", nargs=-1, required=True, metavar="[TENANT/][NAMESPACE/]NAME|POD")
@click.option("--cascade", is_flag=True, help="With all that is in it.")
@click.option("--now", is_flag=True, help="A pod: whom it serves is not waited for, and fails.")
@asking
def delete(*, type_: str, words: tuple[str, ...], cascade: bool, now: bool, ask: Asking) -> None:
    """Remove an object, or end a pod."""
    if type_ in {"pod", "pods"}:
        _end_pod(words, cascade=cascade, now=now, ask=ask)
        return
    if now:
        raise click.UsageError("--now is of pods")
    name = name_of(type_of(type_), words, tenant=ask.tenant)
    with ask.cluster() as cluster:
        try:
            cluster.delete(name, cascade=cascade)
        except RefusedError as error:
            if error.code != "not_admitted" or cascade:
                raise
            raise ClientError(f"{error} (--cascade)") from error
    click.echo(f"{name} deleted")


def _end_pod(words: tuple[str, ...], *, cascade: bool, now: bool, ask: Asking) -> None:
    if cascade or len(words) != 1 or not words[0].isdecimal():
        raise click.UsageError("delete pod: expected the pod's number, and at most --now")
    with ask.cluster() as cluster:
        cluster.end_pod(int(words[0]), now=now)
    click.echo(f"pod {words[0]} is ending" + (" now" if now else ""))
