"""What a scheduler decides, and when it leads, as lines of the audit log."""

from collections.abc import Callable, Sequence
from typing import Final

from inferx.core.explain import Decision
from inferx.exec.identity.audit import Audit, Target
from inferx.exec.identity.principal import EVERY

__all__ = ["DecisionAudit", "outcome_of"]

CLUSTER: Final = Target(type="scheduler", tenant=EVERY, namespace=EVERY)


class DecisionAudit:
    """Writes one term's decisions down.

    Args:
        audit: The log; None keeps none.
        epoch: The term's.
        name_of: Gives what a function is called, `tenant/namespace/name@version`; "" for none.
        node_of: Gives what a node is called; "" for none.
    """

    __slots__ = ("_audit", "_name_of", "_node_of", "_who")

    def __init__(
        self,
        audit: Audit | None,
        epoch: int,
        *,
        name_of: Callable[[int], str],
        node_of: Callable[[int], str],
    ) -> None:
        self._audit = audit
        self._who = f"scheduler/{epoch}"
        self._name_of = name_of
        self._node_of = node_of

    def decided(self, decision: Decision) -> None:
        """Write a decision down: whom it is about, what was decided, why."""
        if self._audit is None:
            return
        target = CLUSTER
        if name := self._name_of(decision.function):
            tenant, namespace, function = name.split("/", 2)
            target = Target(type="function", tenant=tenant, namespace=namespace, name=function)
        node = self._node_of(decision.node)
        self._audit.scheduled(
            self._who,
            decision.kind,
            target,
            outcome=outcome_of(decision, node),
            reason=_reason(decision),
        )

    def happened(self, action: str, name: str, *, outcome: str, reason: str) -> None:
        """Write down what is no decision of the policy's: that it leads, that a node is drained."""
        if self._audit is not None:
            target = Target(type="node", tenant=EVERY, namespace=EVERY, name=name)
            self._audit.scheduled(
                self._who, action, target if name else CLUSTER, outcome=outcome, reason=reason
            )


def outcome_of(decision: Decision, node: str) -> str:
    """Return what was decided, in words: `pod 7 on n1, gpus 0 1, resume, victims 3`."""
    said: list[str] = []
    if decision.pod >= 0:
        said.append(f"pod {decision.pod}")
    if node:
        said.append(f"on {node}")
    if decision.gpus:
        said.append(f"gpus {_numbers(decision.gpus)}")
    if decision.start:
        said.append(decision.start)
    if decision.victims:
        said.append(f"victims {_numbers(decision.victims)}")
    return ", ".join(said)


def _reason(decision: Decision) -> str:
    """Return why; where the policy says nothing itself, what its explanation says of the choice."""
    told = decision.explanation
    if told is None:
        return decision.reason
    of = f"{told.feasible} of {told.gpus} gpus feasible"
    if told.counterfactual:
        of = f"{of}; {told.counterfactual}"
    return f"{decision.reason}; {of}" if decision.reason else of


def _numbers(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))
