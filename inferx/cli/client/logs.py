"""`inferx logs`: what pods wrote, as long as their nodes keep it."""

import click

from inferx.cli.client.command import SETTINGS, Asking, asking
from inferx.client.cluster import Cluster
from inferx.client.errors import GoneError
from inferx.client.logs import ENDED, Log
from inferx.client.names import function_of

__all__ = ["logs"]


@click.command(
    context_settings=SETTINGS,
    epilog="\b\nExamples:\n  inferx logs acme/chat/llama --follow\n"
    "  inferx logs acme/chat/llama --previous\n  inferx logs 17 --tail 100 --stream stderr",
)
@click.argument("whose", metavar="POD|[TENANT/]NAMESPACE/NAME")
@click.option("-f", "--follow", is_flag=True, help="Go on until the pod ends, or Ctrl-C.")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="Only so many last lines.")
@click.option("-p", "--previous", is_flag=True, help="Of the function's pod that ended last.")
@click.option("--stream", type=click.Choice(("stdout", "stderr")), help="One of the two.")
@asking
def logs(
    *,
    whose: str,
    follow: bool,
    tail: int | None,
    previous: bool,
    stream: str | None,
    ask: Asking,
) -> None:
    """Print what a pod wrote, or a function's latest pod."""
    if previous and whose.isdecimal():
        raise click.UsageError("--previous is of a function: expected its name")
    with ask.cluster() as cluster:
        log = (
            _pod(cluster, whose)
            if whose.isdecimal()
            else _of(cluster, whose, ask, previous=previous)
        )
        for text in cluster.log(log, tail=tail, follow=follow, stream=stream or ""):
            click.echo(text, nl=False)


def _pod(cluster: Cluster, whose: str) -> Log:
    found, complete = cluster.logs()
    for log in found:
        if log.pod == int(whose):
            return log
    raise _none(f"pod {whose}", complete=complete)


def _of(cluster: Cluster, whose: str, ask: Asking, *, previous: bool) -> Log:
    """Return which of a function's pods is meant, and say so where it is not plain."""
    name = function_of(whose, tenant=ask.tenant)
    found, complete = cluster.logs(name.tenant, name.namespace, name.name)
    runs = [log for log in found if log.state != ENDED]
    ended = [log for log in found if log.state == ENDED]
    meant = ended if previous or not runs else runs
    if not meant:
        what = "a pod that has ended" if previous else "a pod"
        raise _none(f"{what} of {name}", complete=complete)
    log, *others = meant
    if others and not previous:
        more = ", ".join(str(one.pod) for one in others)
        click.echo(f"pod {log.pod}; there are others: {more}", err=True)
    elif log.state == ENDED and not previous:
        click.echo(f"pod {log.pod}, which has ended", err=True)
    return log


def _none(what: str, *, complete: bool) -> GoneError:
    where = "no node keeps any" if complete else "none of the nodes that answer keeps any"
    return GoneError(f"output of {what}: {where}", status=404)
