"""Decisions of a live scheduler in words: what, when, and why that and nothing else."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from inferx.core.units import NS_PER_S

__all__ = ["decision_lines", "print_decisions", "why_lines"]

SHOWN: Final = 20
_Facts = Mapping[str, Any]
_KINDS: Final = {
    "place": "placed",
    "evict": "room is made for it",
    "defer": "not started",
    "sink": "put to sleep",
    "scale-in": "no longer needed",
    "lose": "lost",
    "end": "ended by who runs the cluster",
}
_MOVES: Final = {
    ("promote", "hbm"): "started ahead of need",
    ("promote", "dram"): "brought into host memory ahead of need",
    ("promote", "nvme"): "its snapshot brought to disk ahead of need",
    ("demote", "hbm"): "its idle pod taken off the GPU ahead of need",
    ("demote", "dram"): "its pod moved from host memory to disk",
    ("demote", "nvme"): "its snapshot removed from disk",
    ("sink", "dram"): "put to sleep in host memory",
    ("sink", "nvme"): "put to sleep on disk",
}
"""Where the reason is a tier."""


def print_decisions(decisions: Sequence[_Facts], now_ns: int, about: int | None = None) -> None:
    """Print decisions, the latest first; `about` is the pod that they are told of."""
    if not decisions:
        click.echo("no decision about it is among the latest")
    for one in list(reversed(decisions))[:SHOWN]:
        ago = f"{max(now_ns - one['at_ns'], 0) / NS_PER_S:,.1f} s ago"
        first, *more = decision_lines(one, about)
        click.echo(f"{ago:>12}  {first}")
        for line in more:
            click.echo(f"{'':14}{line}")


def decision_lines(one: _Facts, about: int | None = None) -> list[str]:
    """Return what was decided, then why; `about` is the pod that it is told of."""
    where = f" on {one['node']}" if one["node"] else ""
    how = f", {one['start']}" if one["start"] else ""
    of = f" (pod {one['pod']})" if one["pod"] >= 0 else ""
    if about in one.get("victims", ()):
        # It is a decision about somebody else: the reasons are why that one goes before.
        return [f"made to leave{where}, for {one['function']}{of}", *why_lines(one)]
    moved = _MOVES.get((one["kind"], one["reason"]))
    told = moved or _KINDS.get(one["kind"], one["kind"])
    times = one.get("times", 1)
    often = f", {times} times, the last" if times > 1 else ""
    why = f": {one['reason']}" if one["reason"] and not moved else ""
    return [f"{told}{where}{how}{of}{often}{why}", *why_lines(one)]


def why_lines(one: _Facts) -> list[str]:
    """Return why: who left, how many could take it, what turned the others away, the scores."""
    lines: list[str] = []
    if one.get("victims"):
        lines.append("to make room, these leave: " + ", ".join(f"pod {v}" for v in one["victims"]))
    why = one.get("explanation")
    if why is None:
        return lines
    turned = ", ".join(f"{count} by {name}" for name, count in why.get("filtered", {}).items())
    lines.append(
        f"{why['feasible']} of {why['gpus']} GPUs could take it"
        + (f"; turned away: {turned}" if turned else "")
    )
    if why.get("counterfactual"):
        lines.append(why["counterfactual"])
    for candidate in why.get("top", ()):
        terms = ", ".join(f"{name} {value:.3f}" for name, value in candidate["terms"].items())
        place = f"{candidate['node']} GPU {candidate['gpu']}"
        lines.append(f"score {candidate['score']:.3f}  {place}" + (f"  ({terms})" if terms else ""))
    return lines
