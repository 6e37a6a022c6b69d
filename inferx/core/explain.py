"""Why a decision came out as it did: a record small enough to keep for every cold start."""

from collections.abc import Callable

import msgspec

__all__ = ["Candidate", "Decision", "DecisionSink", "Explanation"]


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """One feasible GPU, its score, and the terms that the score is the sum of."""

    gpu: int
    score: float
    terms: dict[str, float]


class Explanation(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a choice was made from.

    Attributes:
        gpus: GPUs in the cluster.
        feasible: GPUs that passed every filter.
        filtered: How many GPUs each filter turned away, counted at the first that did.
        top: The best candidates, best first.
        margin: Score of the first over the second; 0 where there is no second.
        counterfactual: What would have made it possible, in words; "" where it was.
    """

    gpus: int
    feasible: int
    filtered: dict[str, int] = {}
    top: tuple[Candidate, ...] = ()
    margin: float = 0.0
    counterfactual: str = ""


class Decision(msgspec.Struct, frozen=True):
    """One decision of the scheduler, as it was taken.

    `kind` is place, evict, defer, sink, promote, demote, scale-in, end, lose or error; `start` says
    how the pod starts (cold, restore-remote, restore-nvme, resume), "" where none does.
    """

    at_ns: int
    kind: str
    function: int
    pod: int = -1
    node: int = -1
    gpus: tuple[int, ...] = ()
    start: str = ""
    reason: str = ""
    victims: tuple[int, ...] = ()
    explanation: Explanation | None = None


DecisionSink = Callable[[Decision], None]
"""Takes each decision; called inside a step, it must not call back."""
