"""The life of one request, read back from a run directory: when, on which pod, what it waited for.

The wait is split into stretches that follow one another and sum to it exactly: until a place was
decided, until victims had left, while the pod started, until a slot was free.
"""

from bisect import bisect_left, bisect_right
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from inferx.core.explain import Explanation
from inferx.core.types import NodeSpec
from inferx.sim.output import OutputError, Summary, read_summary
from inferx.sim.tables import SCHEMAS

__all__ = ["Deferrals", "Life", "Start", "Stretch", "Victim", "life_of", "places", "slowest"]

_STARTING: Final = {
    "creating": "the pod started from its image",
    "restoring": "the pod was restored from its snapshot",
    "resuming": "the suspended pod was resumed",
}
_LEAVING: Final = {
    "suspending": "was suspended to host memory",
    "snapshotting": "was saved to disk",
    "terminating": "was stopped",
}
"""The last state on a GPU -> how a victim left."""


class Stretch(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of the wait."""

    what: str
    ns: int


class Victim(msgspec.Struct, frozen=True, kw_only=True):
    """A pod that had to leave."""

    pod: int
    function: str
    left_ns: int
    """When its GPUs were free; -1 where it held none."""
    how: str


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """The decision that started the pod which served the request."""

    at_ns: int
    kind: str
    start: str
    reason: str
    node: int
    gpus: list[int]
    victims: list[Victim]
    explanation: Explanation | None


class Deferrals(msgspec.Struct, frozen=True, kw_only=True):
    """Decisions against starting a pod of the function while the request waited."""

    count: int
    first_ns: int
    last_ns: int
    reason: str
    """Of the last one."""
    explanation: Explanation | None
    """Of the last one."""


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """One request of one run."""

    policy: str
    seed: int
    request: int
    function: str
    input_tokens: int
    output_tokens: int
    outcome: str
    cause: str | None
    pod: int
    arrived_ns: int
    started_ns: int
    first_ns: int
    finished_ns: int
    refused_ns: int
    refused_why: str | None
    until_ns: int
    """When it stopped waiting: served, refused, or the end of the run."""
    stretches: list[Stretch]
    deferrals: Deferrals | None
    start: Start | None


def _table(run: Path, name: str, columns: list[str] | None, **where: object) -> pa.Table:
    path = run / f"{name}.parquet"
    try:
        return pq.read_table(
            path,
            columns=columns,
            filters=[(column, "==", value) for column, value in where.items()],  # pyright: ignore[reportArgumentType]  # the stubs accept no tuple
        )
    except (OSError, pa.ArrowException, KeyError) as error:
        raise OutputError(f"{path} is not part of a run that this version wrote") from error


def _choose(run: Path, policy: str | None, seed: int | None) -> tuple[Summary, str, int]:
    """Return the run's summary, and the policy and seed meant; by default its first of each."""
    if not run.is_dir():
        raise OutputError(f"{run}: no such run; expected a directory that `inferx replay` wrote")
    summary = read_summary(run)
    policies = list(dict.fromkeys(row.policy for row in summary.rows))
    if policy is None and policies:
        policy = policies[0]
    seeds = [row.seed for row in summary.rows if row.policy == policy]
    if policy is None or not seeds:
        known = ", ".join(policies) or "none"
        raise OutputError(f"{run}: policy {policy!r} is not in this run; expected one of {known}")
    if seed is None:
        seed = seeds[0]
    if seed not in seeds:
        known = ", ".join(map(str, seeds))
        raise OutputError(f"{run}: no seed {seed} of {policy}; expected one of {known}")
    return summary, policy, seed


def life_of(run: Path, request: int, *, policy: str | None = None, seed: int | None = None) -> Life:
    """Return the life of a request, counted from 0 in the order of arrival.

    Raises:
        OutputError: There is no such run, policy, seed or request.
    """
    summary, policy, seed = _choose(run, policy, seed)
    mine: dict[str, object] = {"policy": policy, "seed": seed}
    found = _table(run, "requests", None, **mine, request=request).to_pylist()
    if not found:
        arrived = next(r.arrived for r in summary.rows if (r.policy, r.seed) == (policy, seed))
        raise OutputError(f"{run}: no request {request}; expected 0 to {arrived - 1}")
    row = found[0]
    span_ns = next(
        round(r.span_s * 1e9) for r in summary.rows if (r.policy, r.seed) == (policy, seed)
    )
    until_ns = next((row[name] for name in ("started_ns", "refused_ns") if row[name] >= 0), span_ns)
    columns = SCHEMAS["decisions"].names
    decisions = _table(run, "decisions", columns, **mine, function=row["function"])
    start = _start(run, mine, decisions, row) if row["pod"] >= 0 else None
    return Life(
        **{name: row[name] for name in (*mine, "request", "function", "outcome", "cause", "pod")},
        **{name: row[name] for name in ("input_tokens", "output_tokens", "refused_why")},
        **{name: row[name] for name in row if name.endswith("_ns")},
        until_ns=until_ns,
        stretches=_stretches(run, mine, row, start, until_ns),
        deferrals=_deferrals(decisions, row["arrived_ns"], until_ns),
        start=start,
    )


def slowest(
    run: Path, count: int, *, policy: str | None = None, seed: int | None = None
) -> tuple[str, int, list[int]]:
    """Return policy, seed and the requests with the longest time to first token, longest first.

    Ties go to the request that came first.
    """
    _, policy, seed = _choose(run, policy, seed)
    columns = ["request", "ttft_s"]
    table = _table(run, "requests", columns, policy=policy, seed=seed, outcome="finished")
    order = pc.sort_indices(table, sort_keys=[("ttft_s", "descending"), ("request", "ascending")])
    return policy, seed, table["request"].take(order[:count]).to_numpy().tolist()


def places(run: Path) -> tuple[list[str], list[tuple[str, int]]]:
    """Return nodes' names, and of each GPU its node's name and its number there."""
    path = run / "cluster.json"
    try:
        nodes = msgspec.json.decode(path.read_bytes(), type=list[NodeSpec])
    except (OSError, msgspec.MsgspecError) as error:
        raise OutputError(f"{path} is not part of a run that this version wrote") from error
    gpus = [(node.name, index) for node in nodes for index in range(node.gpus)]
    return [node.name for node in nodes], gpus


def _explanation(text: str) -> Explanation | None:
    return msgspec.json.decode(text, type=Explanation) if text else None


def _start(
    run: Path, mine: dict[str, object], decisions: pa.Table, row: dict[str, Any]
) -> Start | None:
    """Find the latest decision, before the request began, that started its pod."""
    chosen = pc.and_(
        pc.and_(
            pc.equal(decisions["pod"], pa.scalar(int(row["pod"]))),
            pc.less_equal(decisions["at_ns"], pa.scalar(int(row["started_ns"]))),
        ),
        pc.not_equal(decisions["start"].cast(pa.string()), pa.scalar("")),
    )
    rows = decisions.filter(chosen).to_pylist()
    if not rows:
        return None
    last = rows[-1]
    return Start(
        **{name: last[name] for name in ("at_ns", "kind", "start", "reason", "node", "gpus")},
        victims=[_victim(run, mine, pod, last["at_ns"]) for pod in last["victims"]],
        explanation=_explanation(last["explain"]),
    )


def _victim(run: Path, mine: dict[str, object], pod: int, at_ns: int) -> Victim:
    columns = ["function", "gpu", "from_ns", "to_ns", "state"]
    spans = _table(run, "timeline", columns, **mine, pod=pod).to_pylist()
    left_ns, how = -1, ""
    for span in sorted(spans, key=lambda span: int(span["to_ns"])):
        # The stay that the decision ended; the pod may come back to a GPU later.
        if span["gpu"] >= 0 and span["from_ns"] <= max(at_ns, left_ns) <= span["to_ns"]:
            left_ns, how = span["to_ns"], span["state"]
    function = spans[0]["function"] if spans else ""
    return Victim(pod=pod, function=function, left_ns=left_ns, how=_LEAVING.get(how, "left"))


def _deferrals(decisions: pa.Table, from_ns: int, to_ns: int) -> Deferrals | None:
    """Count the function's deferrals of [from_ns, to_ns]; a row may reach beyond it both ways."""
    touches = pc.and_(
        pc.equal(decisions["kind"].cast(pa.string()), pa.scalar("defer")),
        pc.and_(
            pc.greater_equal(decisions["until_ns"], pa.scalar(from_ns)),
            pc.less_equal(decisions["at_ns"], pa.scalar(to_ns)),
        ),
    )
    count, first_ns, last_ns, reason, explain = 0, -1, -1, "", ""
    for row in decisions.filter(touches).to_pylist():
        times = [row["at_ns"], *row["again_ns"]]
        begin, end = bisect_left(times, from_ns), bisect_right(times, to_ns)
        if begin == end:
            continue
        first_ns = times[begin] if not count else first_ns
        count, last_ns, reason = count + end - begin, times[end - 1], row["reason"]
        told = [row["explain"], *row["again_explain"]][:end]
        explain = next(text for text in reversed(told) if text is not None)
    if not count:
        return None
    return Deferrals(
        count=count,
        first_ns=first_ns,
        last_ns=last_ns,
        reason=reason,
        explanation=_explanation(explain),
    )


def _stretches(
    run: Path, mine: dict[str, object], row: dict[str, Any], start: Start | None, until_ns: int
) -> list[Stretch]:
    """Split the wait; see the module."""
    marks: list[tuple[int, str]] = []
    """Each stretch's end, and what it was for."""
    if row["started_ns"] < 0:
        marks.append((until_ns, "no slot came"))
    elif start is None or row["cause"] == "warm":
        marks.append((until_ns, "all slots of the ready pods were taken"))
    else:
        columns = ["from_ns", "to_ns", "state"]
        spans = _table(run, "timeline", columns, **mine, pod=row["pod"]).to_pylist()
        steps = {
            (span["from_ns"], span["to_ns"], span["state"])
            for span in spans
            if span["state"] in _STARTING and start.at_ns <= span["from_ns"] <= until_ns
        }
        before = "victims left" if start.victims else "the order was on its way"
        marks.append((start.at_ns, "there was no place for a pod"))
        for from_ns, to_ns, state in sorted(steps):
            marks += [(from_ns, before), (to_ns, _STARTING[state])]
        marks.append((until_ns, "the slot was handed over"))
    stretches: list[Stretch] = []
    at = row["arrived_ns"]
    for to_ns, what in marks:
        if at < (end := min(to_ns, until_ns)):
            stretches.append(Stretch(what=what, ns=end - at))
            at = end
    return stretches
