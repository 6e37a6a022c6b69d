"""Which fact can answer which command: a node that says another thing is not believed."""

from typing import assert_never

from inferx.core.commands import (
    Copy,
    Create,
    Drop,
    NodeCommand,
    Restore,
    Resume,
    Snapshot,
    Stop,
    Suspend,
)
from inferx.core.events import (
    PodFailed,
    PodGone,
    PodReady,
    PodStuck,
    PodSuspended,
    SnapshotCopied,
    SnapshotDropped,
    SnapshotTaken,
)

__all__ = ["Answer", "answers"]

Answer = (
    PodReady
    | PodSuspended
    | PodGone
    | PodFailed
    | PodStuck
    | SnapshotTaken
    | SnapshotCopied
    | SnapshotDropped
)
"""A fact that tells how a command ended."""


def answers(fact: Answer, command: NodeCommand) -> bool:
    """Tell whether a fact can be the end of a command: of its node, its pod, and its kind."""
    if fact.node != command.node:
        return False
    if isinstance(command, Copy):
        return isinstance(fact, SnapshotCopied) and fact.function == command.function
    if isinstance(command, Drop):
        return isinstance(fact, SnapshotDropped) and fact.function == command.function
    if isinstance(fact, SnapshotCopied | SnapshotDropped) or fact.pod != command.pod:
        return False
    match fact:
        case PodFailed() | PodStuck():
            return True
        case PodReady():
            return isinstance(command, Create | Resume | Restore) and bool(command.gpus)
        case PodSuspended():
            return isinstance(command, Suspend) or (
                isinstance(command, Restore) and not command.gpus
            )
        case PodGone():
            return isinstance(command, Stop)
        case SnapshotTaken():
            return isinstance(command, Snapshot) and fact.left == command.leave
        case _:
            assert_never(fact)
