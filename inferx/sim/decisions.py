"""The scheduler's decisions as a run keeps them: one row each, deferrals of one kind in one row.

While a function finds no room it is deferred at every chance, up to once a pod that leaves. What
is told again is not kept again: a row holds when, and what changed in the explanation.

Laws:
1. A deferral that repeats the function's latest decision, with the same reason, lengthens that
   decision's row. Any other decision about the function ends the row; one about none does not.
2. Rows are in the order of their first decision, and whether explanations are kept changes
   nothing but them.
3. Nothing is lost: every decision's time, reason and explanation can be read back from the rows.
"""

from array import array
from dataclasses import replace

import msgspec

from inferx.core.explain import Decision
from inferx.sim.record import DecisionRow

__all__ = ["DecisionLog"]


class _Run:
    """A function's deferrals in a row, which the next one may join."""

    __slots__ = ("again_explain", "again_ns", "explain", "index", "reason")

    def __init__(self, index: int, reason: str, explain: str) -> None:
        self.index = index
        self.reason = reason
        self.explain = explain
        self.again_ns: array[int] | None = None
        self.again_explain: list[str | None] = []


class DecisionLog:
    """Takes decisions as they are made. Cost of a repetition: its time, and what changed."""

    def __init__(self) -> None:
        self.rows: list[DecisionRow] = []
        self._runs: dict[int, _Run] = {}

    def take(self, decision: Decision) -> None:
        """Write a decision down."""
        why = decision.explanation
        explain = "" if why is None else msgspec.json.encode(why).decode()
        run = self._runs.pop(decision.function, None)
        if decision.kind == "defer":
            if run is not None and run.reason == decision.reason:
                self._lengthen(run, decision.at_ns, explain)
            else:
                run = _Run(len(self.rows), decision.reason, explain)
                self.rows.append(_row(decision, explain))
            self._runs[decision.function] = run
        else:
            self.rows.append(_row(decision, explain))

    def _lengthen(self, run: _Run, at_ns: int, explain: str) -> None:
        if run.again_ns is None:
            # The row shares what grows with the run.
            run.again_ns = array("q")
            self.rows[run.index] = replace(
                self.rows[run.index], again_ns=run.again_ns, again_explain=run.again_explain
            )
        run.again_ns.append(at_ns)
        run.again_explain.append(None if explain == run.explain else explain)
        run.explain = explain


def _row(decision: Decision, explain: str) -> DecisionRow:
    return DecisionRow(
        decision.at_ns,
        decision.kind,
        decision.function,
        decision.pod,
        decision.node,
        decision.gpus,
        decision.start,
        decision.reason,
        explain,
        decision.victims,
    )
