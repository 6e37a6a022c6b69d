"""Errors of the objects as gRPC status codes, and back. Nothing else knows both.

Several errors share a code; which one it was is a word beside it.
"""

from typing import Any

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
from inferx.exec.state.rpc import Metadata, said
from inferx.exec.state.store import (
    LeaseLostError,
    RefusedError,
    StoreError,
    TooOldError,
    UnavailableError,
)

__all__ = ["WORD", "error_of", "told"]

WORD = "inferx-error"
"""Key of the metadata that names the error."""

_CODES: dict[type, grpc.StatusCode] = {
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
    StoreError: grpc.StatusCode.INTERNAL,
}
_BY_WORD: dict[str, type[InferXError]] = {kind.__name__: kind for kind in _CODES}


def told(error: Exception) -> tuple[grpc.StatusCode, str, Metadata] | None:
    """Return the status that tells an error; None for a defect."""
    kind = next((kind for kind in type(error).__mro__ if kind in _CODES), None)
    return None if kind is None else (_CODES[kind], str(error), ((WORD, kind.__name__),))


def error_of(error: grpc.RpcError, where: str) -> InferXError:
    """Return the error that a status tells.

    What did not come from the service itself, a deadline or a broken line, leaves open whether
    something was done.
    """
    status: Any = error
    words = [value for key, value in status.trailing_metadata() or () if key == WORD]
    kind = _BY_WORD.get(str(words[0])) if words else None
    if kind is not None and _CODES[kind] is status.code():
        return kind(" ".join(str(status.details()).split()))
    return UnavailableError(f"{where}: {said(error)}")
