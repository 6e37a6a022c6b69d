"""Decisions with names in place of ids, and those that concern one request."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

import msgspec

from inferx.core.explain import Decision
from inferx.core.types import NO_FUNCTION, FunctionId, PodId
from inferx.exec.scheduler.leader import Term

__all__ = ["decision_view", "explained"]

SHOWN: Final = 50
"""Decisions that are told of one request, the latest; of equal deferrals in a row, the last."""


def decision_view(term: Term, decision: Decision) -> Mapping[str, Any]:
    """Return a decision with names in place of ids, and GPUs as their nodes number them."""
    told: dict[str, Any] = msgspec.to_builtins(decision)
    cluster = term.machine.cluster
    function = FunctionId(decision.function)
    told["function"] = "" if function == NO_FUNCTION else term.book.names.name_of(function)
    known = 0 <= decision.node < len(cluster.nodes)
    told["node"] = cluster.nodes[decision.node].name if known else ""
    told["gpus"] = [_place(term, gpu)["gpu"] for gpu in decision.gpus]
    if decision.explanation is not None:
        for candidate in cast("list[dict[str, Any]]", told["explanation"].get("top", [])):
            candidate.update(_place(term, candidate["gpu"]))
    return told


def explained(
    term: Term, function: str, pod: int, since_ns: int, until_ns: int
) -> Mapping[str, Any]:
    """Return what was decided of a function while a request of it waited, and of its pod.

    Args:
        term: The leader's.
        function: As `tenant/namespace/name`, in any version.
        pod: Whose start is told, whenever it was; -1 for none.
        since_ns: The first instant that counts.
        until_ns: The last one; 0 is now.
    """
    until_ns = until_ns or term.machine.cluster.now_ns
    names = term.book.names
    mine = {
        FunctionId(number)
        for number in range(len(names))
        if names.name_of(FunctionId(number)).partition("@")[0] == function
    }
    found = [
        one
        for one in term.decisions
        if (one.function in mine and since_ns <= one.at_ns <= until_ns)
        or (pod >= 0 and one.pod == pod and one.kind in {"place", "evict"})
    ]
    rows = [{**decision_view(term, one), "times": times} for one, times in _grouped(found)[-SHOWN:]]
    started = term.starts.get(PodId(pod)) if pod >= 0 else None
    there = term.machine.cluster.pods.get(PodId(pod)) if pod >= 0 else None
    return {
        "epoch": term.epoch,
        "decisions": rows,
        "start": None
        if started is None
        else {
            "ordered_ns": started.ordered_ns,
            "ready_ns": started.ready_ns,
            "phases": msgspec.to_builtins(started.phases),
        },
        "pod": None
        if there is None
        else {
            "state": there.state.name.lower(),
            "node": term.node_name(there.node),
            "gpus": [_place(term, gpu)["gpu"] for gpu in there.gpus],
        },
    }


def _grouped(decisions: Iterable[Decision]) -> list[tuple[Decision, int]]:
    """Return decisions, with deferrals for one reason in a row as the last of them and a count."""
    grouped: list[tuple[Decision, int]] = []
    for one in decisions:
        if grouped and one.kind == "defer":
            last, times = grouped[-1]
            if (last.kind, last.function, last.reason) == (one.kind, one.function, one.reason):
                grouped[-1] = one, times + 1
                continue
        grouped.append((one, 1))
    return grouped


def _place(term: Term, gpu: int) -> dict[str, Any]:
    cluster = term.machine.cluster
    node = int(cluster.gpu_node[gpu])
    return {"node": cluster.nodes[node].name, "gpu": gpu - int(cluster.first_gpu[node])}
