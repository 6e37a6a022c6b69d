"""What else could have become of a request, in sentences: the next best, and what it lacked."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["counterfactual"]

_Facts = Mapping[str, Any]


def counterfactual(told: _Facts) -> list[str]:
    """Return the sentences about a request as `/request/ID/` tells it.

    They say no more than the decisions do that are told beside them.
    """
    others = [one for one in told["candidates"] if not one["chosen"]]
    lines: list[str] = []
    if others:
        best = max(others, key=lambda one: (one["free_slots"], -one["pod"]))
        lines.append(
            f"pod {best['pod']} would have served it as well: {best['free_slots']} of its slots"
            f" were free, {best['inflight']} in use"
        )
    elif told["how"] == "warm":
        lines.append("no other pod leased here had a free slot: without this one it had waited")
    elif told["how"] == "slot":
        lines.append("no leased pod had a free slot: with one more it had not waited")
    decisions: Sequence[_Facts] = told["decisions"]
    for one in decisions:
        lines += _decision(one)
    return list(dict.fromkeys(lines))


def _decision(decision: _Facts) -> list[str]:
    why: _Facts | None = decision.get("explanation")
    if why is None:
        return []
    lines: list[str] = []
    if why.get("counterfactual"):
        text = str(why["counterfactual"])
        lines.append(f"it {text}" if text.startswith("would") else text)
    top: Sequence[_Facts] = why.get("top", ())
    if len(top) > 1:
        lines.append(_next_best(top[0], top[1]))
    elif decision["kind"] == "place" and len(top) == 1:
        turned = ", ".join(f"{count} by {name}" for name, count in why.get("filtered", {}).items())
        lines.append(
            f"no other GPU could take the pod: {turned}" if turned else "there is no other GPU"
        )
    return lines


def _next_best(best: _Facts, other: _Facts) -> str:
    """Say what a candidate lacked to be the first."""
    place = f"{other['node']} GPU {other['gpu']}"
    margin = best["score"] - other["score"]
    lacked = {
        name: value - other["terms"].get(name, 0.0)
        for name, value in best["terms"].items()
        if value > other["terms"].get(name, 0.0)
    }
    if margin <= 0 or not lacked:
        return f"{place} was as good: the first of equals is taken"
    told = ", ".join(f"{value:.3f} of {name}" for name, value in lacked.items())
    return f"next best was {place}, {margin:.3f} behind: it lacked {told}"
