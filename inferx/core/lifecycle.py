"""The life of a pod, as data: states, the one transition table, and the reference's names.

The diagram in docs/lifecycle.md is drawn from `TRANSITIONS`; a test compares them.
"""

from enum import IntEnum

__all__ = [
    "HOLDS_GPU",
    "REFERENCE_NAME",
    "STARTING",
    "TRANSITIONS",
    "PodState",
    "check_transition",
]


class PodState(IntEnum):
    """Where a pod is in its life. READY covers idle and working: leases tell which."""

    INIT = 0
    CREATING = 1
    RESTORING = 2
    READY = 3
    SUSPENDING = 4
    STANDBY = 5
    RESUMING = 6
    SNAPSHOTTING = 7
    DRAINING = 8
    TERMINATING = 9
    FAILED = 10
    GONE = 11


_S = PodState
TRANSITIONS: dict[PodState, frozenset[PodState]] = {
    # INIT waits for its victims to leave; it holds a claim, no capacity. Where one cannot be ended,
    # a suspended pod lies there as before.
    _S.INIT: frozenset({_S.CREATING, _S.RESTORING, _S.RESUMING, _S.STANDBY, _S.GONE, _S.FAILED}),
    _S.CREATING: frozenset({_S.READY, _S.TERMINATING, _S.FAILED}),
    # A restore without GPUs ends suspended: the process is back, its GPU state waits in DRAM.
    _S.RESTORING: frozenset({_S.READY, _S.STANDBY, _S.TERMINATING, _S.FAILED}),
    _S.READY: frozenset({_S.SUSPENDING, _S.SNAPSHOTTING, _S.DRAINING, _S.TERMINATING, _S.FAILED}),
    _S.DRAINING: frozenset({_S.SUSPENDING, _S.SNAPSHOTTING, _S.TERMINATING, _S.FAILED}),
    _S.SUSPENDING: frozenset({_S.STANDBY, _S.TERMINATING, _S.FAILED}),
    # A standby pod that is claimed for a resume behind victims goes back to INIT.
    _S.STANDBY: frozenset({_S.RESUMING, _S.INIT, _S.SNAPSHOTTING, _S.TERMINATING, _S.FAILED}),
    _S.RESUMING: frozenset({_S.READY, _S.TERMINATING, _S.FAILED}),
    _S.SNAPSHOTTING: frozenset({_S.READY, _S.GONE, _S.TERMINATING, _S.FAILED}),
    _S.TERMINATING: frozenset({_S.GONE, _S.FAILED}),
    _S.FAILED: frozenset({_S.GONE}),
    _S.GONE: frozenset(),
}

STARTING: frozenset[PodState] = frozenset({_S.INIT, _S.CREATING, _S.RESTORING, _S.RESUMING})
HOLDS_GPU: frozenset[PodState] = frozenset(
    {
        _S.CREATING,
        _S.RESTORING,
        _S.READY,
        _S.SUSPENDING,
        _S.RESUMING,
        _S.SNAPSHOTTING,
        _S.DRAINING,
        _S.TERMINATING,
    }
)
"""States in which a pod may hold GPU slices; a pod that was suspended holds none."""

REFERENCE_NAME: dict[PodState, str] = {
    _S.INIT: "Init",
    _S.CREATING: "Creating",
    _S.RESTORING: "Restoring",
    _S.READY: "Ready",
    _S.SUSPENDING: "MemHibernated",
    _S.STANDBY: "Standby",
    _S.RESUMING: "Resuming",
    _S.SNAPSHOTTING: "Snapshoting",
    _S.DRAINING: "Ready",
    _S.TERMINATING: "Terminating",
    _S.FAILED: "Failed",
    _S.GONE: "Deleted",
}
"""What REST and metrics show: the reference system's PodState names, its spelling included."""


def check_transition(old: PodState, new: PodState) -> None:
    """Assert that the table allows `old -> new`."""
    assert new in TRANSITIONS[old], f"pod may not go {old.name} -> {new.name}"
