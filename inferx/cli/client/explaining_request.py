"""`inferx explain request`: what became of one request of a live cluster, and why."""

from collections.abc import Mapping
from typing import Any, Final

import click

from inferx.cli.client.command import SETTINGS, Asking, Form, asking, form_option
from inferx.cli.client.decisions import decision_lines
from inferx.cli.client.printing import print_value
from inferx.core.units import NS_PER_MS, NS_PER_S

__all__ = ["request"]

_Facts = Mapping[str, Any]
_HOW: Final = {
    "warm": "a slot that was free",
    "slot": "a slot that another request gave back",
    "lease": "slots of a running pod that were leased for it",
    "cold": "a pod that was started for it",
}


@click.command(context_settings=SETTINGS)
@click.argument("request_id", metavar="ID")
@form_option("table", "json", "yaml")
@asking
def request(*, request_id: str, form: Form, ask: Asking) -> None:
    """Say what became of a request: its wait, its pod, why that one, and what else was possible.

    ID is the X-Request-Id of its answer. A gateway remembers the latest 10,000 requests that
    waited, woke a pod or failed, and the latest 1,000 others.
    """
    with ask.cluster() as cluster:
        told = cluster.request(request_id)
    if form != "table":
        print_value(told, form)
        return
    click.echo(f"request {told['request']} of {told['function']}: {_outcome(told)}")
    for at_ns, line, more in sorted(_events(told), key=lambda event: event[0]):
        click.echo(f"{_after(told, at_ns):>12}  {line}")
        for detail in more:
            click.echo(f"{'':14}{detail}")
    if "leader" in told:
        click.echo(f"its decisions are not known: {told['leader']}")
    if told["counterfactual"]:
        click.echo("otherwise:")
        for line in told["counterfactual"]:
            click.echo(f"  {line}")
    if told["trace"]:
        click.echo(f"trace {told['trace']}")


def _outcome(told: _Facts) -> str:
    if told["state"] == "waiting":
        return f"it waits, after {told['ahead']} others when it came"
    if told["state"] == "served":
        return f"pod {told['pod']} serves it"
    reason = f", {told['reason']}" if told["reason"] else ""
    return f"{told['status'] or 'not answered'}{reason}"


def _events(told: _Facts) -> list[tuple[int, str, list[str]]]:
    """Return what happened: when, what, and its details."""
    events: list[tuple[int, str, list[str]]] = [(told["arrived_ns"], "it came", [])]
    if told["ahead"]:
        events.append((told["queued_ns"], f"{told['ahead']} others waited before it", []))
    for one in told["decisions"]:
        first, *more = decision_lines(one)
        events.append((one["at_ns"], first, more))
    start = told["start"]
    if start is not None and start["ready_ns"] >= told["queued_ns"]:
        phases = [
            f"{one['phase']} {one['duration_ns'] / NS_PER_MS:,.1f} ms" for one in start["phases"]
        ]
        took = (start["ready_ns"] - start["ordered_ns"]) / NS_PER_S
        events.append(
            (start["ready_ns"], f"pod {told['pod']} was ready, {took:,.3f} s after", phases)
        )
    if told["started_ns"]:
        now = told["now"]
        where = ""
        if now is not None:
            gpus = ", ".join(map(str, now["gpus"]))
            where = f", now {now['state']} on {now['node']}" + (f", GPU {gpus}" if gpus else "")
        got = _HOW.get(told["how"], "a slot")
        events.append((told["started_ns"], f"it got {got}: pod {told['pod']}{where}", _among(told)))
    if told["first_ns"]:
        events.append((told["first_ns"], "the first of its answer came", []))
    if told["ended_ns"]:
        tokens = f", {told['output_tokens']} tokens" if told["output_tokens"] else ""
        events.append((told["ended_ns"], f"it was over: {_outcome(told)}{tokens}", []))
    return events


def _among(told: _Facts) -> list[str]:
    return [
        f"chosen among pod {one['pod']}: {one['free_slots']} slots free, {one['inflight']} in use"
        for one in told["candidates"]
    ]


def _after(told: _Facts, at_ns: int) -> str:
    return f"{(at_ns - told['arrived_ns']) / NS_PER_S:+,.3f} s"
