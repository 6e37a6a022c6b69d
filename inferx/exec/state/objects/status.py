"""Errors of the objects as gRPC status codes, and back. Nothing else knows both.

Several errors share a code; which one it was is a word beside it.
"""

import grpc

from inferx.core.errors import DescriptionError, InferXError
from inferx.exec.state.objects.errors import (
    AdmissionError,
    BusyError,
    ConflictError,
    ExistsError,
    ForbiddenError,
    LimitError,
    NotFoundError,
)
from inferx.exec.state.store import (
    LeaseLostError,
    RefusedError,
    TooOldError,
    UnavailableError,
)

__all__ = ["WORD", "code_of", "error_of"]

WORD = "inferx-error"
"""Key of the metadata that names the error."""

_CODES: dict[type[InferXError], grpc.StatusCode] = {
    DescriptionError: grpc.StatusCode.INVALID_ARGUMENT,
    RefusedError: grpc.StatusCode.INVALID_ARGUMENT,
    ForbiddenError: grpc.StatusCode.PERMISSION_DENIED,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    ExistsError: grpc.StatusCode.ALREADY_EXISTS,
    ConflictError: grpc.StatusCode.ABORTED,
    BusyError: grpc.StatusCode.ABORTED,
    LimitError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    AdmissionError: grpc.StatusCode.FAILED_PRECONDITION,
    LeaseLostError: grpc.StatusCode.FAILED_PRECONDITION,
    TooOldError: grpc.StatusCode.OUT_OF_RANGE,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
}
_BY_WORD = {kind.__name__: kind for kind in _CODES}


def code_of(error: InferXError) -> grpc.StatusCode:
    """Return the code that tells an error; INTERNAL, if none does."""
    return _CODES.get(type(error), grpc.StatusCode.INTERNAL)


def error_of(code: grpc.StatusCode, word: str | None, said: str) -> InferXError:
    """Return the error that a peer told.

    What did not come from the service itself, a deadline or a broken line, leaves open whether
    something was done.
    """
    kind = _BY_WORD.get(word or "")
    if kind is not None and _CODES[kind] is code:
        return kind(said)
    return UnavailableError(f"the state service: {code.name.lower()}: {said}")
