"""Why the objects refuse: each error is one line, and its class says what a caller can do."""

from inferx.core.errors import InferXError

__all__ = [
    "AdmissionError",
    "BusyError",
    "ConflictError",
    "ExistsError",
    "ForbiddenError",
    "LimitError",
    "NotFoundError",
    "ObjectsError",
]


class ObjectsError(InferXError):
    """What was asked of the objects was not done."""


class NotFoundError(ObjectsError):
    """There is no such object."""


class ExistsError(ObjectsError):
    """There is one of that name already."""


class ConflictError(ObjectsError):
    """The object is no longer as it was read: read it again."""


class ForbiddenError(ObjectsError):
    """Whoever asks may not do this."""


class AdmissionError(ObjectsError):
    """The state of other objects is against it: no such tenant, a disabled one, children."""


class LimitError(AdmissionError):
    """A limit of the tenant is against it."""


class BusyError(ObjectsError):
    """Others kept writing in between, more often than is waited for: ask again."""
