"""`inferx explain pod`, `explain function`: the scheduler's latest decisions, and their reasons."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from inferx.cli.client.command import SETTINGS, Asking, Form, asking, form_option
from inferx.cli.client.decisions import print_decisions
from inferx.cli.client.printing import print_value
from inferx.client.cluster import Cluster
from inferx.client.errors import ClientError, GoneError
from inferx.client.names import function_of

__all__ = ["function", "pod", "pod_line"]

_Facts = Mapping[str, Any]


@click.command(context_settings=SETTINGS)
@click.argument("pod_id", metavar="POD", type=click.IntRange(0))
@form_option("table", "json", "yaml")
@asking
def pod(*, pod_id: int, form: Form, ask: Asking) -> None:
    """Say what was decided of a pod of the cluster, and why."""
    with ask.cluster() as cluster:
        view, decisions = _decisions(cluster)
    about = [one for one in decisions if one["pod"] == pod_id or pod_id in one["victims"]]
    there = next((one for one in view["pods"] if one["pod"] == pod_id), None)
    if there is None and not about:
        raise ClientError(f"pod {pod_id}: it is not there, and the latest decisions are of others")
    if form != "table":
        print_value({"pod": there, "decisions": about}, form)
        return
    click.echo(f"pod {pod_id}: " + ("gone" if there is None else pod_line(there)))
    print_decisions(about, view["now_ns"], pod_id)


@click.command(context_settings=SETTINGS)
@click.argument("name", metavar="[TENANT/]NAMESPACE/NAME")
@form_option("table", "json", "yaml")
@asking
def function(*, name: str, form: Form, ask: Asking) -> None:
    """Say how a function of the cluster fares, and why requests of it wait, where they do."""
    called = function_of(name, tenant=ask.tenant)
    place = f"{called.tenant}/{called.namespace}/{called.name}"
    with ask.cluster() as cluster:
        view, decisions = _decisions(cluster)

    def of_it(identity: str) -> bool:
        return identity.partition("@")[0] == place

    fares = [one for one in view["functions"] if of_it(one["name"])]
    if not fares:
        raise GoneError(f"{called}: the scheduler knows of none", status=404)
    pods = [one for one in view["pods"] if of_it(one["function"])]
    about = [one for one in decisions if of_it(one["function"])]
    if form != "table":
        print_value({"functions": fares, "pods": pods, "decisions": about}, form)
        return
    for one in fares:
        waits = "; it waits for room" if one["waits_for_room"] else ""
        click.echo(f"{one['name']}: {one['queued']} queued, {one['inflight']} served{waits}")
    for one in pods:
        click.echo(f"  pod {one['pod']}: {pod_line(one)}")
    print_decisions(about, view["now_ns"])


def _decisions(cluster: Cluster) -> tuple[_Facts, Sequence[_Facts]]:
    view = cluster.view()
    if "decisions" not in view:
        raise ClientError("decisions tell of all tenants: expected a key that reads the cluster")
    return view, view["decisions"]


def pod_line(one: Mapping[str, Any]) -> str:
    """Return what a pod is at, where."""
    gpus = ", ".join(map(str, one["gpus"]))
    # One that sleeps in host memory is on none.
    where = f"{one['node']}, GPU {gpus}" if gpus else one["node"]
    served = f"{one['leased_slots']} of {one['slots']} slots in use"
    return f"{one['state']} on {where}; of {one['function']}; {served}"
