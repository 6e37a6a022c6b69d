"""`inferx get`, `list`, `watch`, `wait`: what there is, and how it fares."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import click

from inferx.cli.client.command import SETTINGS, Asking, Form, asking, form_option, type_argument
from inferx.cli.client.printing import print_objects, print_rows, print_value
from inferx.client.cluster import Cluster
from inferx.client.names import function_of, name_of, place_of, type_of
from inferx.client.waiting import Goal, wait_for
from inferx.client.watching import Change

__all__ = ["get", "list_", "wait", "watch"]

_LABELS = click.option("-l", "--labels", default="", help="As team=search,tier!=test,gpu,!old.")
_DAY_S = 86_400
_VIEWS: Final[Mapping[str, Sequence[str]]] = {
    "pod": ("pod", "state", "function", "node", "gpus", "slots", "from"),
    "snapshot": ("function", "node", "tier"),
}
"""What is listed as it is now though nobody wrote it, with its columns."""


@click.command(
    context_settings=SETTINGS,
    epilog="\b\nExamples:\n  inferx get function acme/chat/llama\n  inferx get tenant acme -o yaml",
)
@type_argument
@click.argument("words", nargs=-1, required=True, metavar="[TENANT/][NAMESPACE/]NAME")
@form_option("yaml", "json", "table", "name")
@asking
def get(*, type_: str, words: tuple[str, ...], form: Form, ask: Asking) -> None:
    """Print an object, as its author wrote it."""
    name = name_of(type_of(type_), words, tenant=ask.tenant)
    with ask.cluster() as cluster:
        found = cluster.get(name)
    if form in {"table", "name"}:
        print_objects([found], form)
    else:
        print_value(found, form)


@click.command(
    "list",
    context_settings=SETTINGS,
    epilog="\b\nExamples:\n  inferx list functions\n"
    "  inferx list functions acme/chat -l team=search\n  inferx list tenants -o name\n"
    "  inferx list pods acme",
)
@type_argument
@click.argument("words", nargs=-1, metavar="[TENANT[/NAMESPACE]]")
@_LABELS
@form_option()
@asking
def list_(*, type_: str, words: tuple[str, ...], labels: str, form: Form, ask: Asking) -> None:
    """Print the objects of a type: all that the key may see, or those of a place.

    Pods and snapshots are listed as well, as they are now.
    """
    view = type_.removesuffix("s")
    if view in _VIEWS:
        if labels:
            raise click.UsageError(f"--labels: {view}s have none")
        # They are of functions, and so is their place.
        place = place_of("function", words, tenant=ask.tenant)
        with ask.cluster() as cluster:
            _print_view(cluster, view, tuple(filter(None, place)), form)
        return
    kind = type_of(type_)
    place = place_of(kind, words, tenant=ask.tenant)
    with ask.cluster() as cluster:
        found = cluster.list(kind, place, labels)
    print_objects(found, form)


def _print_view(cluster: Cluster, view: str, place: tuple[str, ...], form: Form) -> None:
    columns = _VIEWS[view]
    if view == "pod":
        pods, right = cluster.pods(*place), ("pod", "slots")
        print_rows(pods, form, columns=columns, called=_pod_name, cells=_pod_cells, right=right)
    else:
        print_rows(cluster.snapshots(*place), form, columns=columns, called=_snapshot_name)


def _pod_name(row: Mapping[str, Any]) -> str:
    return str(row["pod"])


def _snapshot_name(row: Mapping[str, Any]) -> str:
    return f"{row['function']} {row['node']}"


def _pod_cells(row: Mapping[str, Any]) -> Iterable[str]:
    gpus = ",".join(map(str, row["gpus"])) or "-"
    slots = f"{row['leased_slots']}/{row['slots']}"
    yield from (str(row["pod"]), row["state"], row["function"], row["node"])
    began = row["started_from"]
    yield from (gpus, slots, "cold" if began == "absent" else began)


@click.command(context_settings=SETTINGS)
@type_argument
@click.argument("words", nargs=-1, metavar="[TENANT[/NAMESPACE]]")
@_LABELS
@form_option("table", "json")
@asking
def watch(*, type_: str, words: tuple[str, ...], labels: str, form: Form, ask: Asking) -> None:
    """Print what changes, a line each, until Ctrl-C; at first, all that there is."""
    kind = type_of(type_)
    place = place_of(kind, words, tenant=ask.tenant)
    with ask.cluster() as cluster:
        for change in cluster.watch(kind, place, labels):
            click.echo(_json(change) if form == "json" else f"{change.event:6}  {change.name}")


def _json(change: Change) -> str:
    told: dict[str, object] = {"event": change.event}
    if change.object is None:
        return json.dumps(told | {"key": change.name._asdict()})
    return json.dumps(told | {"object": change.object})


@click.command(
    context_settings=SETTINGS,
    epilog="\b\nExample:\n  inferx wait --for ready acme/chat/llama --timeout 120",
)
@click.argument("function", metavar="[TENANT/]NAMESPACE/NAME")
@click.option(
    *("--for", "goal"),
    type=click.Choice(("ready", "idle", "gone")),
    default="ready",
    show_default=True,
    help="A pod of it serves; no request of it waits or is served; it and its pods are not there.",
)
@click.option(
    *("--timeout", "timeout_s"),
    type=click.FloatRange(0, _DAY_S),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="Exit status 1 after so long.",
)
@asking
def wait(*, function: str, goal: Goal, timeout_s: float, ask: Asking) -> None:
    """Wait until a function is ready, idle or gone."""
    name = function_of(function, tenant=ask.tenant)
    with ask.cluster() as cluster:
        wait_for(cluster, name, goal, timeout_s)
    click.echo(f"{name} is {goal}")
