"""Which pods the cluster counts, by the states that they are in."""

from inferx.core.lifecycle import TRANSITIONS, PodState
from inferx.core.pod import Pod

__all__ = ["CHANGES", "COUNTED", "UNDER_WAY", "is_copy"]

COUNTED: tuple[tuple[str, frozenset[PodState]], ...] = (
    # A pod that is snapshotted leaves: whoever needs one must not count on it.
    ("fn_ready", frozenset({PodState.READY})),
    (
        "fn_starting",
        frozenset({PodState.INIT, PodState.CREATING, PodState.RESTORING, PodState.RESUMING}),
    ),
    ("fn_standby", frozenset({PodState.STANDBY, PodState.SUSPENDING})),
)
"""Column of counts -> the states that it counts."""
CHANGES: dict[tuple[PodState, PodState], tuple[tuple[str, int], ...]] = {
    (old, new): tuple(
        (name, 1 if new in members else -1)
        for name, members in COUNTED
        if (old in members) != (new in members)
    )
    for old, following in TRANSITIONS.items()
    for new in following
}
"""Transition -> the columns of counts that it changes, and by how much."""
UNDER_WAY: list[int] = [
    int(state in (PodState.CREATING, PodState.RESTORING, PodState.RESUMING)) for state in PodState
]
"""Whether a pod in a state is being started, by the state's number."""


def is_copy(pod: Pod) -> bool:
    """Whether a pod is in host memory alone, or on its way there without a GPU."""
    return pod.state is PodState.STANDBY or (pod.state is PodState.RESTORING and not pod.gpus)
