"""A leader's decisions as lines in its log, with the ids that they are about."""

import logging
from typing import Final

from inferx.core.cluster import Cluster
from inferx.core.explain import Decision
from inferx.core.types import NO_FUNCTION, FunctionId
from inferx.exec.logs import function_ids, ids
from inferx.exec.scheduler.traces import DecisionTraces
from inferx.exec.wire.names import FunctionNames

__all__ = ["tell"]

_log = logging.getLogger(__name__)

_QUIET: Final = frozenset(("defer",))
"""Made anew each time that room comes, for each who waits: `explain` has them."""


def tell(
    decision: Decision,
    names: FunctionNames,
    cluster: Cluster,
    epoch: int,
    traces: DecisionTraces | None,
) -> None:
    """Write a decision down."""
    if decision.kind in _QUIET or not _log.isEnabledFor(logging.INFO):
        return
    function = FunctionId(decision.function)
    named = "" if function == NO_FUNCTION else names.name_of(function)
    known = 0 <= decision.node < len(cluster.nodes)
    node = cluster.nodes[decision.node].name if known else ""
    words = [decision.kind]
    words += [named] if named else []
    words += [f"pod {decision.pod}"] if decision.pod >= 0 else []
    words += [f"on {node}"] if node else []
    words += [decision.start] if decision.start else []
    words += [f"({decision.reason})"] if decision.reason else []
    if decision.victims:
        words.append("pods " + ", ".join(map(str, decision.victims)) + " leave")
    _log.info(
        "%s",
        " ".join(words),
        extra=ids(
            kind=decision.kind,
            **function_ids(named),
            pod=None if decision.pod < 0 else decision.pod,
            node=node or None,
            epoch=epoch,
            start=decision.start or None,
            reason=decision.reason or None,
            victims=list(decision.victims) or None,
            trace=(traces.trace_of(decision.pod) or None) if traces is not None else None,
        ),
    )
