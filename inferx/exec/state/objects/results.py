"""What reading and writing objects gives, here and over the wire."""

from enum import StrEnum

import msgspec

from inferx.exec.state.objects.envelope import DataObject, Key

__all__ = ["ANY_REVISION", "Applied", "Batch", "Listed", "Outcome"]

ANY_REVISION = -1
"""Where a revision is expected: write whatever the object is now, lost update or not."""


class Outcome(StrEnum):
    """What became of an apply."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


class Applied(msgspec.Struct, frozen=True):
    """An object as it is after it was applied."""

    object: DataObject
    outcome: Outcome


class Listed(msgspec.Struct, frozen=True):
    """Objects by key, as they were at one revision."""

    objects: tuple[DataObject, ...]
    revision: int


class Batch(msgspec.Struct, frozen=True):
    """What one commit did to objects: what they are now, or the keys of those that are gone.

    An empty one says that nothing has happened up to its revision.
    """

    revision: int
    changes: tuple[DataObject | Key, ...] = ()
